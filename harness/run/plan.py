"""Options + what this machine has -> the cases of a run. No engine is touched; workers answer what must be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError
from harness.options.names import near_names
from harness.options.values import HarnessOptions
from harness.precision import find_recipe, recipe_names
from harness.protocols import Progress, no_progress
from harness.records import Availability
from harness.run.choosing import choose_models
from harness.run.data import check_data
from harness.run.probing import choose_backends, takes_device
from harness.specs import DEFAULT_RECIPES, Case, ModelSpec, Precision

NOT_INSTALLED = "is not installed"  # in the reason of a backend without its package


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The cases of a run and what they need."""

    cases: tuple[Case, ...]
    models: dict[str, ModelSpec]
    backends: tuple[Availability, ...]  # usable and chosen
    left_out: dict[str, str]  # backend -> reason, under `auto`

    def lines_left_out(self) -> tuple[str, ...]:
        """Return why backends are left out, for a reader: all that are not installed on one line."""
        missing = [name for name, reason in self.left_out.items() if NOT_INSTALLED in reason]
        others = (f"  left out: {name}: {why}" for name, why in self.left_out.items() if name not in missing)
        named = f"  not installed: {', '.join(missing)} (harness doctor says how)"
        return (*others, *((named,) if missing else ()))

    def writes(self, case: Case) -> str:
        """Return what the recipe of a case writes into its file: qdq, cast or nothing."""
        return find_recipe(case.precision, case.recipe).writes


def plan_run(
    options: HarnessOptions, *, models_dir: Path, probe: bool = True, progress: Progress = no_progress
) -> Plan:
    """Choose backends, models and cases.

    `probe=False` (for listing tests) trusts that a backend whose modules are installed can run, and that the images are
    there; `progress`: of their download.
    Raises: ConfigError for unknown names; BackendUnavailable for a backend asked for by name that cannot run.
    """
    usable, left_out = choose_backends(options, probe=probe)
    _check_recipes(options)
    models = choose_models(options, models_dir)
    options.check_settings(tuple(models.values()))
    if probe and not all(model.timing_only for model in models.values()):
        check_data(options, progress)
    cases = tuple(
        Case(model=model, backend=a.backend, precision=precision, recipe=recipe, device=_device(options, a))
        for model in models
        for a in usable
        for precision in options.precisions
        for recipe in _recipes(options, precision)
    )
    return Plan(cases=cases, models=models, backends=tuple(usable), left_out=left_out)


def _check_recipes(options: HarnessOptions) -> None:
    asked = tuple(name for precision in options.precisions for name in recipe_names(precision))
    for recipe in options.recipes:
        if recipe not in asked:
            kinds = ", ".join(precision.value.upper() for precision in options.precisions)
            raise ConfigError(f"--recipe={recipe}: no {kinds} recipe is called that; {near_names(recipe, asked)}")


def _recipes(options: HarnessOptions, precision: Precision) -> tuple[str, ...]:
    chosen = tuple(recipe for recipe in options.recipes if recipe in recipe_names(precision))
    return chosen or (DEFAULT_RECIPES[precision.value],)


def _device(options: HarnessOptions, availability: Availability) -> str:
    if options.device == "auto":
        return availability.devices[0]
    if options.device not in availability.devices and not takes_device(availability.backend, options.device):
        raise ConfigError(
            f"--device={options.device}: {availability.backend} has {', '.join(availability.devices)} here"
        )
    return options.device
