"""Options + what this machine has -> the cases of a run. No engine is touched; workers answer what must be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import BackendUnavailable, ConfigError
from harness.options.names import near_names
from harness.options.values import HarnessOptions
from harness.precision import find_recipe, recipe_names
from harness.protocols import Progress, no_progress
from harness.records import CPU, Availability, ShardOrigin
from harness.run.choosing import choose_models, models_dir_of, names_of_folder, tolerances_of
from harness.run.data import check_data, scored_by_metrics
from harness.run.probing import choose_backends, one_line, takes_device
from harness.specs import DEFAULT_RECIPES, GIVEN_RECIPE, Case, ModelSpec, Precision, TimingPlan, Tolerance

NOT_INSTALLED = "is not installed"  # in the reason of a backend without its package


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The cases of a run and what they need."""

    cases: tuple[Case, ...]
    models: dict[str, ModelSpec]
    backends: tuple[Availability, ...]  # usable and chosen
    left_out: dict[str, str]  # backend -> reason, under `auto`
    device_names: tuple[str, ...] = ()  # of all accelerators that any probe saw
    of_models_folder: frozenset[str] = frozenset()  # models that a run without --model takes
    by_metrics: frozenset[str] = frozenset()  # models whose samples a task scores by metrics
    tolerance_of: Callable[[Case, ModelSpec], Tolerance] = lambda case, model: Tolerance()
    shard: ShardOrigin | None = None  # where the cases are one of a plan's shards
    share_of_night: float = 1.0  # of the cases that are judged together, those that are run here [fraction]

    def lines_left_out(self) -> tuple[str, ...]:
        """Return why backends are left out, for a reader: all that are not installed on one line."""
        missing = [name for name, reason in self.left_out.items() if NOT_INSTALLED in reason]
        others = (f"  left out: {name}: {why}" for name, why in self.left_out.items() if name not in missing)
        named = f"  not installed: {', '.join(missing)} (harness doctor says how)"
        return (*others, *((named,) if missing else ()))

    def lines_of_models(self) -> tuple[str, ...]:
        """Return what was found in models' files that decides how they run."""
        baked = (
            f"  {model.name}: batch {model.max_batch} is baked in ({model.baked_by}); it runs at that batch alone"
            for model in self.models.values()
            if model.baked_by
        )
        unscored = (
            f"  {model.name}: no classifier of one image ({model.unscored}): its outputs are compared, not scored; a "
            "card with [graph] and a task has it scored"
            for model in self.models.values()
            if model.unscored
        )
        return (*baked, *unscored)

    def writes(self, case: Case) -> str:
        """Return what the recipe of a case writes into its file: qdq, cast or nothing."""
        return find_recipe(case.precision, case.recipe).writes


def plan_run(
    options: HarnessOptions,
    *,
    models_dir: Path | None = None,
    probe: bool = True,
    progress: Progress = no_progress,
    is_scored: bool = True,
) -> Plan:
    """Choose backends, models and cases.

    `models_dir`: whose models a run without --model takes (default: that of the options' root, or the bundled ones);
    `probe=False` (for listing tests) trusts that a backend whose modules are installed can run, and that the images are
    there; `progress`: of their download; `is_scored=False`: every model is only timed, on noise or, where the options
    name a data set, on its first images.
    Raises: ConfigError for unknown names; BackendUnavailable for a backend asked for by name that cannot run.
    """
    models_dir = models_dir or models_dir_of(options)
    usable, unusable = choose_backends(options, probe=probe)
    check_recipes(options)
    models = choose_models(options, models_dir)
    if not is_scored and not options.has_data:
        models = {name: replace(model, timing_only=True) for name, model in models.items()}
    options.check_settings(tuple(models.values()))
    _check_engines(models, usable, {a.backend: one_line(a) for a in unusable})
    if probe:
        check_data(options, models.values(), progress, is_scored=is_scored)
    cases = cases_of(options, models, {a.backend: device_of(options, a) for a in usable})
    accelerators = {
        name: None
        for a in (*usable, *unusable)
        for device, name in zip(a.devices, a.device_names, strict=False)
        if device != CPU
    }
    return Plan(
        cases=cases,
        models=models,
        backends=tuple(usable),
        left_out={a.backend: one_line(a) for a in unusable},
        device_names=tuple(accelerators),
        of_models_folder=names_of_folder(models_dir),
        by_metrics=scored_by_metrics(options, models.values()),
        tolerance_of=tolerances_of(options),
    )


