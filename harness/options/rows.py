"""One option is one row: what is typed, where it goes, and how it is typed again.

Rows know no argparse, no pytest and no file; backends write rows of their own (`OptionGroup`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

import msgspec

from harness.errors import ConfigError
from harness.options.names import check_name
from harness.options.tolerances import fraction_from_text, text_from_fraction, tolerance_from_text
from harness.specs import ModelSpec, Settings, TimingPlan

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How one value is typed, on the command line and in TOML."""

    name: str  # for messages: "a whole number"
    metavar: str
    parse: Callable[[str], Any]  # raises ValueError, or ConfigError with words of its own
    text: Callable[[Any], str] = str
    toml: tuple[type, ...] = ()  # types of a TOML value that are taken beside text


def number(text: str) -> float:
    """Return a finite number. Raises: ValueError."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def tolerance(name: str) -> Kind:
    """Return the kind of a tolerance: a fraction in its own range."""
    return Kind(
        name="a fraction",
        metavar="FRACTION",
        parse=lambda text: tolerance_from_text(name, text),
        text=text_from_fraction,
        toml=(int, float),
    )


TEXT = Kind(name="a name", metavar="NAME", parse=str)
SWITCH = Kind(name="true or false", metavar="", parse=bool)  # typed as --flag or --no-flag
WHOLE = Kind(name="a whole number", metavar="N", parse=int, toml=(int,))
NUMBER = Kind(
    name="a number",
    metavar="NUMBER",
    parse=number,
    text=lambda value: repr(value).removesuffix(".0"),
    toml=(int, float),
)
FRACTION = Kind(name="a fraction", metavar="FRACTION", parse=fraction_from_text, text=repr, toml=(int, float))
PATH = Kind(name="a path", metavar="PATH", parse=str)
NAME_OR_PATH = Kind(name="a name or a path", metavar="NAME|PATH", parse=str)  # with a "/" it is a path


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a run."""

    flag: str  # as typed, for example --batch-size; `batch_size` in [run] of harness.toml
    field: str  # of HarnessOptions, dotted; of the group's own values where `group` is set
    kind: Kind
    help: str  # without unit and default, which are added
    section: str  # heading in docs/options.md
    group: str = ""  # the backends' group whose settings it belongs to
    metavar: str = ""  # the kind's where empty
    unit: str = ""
    default: str = ""  # in words, where the value alone says too little
    choices: tuple[str, ...] = ()
    listed: bool = False  # a comma list
    repeated: bool = False  # may be given several times
    # Which cases there are; how one is measured and judged; or only how the run goes, which no repeated case needs.
    role: Literal["selects", "shapes", "run"] = "shapes"
    place: Literal["typed", "absolute", "root"] = "typed"  # of a path: kept as typed, made absolute, or below the root
    belongs_in: str = ""  # the table of harness.toml that it is written in instead of [run]

    @property
    def key(self) -> str:
        """Return its name in [run] of harness.toml."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def dest(self) -> str:
        """Return its name in argparse's namespace, which no other plugin uses."""
        return f"harness_{self.key}"

    @property
    def own_flag(self) -> str:
        """Return its second name, which no other plugin uses."""
        return f"--harness-{self.flag.removeprefix('--')}"

    @property
    def negation(self) -> str:
        """Return what turns a switch off."""
        return f"--no-{self.flag.removeprefix('--')}"

    @property
    def names(self) -> frozenset[str]:
        """Return the flags that it is typed as."""
        return frozenset((self.flag, self.negation) if self.is_switch else (self.flag,))

    @property
    def is_switch(self) -> bool:
        """Tell whether it is typed without a value."""
        return self.kind is SWITCH

    @property
    def is_many(self) -> bool:
        """Tell whether its value is a tuple."""
        return self.listed or self.repeated

    def text(self, value: Any) -> str:
        """Return a value as it is typed; several are joined by commas."""
        if self.is_switch:
            return "yes" if value else "no"
        return ",".join(self.kind.text(item) for item in value) if self.is_many else self.kind.text(value)

    def words(self, value: Any, *, by_own_flag: bool = False) -> list[str]:
        """Return the words of a command line that set a value; `by_own_flag`: under its second name."""
        flag = self.own_flag if by_own_flag else self.flag
        if self.is_switch:
            return [flag if value else f"--no-{flag.removeprefix('--')}"]
        if self.repeated and not self.listed:
            return [f"{flag}={self.kind.text(item)}" for item in value]
        return [f"{flag}={self.text(value)}"]


Check = Callable[[Settings, Sequence[ModelSpec], TimingPlan, int], None]


def no_check(settings: Settings, models: Sequence[ModelSpec], timing: TimingPlan, score_batch: int) -> None:
    """Check nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionGroup:
    """Options that one backend, or several, bring: `GROUP` of an `options` module in the backend's folder."""

    name: str  # its part of the settings
    rows: tuple[Option, ...]
    read: Callable[[Settings], object]  # settings -> frozen values; of {} the defaults. Raises: ConfigError
    check: Check = no_check  # what must hold before a run, with its models, batch sizes and scoring batch


def values_of(kind: type[T], settings: Settings, *groups: str) -> T:
    """Return the dataclass that some groups of the settings describe.

    Raises: ConfigError for an unknown name or a value of another type, and what the dataclass itself raises.
    """
    given = {name: value for group in groups for name, value in settings.get(group, {}).items()}
    where = f"settings of {' and '.join(groups)}"
    known = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    for name in given:
        check_name(name, known, where=where)
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error


def defaults_of(group: OptionGroup) -> Mapping[str, object]:
    """Return the default of every row of a group by field."""
    values = group.read({})
    return {row.field: getattr(values, row.field) for row in group.rows}
