"""Tolerances in one place: `harness.toml` or `[tool.harness]` of `pyproject.toml`.

    [tolerance]                          all cases
    max_drop = "0.5%"                    or 0.005; likewise max_drop_baseline, alpha, floor, max_slowdown,
                                         max_drift, max_build_slowdown, max_engine_growth, max_memory_growth,
                                         min_speedup (1.5: half as fast again as FP32),
                                         drop_budget, slowdown_budget (what accepted changes may add up to)
    [tolerance.int8]                     a precision
    [tolerance.openvino]                 a backend
    [tolerance.openvino.int8]            a backend in a precision
    [model.lenet5.tolerance]             a model; also .int8, .openvino, .openvino.int8

Later beats earlier; a model's tables beat all others; the command line beats the file, the file beats the model's card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.options.file import TABLES, read_settings, table_of
from harness.options.names import check_name
from harness.specs import Case, ModelSpec, Precision, Tolerance

TOLERANCE_KEYS = tuple(item.name for item in fields(Tolerance))
PRECISIONS = tuple(precision.value for precision in Precision)
LARGEST_BARE_FRACTION = 0.2  # 0.5 is more likely half a point than half of all images, so it must be written "50%"
GROWTHS = ("max_slowdown", "max_build_slowdown", "max_engine_growth", "max_memory_growth", "max_drift")
RANGES = {"alpha": (1e-12, 0.2), "min_speedup": (0.0, 1000.0)}
RANGES |= dict.fromkeys((*GROWTHS, "slowdown_budget"), (0.0, 100.0))
LOSS_KEYS = ("max_drop", "max_drop_baseline", "drop_budget", "alpha")

Values = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToleranceTable:
    """The values of a configuration file by scope; "" in a scope's place means any."""

    source: str = ""  # the file, for messages; "" when there is none
    scopes: dict[tuple[str, str, str], dict[str, float]] = field(default_factory=dict)  # (model, backend, precision)

    def tolerance_for(
        self, case: Case, model: ModelSpec | None, dataset: str, *, command_line: Values | None = None
    ) -> Tolerance:
        """Return a case's tolerance: command line, then file, then the model's card if any, then the defaults.

        `command_line`: keys of Tolerance that were given (None values are dropped).
        Raises: ConfigError for an unknown key or a value out of range.
        """
        values = {**(_card_values(case, model) if model else {}), **self._file_values(case)}
        given = {name: value for name, value in (command_line or {}).items() if value is not None}
        for name, value in given.items():
            check_name(name, TOLERANCE_KEYS, where="the command line")
            check_value(name, value)
        values.update(given)
        if "floor" not in values and model is not None:
            floor = _card_floor(case, model, dataset, values.get("max_drop", Tolerance().max_drop))
            values.update({} if floor is None else {"floor": floor})
        return Tolerance(**values)

    def _file_values(self, case: Case) -> dict[str, float]:
        precision = case.precision.value
        values: dict[str, float] = {}
        for model in ("", case.model):
            for backend, kind in (("", ""), (case.backend, ""), ("", precision), (case.backend, precision)):
                values.update(self.scopes.get((model, backend, kind), {}))
        return values


def load_tolerances(root: Path, *, backends: Sequence[str], models: Sequence[str] | None = None) -> ToleranceTable:
    """Read `harness.toml`, or `[tool.harness]` of `pyproject.toml`, in a folder; neither is an empty table.

    `backends`, `models`: the names there are; `models=None` accepts any model name.
    Raises: ConfigError when both hold settings, or for a file that is not TOML or has an unknown name or value.
    """
    settings = read_settings(root)
    if not settings.source:
        return ToleranceTable()
    return parse_tolerances(settings.table, backends=backends, models=models, source=settings.source)


def parse_tolerances(
    table: Mapping[str, Any], *, backends: Sequence[str], models: Sequence[str] | None = None, source: str
) -> ToleranceTable:
    """Return the table of a parsed TOML document.

    Raises: ConfigError naming the file, the key and the nearest known name.
    """
    scopes: dict[tuple[str, str, str], dict[str, float]] = {}
    for key, value in table.items():
        check_name(key, TABLES, where=source)
        if key in ("run", "waiver"):
            continue  # read by the run
        if key == "tolerance":
            _read_scope(
                table_of(value, f"{source} [tolerance]"), model="", backends=backends, source=source, into=scopes
            )
            continue
        for model, settings in table_of(value, f"{source} [model]").items():
            if models is not None:
                check_name(model, models, where=f"{source} [model]")
            for name, inner in table_of(settings, f"{source} [model.{model}]").items():
                check_name(name, ("tolerance",), where=f"{source} [model.{model}]")
                scope = table_of(inner, f"{source} [model.{model}.tolerance]")
                _read_scope(scope, model=model, backends=backends, source=source, into=scopes)
    return ToleranceTable(source=source, scopes=scopes)


