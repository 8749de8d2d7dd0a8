"""What a project accepts: its tolerances and its waivers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.backends import list_backends
from harness.options.tolerances import ToleranceTable, load_tolerances
from harness.options.values import HarnessOptions
from harness.run.waiving import waivers_of
from harness.specs import Case, Waiver


def tolerances_of(options: HarnessOptions) -> ToleranceTable:
    """Read the tolerances of the project. Raises: ConfigError."""
    return load_tolerances(Path(options.root), backends=list_backends())


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowances:
    """What a project accepts: changes of any case, and known failures of some."""

    tolerances: ToleranceTable
    waivers: tuple[Waiver, ...]

    def waivers_of(self, case: Case) -> tuple[Waiver, ...]:
        """Return the waivers of a case."""
        return tuple(waiver for waiver in self.waivers if waiver.matches(case.id))


def allowances_of(options: HarnessOptions) -> Allowances:
    """Read what the project accepts. Raises: ConfigError."""
    return Allowances(tolerances=tolerances_of(options), waivers=waivers_of(options))
