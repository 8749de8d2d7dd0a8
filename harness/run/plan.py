"""Options + what this machine has -> the cases of a run. No engine is touched; workers answer what must be asked."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.backends import PROBE_LIMIT_S, list_backends, load_backend
from harness.datasets import check_range, open_dataset
from harness.discovery import add_extension_dir
from harness.errors import BackendUnavailable, ConfigError, WorkerDied
from harness.models import bundled_models, find_model
from harness.options.values import HarnessOptions
from harness.precision import recipe_names
from harness.protocols import Progress, TakesOptions, no_progress
from harness.records import Availability
from harness.specs import DEFAULT_RECIPES, Case, ModelSpec, Precision
from harness.worker.process import Worker
from harness.worker.requests import OnnxQuestion


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The cases of a run and what they need."""

    cases: tuple[Case, ...]
    models: dict[str, ModelSpec]
    backends: tuple[Availability, ...]  # usable and chosen
    left_out: dict[str, str]  # backend -> reason, under `auto`


def plan_run(options: HarnessOptions, *, models_dir: Path, probe: bool = True) -> Plan:
    """Choose backends, models and cases.

    `probe=False` (for listing tests) trusts that a backend whose modules are installed can run.
    Raises: ConfigError for unknown names; BackendUnavailable for a backend asked for by name that cannot run.
    """
    for folder in options.extension_dirs:
        add_extension_dir(folder)
    names = _chosen_names(options.backends)
    found = probe_backends(names, options) if probe else [_installed(name) for name in names]
    usable = [a for a in found if a.usable]
    left_out = {a.backend: one_line(a) for a in found if not a.usable}
    if options.backends != ("auto",) and left_out:
        raise BackendUnavailable(
            "; ".join(f"--backend={name} cannot run here: {why}" for name, why in left_out.items())
        )
    if not usable:
        raise BackendUnavailable(
            "no backend can run here: " + "; ".join(f"{name}: {why}" for name, why in left_out.items())
        )
    _check_backend_options(options)
    _check_recipes(options)
    models: dict[str, ModelSpec] = {}
    for spec in _chosen_models(options, models_dir):
        if spec.name in models:
            raise ConfigError(
                f"--model: {models[spec.name].onnx_path} and {spec.onnx_path} are both called {spec.name}"
            )
        models[spec.name] = spec
    options.check_settings(tuple(models.values()))
    cases = tuple(
        Case(model=model, backend=a.backend, precision=precision, recipe=recipe, device=_device(options, a))
        for model in models
        for a in usable
        for precision in options.precisions
        for recipe in _recipes(options, precision)
    )
    return Plan(cases=cases, models=models, backends=tuple(usable), left_out=left_out)


def _check_backend_options(options: HarnessOptions) -> None:
    """Refuse an option that its backend would not read. Raises: ConfigError."""
    for name, key, value in options.backend_options:
        where = f"--backend-option={name}.{key}={value}"
        if name not in list_backends():
            raise ConfigError(f"{where}: no backend is called {name}; {near_names(name, list_backends())}")
        backend = load_backend(name)
        if not isinstance(backend, TakesOptions):
            raise ConfigError(f"{where}: {name} takes no options")
        if key not in backend.option_names:
            raise ConfigError(f"{where}: {name} has no option {key}; {near_names(key, backend.option_names)}")


def one_line(availability: Availability) -> str:
    """Return why a backend is not usable and what to install."""
    hint = f" ({availability.install_hint})" if availability.install_hint else ""
    return availability.reason + hint


def probe_backends(names: Sequence[str], options: HarnessOptions) -> list[Availability]:
    """Probe backends in one worker; if one kills it, the rest go on in another."""
    found: list[Availability] = []
    remaining = list(names)
    while remaining:
        reached = [0]

        def note(done: int, total: int, reached: list[int] = reached) -> None:
            reached[0] = done

        worker = Worker(python=options.worker_python, extension_dirs=options.extension_dirs, label="probe")
        try:
            found += worker.call(
                "probe",
                tuple(remaining),
                tuple[Availability, ...],
                timeout_s=PROBE_LIMIT_S,
                limit_option="",
                progress=note,
            )
            remaining = []
        except WorkerDied as error:
            culprit = remaining[reached[0]]
            # Those before the culprit answered inside the lost worker: ask them again, without it.
            found.append(Availability(backend=culprit, usable=False, reason=str(error)))
            remaining.remove(culprit)
        finally:
            worker.close()
    order = {name: index for index, name in enumerate(names)}
    return sorted(found, key=lambda a: order[a.backend])


def near_names(name: str, names: Sequence[str]) -> str:
    """Return a hint with the nearest known names, or all of them."""
    near = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}"


def _chosen_names(asked: tuple[str, ...]) -> tuple[str, ...]:
    known = list_backends()
    if asked == ("auto",):
        return known
    for name in asked:
        if name not in known:
            raise ConfigError(f"--backend={name}: no backend is called that; {near_names(name, known)}")
    return tuple(dict.fromkeys(asked))


def _installed(name: str) -> Availability:
    backend = load_backend(name)
    missing = [module for module in backend.required_modules if importlib.util.find_spec(module) is None]
    if missing:
        return Availability(
            backend=name, usable=False, reason=f"{missing[0]} is not installed", install_hint=backend.install_hint
        )
    return Availability(backend=name, usable=True, devices=("cpu",))


def _chosen_models(options: HarnessOptions, models_dir: Path) -> list[ModelSpec]:
    if not options.models:
        return [spec for spec in bundled_models(models_dir) if not spec.timing_only]
    return [_one_model(name, options, models_dir) for name in options.models]


def _one_model(name: str, options: HarnessOptions, models_dir: Path) -> ModelSpec:
    given = {
        field: value
        for field, value in (
            ("scale", options.input_scale),
            ("num_classes", options.num_classes),
            ("label_offset", options.label_offset),
        )
        if value is not None
    }
    spec = find_model(name, models_dir)
    if isinstance(spec, ModelSpec):
        return replace(spec, **given)  # type: ignore[arg-type]
    worker = Worker(python=options.worker_python, label=name)
    try:
        question = OnnxQuestion(path=str(spec), overrides=given)
        return worker.call("inspect_model", question, ModelSpec, timeout_s=options.timeout_s)
    finally:
        worker.close()


def check_data(options: HarnessOptions, progress: Progress = no_progress) -> None:
    """Open the images once before any engine is built, downloading them if they must be.

    Raises: DataError for a data set that is missing, damaged or too small; ConfigError for calibration images that
    would also be scored, whatever name either was asked for by.
    """
    data = options.data
    scored = open_dataset(data.name, split=data.split, data_dir=data.data_dir, progress=progress)
    check_range(data.scored.first, data.scored.stop, name=scored.name, split=scored.split, n_images=scored.n_images)
    if Precision.INT8 not in options.precisions:
        return
    found = open_dataset(data.name, split=data.calibration_split, data_dir=data.data_dir, progress=progress)
    wanted = data.calibration
    check_range(wanted.first, wanted.stop, name=found.name, split=found.split, n_images=found.n_images)
    shared = replace(data.scored, dataset=scored.name, split=scored.split).overlap(
        replace(wanted, dataset=found.name, split=found.split)
    )
    if shared:
        raise ConfigError(
            f"{shared} calibration images of {found.name}/{found.split} would also be scored; move one with "
            "--score-from or --calibration-from"
        )


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
    if options.device not in availability.devices:
        raise ConfigError(
            f"--device={options.device}: {availability.backend} has {', '.join(availability.devices)} here"
        )
    return options.device
