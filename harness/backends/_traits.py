"""What a backend can do, said by itself: its `supports` decides by it and docs/backends.md prints it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.precision import find_recipe
from harness.precision.recipe import CAST, NOTHING, QDQ
from harness.specs import Case, Precision

FILE_OF = {Precision.FP32: (NOTHING,), Precision.FP16: (CAST,), Precision.BF16: (CAST, NOTHING), Precision.INT8: (QDQ,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """What a backend makes of one precision."""

    runs: str  # in a few words: the arithmetic, or why there is none
    takes: tuple[str, ...]  # what recipes write (QDQ, CAST, NOTHING) or the family they quantize in; () = refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """One row of the table of backends."""

    runtime: str  # as its makers call it
    extra: str  # of `pip install 'nn-engine-harness[EXTRA]'`
    batch: str  # how a batch of any size is run
    layers: str  # what is read back of the layers
    abilities: Mapping[Precision, Ability] = field(default_factory=dict)
    device: str = "cpu"

    @property
    def install_hint(self) -> str:
        """Return the command that installs it."""
        return f"pip install 'nn-engine-harness[{self.extra}]'"

    def reads_qdq(self, precision: Precision) -> bool:
        """Tell whether files with Q/DQ nodes are read in a precision."""
        return QDQ in self.abilities[precision].takes

    def refusal(self, case: Case, backend: str) -> str:
        """Return why a case cannot run whatever its model, "" when it can."""
        ability = self.abilities.get(case.precision)
        if ability is None or not ability.takes:
            return f"{backend} has no {case.precision}" + (f": {ability.runs}" if ability else "")
        recipe = find_recipe(case.precision, case.recipe)
        if (recipe.quantizes_in or recipe.writes) in ability.takes:
            return ""
        if recipe.quantizes_in:
            return f"recipe {case.recipe} quantizes inside another runtime ({recipe.quantizes_in}), not in {backend}"
        return f"recipe {case.recipe} is not for {backend}: {ability.runs}"


def takes_files(runs: Mapping[Precision, str]) -> dict[Precision, Ability]:
    """Return the abilities of a backend that takes the files of some precisions: precision -> what runs."""
    return {precision: Ability(runs=text, takes=FILE_OF[precision]) for precision, text in runs.items()}


def takes_casts(runs: str) -> Ability:
    """Return the ability to take BF16 files, but not to be told to compute in BF16."""
    return Ability(runs=runs, takes=(CAST,))


def refused(why: str) -> Ability:
    """Return the ability that is none."""
    return Ability(runs=why, takes=())


def quantizes(family: str, runs: str) -> Ability:
    """Return the ability to quantize while it builds: recipes of one family."""
    return Ability(runs=runs, takes=(family,))