def fraction_from_text(text: str) -> float:
    """Return a fraction from `0.005` or `0.5%`.

    Raises: ConfigError for anything else.
    """
    stripped = text.strip()
    try:
        return float(Decimal(stripped[:-1]).scaleb(-2)) if stripped.endswith("%") else float(stripped)
    except (ValueError, ArithmeticError):
        raise ConfigError(f"{text!r} is neither a fraction like 0.005 nor a percentage like 0.5%") from None


def text_from_fraction(value: float) -> str:
    """Return the text that `fraction_from_text` and `tolerance_from_text` turn back into the same fraction."""
    if value <= LARGEST_BARE_FRACTION:
        return repr(value)
    return f"{Decimal(repr(value)).scaleb(2):f}%"


def value_from_text(name: str, text: str, *, where: str) -> float:
    """Return a tolerance from what was typed, for example for `--max-drop`.

    Raises: ConfigError, as `tolerance_from_text`, with the place where it was typed.
    """
    try:
        return tolerance_from_text(name, text)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def tolerance_from_text(name: str, text: str) -> float:
    """Return a tolerance from what was typed.

    Raises: ConfigError for text that is no number or a value out of range.
    """
    try:
        value = fraction_from_text(text)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    if not text.strip().endswith("%"):
        _check_is_meant(name, value)
    check_value(name, value)
    return value


def check_value(name: str, value: float) -> None:
    """Check that a tolerance is in its range. Raises: ConfigError otherwise (NaN included)."""
    low, high = RANGES.get(name, (0.0, 1.0))
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value:g}; expected {low:g} to {high:g}")


def _read_scope(
    table: Mapping[str, Any],
    *,
    model: str,
    backends: Sequence[str],
    source: str,
    into: dict[tuple[str, str, str], dict[str, float]],
    backend: str = "",
    precision: str = "",
) -> None:
    where = (
        f"{source} [{'.'.join(part for part in (model and f'model.{model}', 'tolerance', backend, precision) if part)}]"
    )
    inner = () if precision else (PRECISIONS if backend else (*PRECISIONS, *backends))
    for key, value in table.items():
        check_name(key, (*TOLERANCE_KEYS, *inner), where=where)
        if key in TOLERANCE_KEYS:
            into.setdefault((model, backend, precision), {})[key] = _number(key, value, where)
            continue
        is_precision = key in PRECISIONS
        _read_scope(
            table_of(value, f"{where} {key}"),
            model=model,
            backends=backends,
            source=source,
            into=into,
            backend=backend if is_precision else key,
            precision=key if is_precision else "",
        )


def _number(name: str, value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ConfigError(f"{where}: {name} is {value!r}; expected a number or a percentage like '0.5%'")
    return value_from_text(name, value if isinstance(value, str) else repr(value), where=where)


def _check_is_meant(name: str, value: float) -> None:
    if name in LOSS_KEYS and value > LARGEST_BARE_FRACTION:
        raise ConfigError(
            f"{name} = {value:g} means {100 * value:g} %; did you mean '{value:g}%'? If not, write '{100 * value:g}%'"
        )


def _card_values(case: Case, model: ModelSpec) -> dict[str, float]:
    tables = {"max_drop": model.max_drop, "min_speedup": model.min_speedup}
    return {key: table[case.precision.value] for key, table in tables.items() if case.precision.value in table}


def _card_floor(case: Case, model: ModelSpec, dataset: str, max_drop: float) -> float | None:
    """Return the card's floor; it is FP32's, so a lower precision may lie below it by the loss accepted of it."""
    floor = model.floors.get(dataset)
    if floor is None or case.is_source:
        return floor
    if case.precision is Precision.INT8 and model.expects_int8_loss:
        return None
    return max(0.0, floor - max_drop)