def cases_of(options: HarnessOptions, models: Mapping[str, ModelSpec], devices: Mapping[str, str]) -> tuple[Case, ...]:
    """Return the cases of some models; `devices`: backend -> the device that it runs them on.

    Raises: ConfigError for a quantized model without INT8 among the precisions.
    """
    return tuple(
        Case(model=name, backend=backend, precision=precision, recipe=recipe, device=device)
        for name, model in models.items()
        for backend, device in devices.items()
        if model.engine is None or model.engine.backend == backend
        for precision, recipe in _cells(options, model)
    )


def _check_engines(
    models: Mapping[str, ModelSpec], usable: Iterable[Availability], unusable: Mapping[str, str]
) -> None:
    """Refuse a built engine whose backend takes no part. Raises: BackendUnavailable."""
    names = {availability.backend for availability in usable}
    for model in models.values():
        if model.engine is not None and model.engine.backend not in names:
            name = model.engine.backend
            why = unusable.get(name, f"add {name} to --backend")
            raise BackendUnavailable(f"--engine={model.onnx_path} is an engine of {name}: {why}")


def check_recipes(options: HarnessOptions) -> None:
    """Refuse a recipe that none of the asked precisions has. Raises: ConfigError."""
    asked = tuple(name for precision in options.precisions for name in recipe_names(precision))
    for recipe in options.recipes:
        if recipe not in asked:
            kinds = ", ".join(precision.value.upper() for precision in options.precisions)
            raise ConfigError(f"--recipe={recipe}: unknown {kinds} recipe; {near_names(recipe, asked)}")


def _cells(options: HarnessOptions, model: ModelSpec) -> tuple[tuple[Precision, str], ...]:
    """Return the precisions and recipes that a model runs in. Raises: ConfigError for a quantized one without INT8."""
    if model.engine is not None:
        return ((model.engine.precision, GIVEN_RECIPE),)
    if model.is_quantized:
        if Precision.INT8 not in options.precisions:
            raise ConfigError(
                f"model {model.name} is quantized already and runs as INT8, as given; add int8 to --precision"
            )
        return ((Precision.INT8, GIVEN_RECIPE),)
    return tuple((p, recipe) for p in options.precisions for recipe in chosen_recipes(options, p))


def chosen_recipes(options: HarnessOptions, precision: Precision) -> tuple[str, ...]:
    """Return the recipes of a precision that the options ask for: those chosen, or its default."""
    chosen = tuple(recipe for recipe in options.recipes if recipe in recipe_names(precision))
    return chosen or (DEFAULT_RECIPES[precision.value],)


def device_of(options: HarnessOptions, availability: Availability) -> str:
    """Return the device that a backend's cases run on. Raises: ConfigError for one that it does not have."""
    if options.device == "auto":
        return availability.devices[0]
    if options.device not in availability.devices and not takes_device(availability.backend, options.device):
        raise ConfigError(
            f"--device={options.device}: {availability.backend} supports only {', '.join(availability.devices)} here"
        )
    return options.device


def timing_of(model: ModelSpec, options: HarnessOptions) -> TimingPlan:
    """Return how a model is timed.

    One of any graph is at the batch size that its inputs' shapes hold, or at those asked by name: the default's largest
    may be too much for it. A classifier with a fixed batch is at that one unless others are asked by name.
    """
    if model.tensors is None:
        fixed = None if "timing.batch_sizes" in options.named else model.max_batch
        return replace(options.timing, batch_sizes=(fixed,)) if fixed else options.timing
    asked = options.timing.batch_sizes if "timing.batch_sizes" in options.named else (1,)
    return replace(options.timing, batch_sizes=model.tensors.timed_batches(asked))
