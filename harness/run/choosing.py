"""Which models a run takes: bundled ones, cards, ONNX files that a worker looks at; and what is accepted of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from harness.backends import list_backends
from harness.errors import ConfigError, DataError
from harness.models import bundled_models, find_model, load_engine
from harness.options.names import check_name
from harness.options.tolerances import load_tolerances
from harness.options.values import HarnessOptions
from harness.run.folders import models_folder
from harness.specs import Case, InputsAsked, ModelSpec, Tolerance
from harness.worker.process import Worker
from harness.worker.requests import OnnxQuestion


def models_dir_of(options: HarnessOptions) -> Path:
    """Return the folder whose models a run without --model takes."""
    return models_folder(Path(options.root))


def tolerances_of(options: HarnessOptions) -> Callable[[Case, ModelSpec], Tolerance]:
    """Return what tells the tolerance of a case: command line, project's file, card. Raises: ConfigError."""
    table = load_tolerances(Path(options.root), backends=list_backends())

    def tolerance_of(case: Case, model: ModelSpec) -> Tolerance:
        return table.tolerance_for(case, model, options.data.name, command_line=options.tolerances)

    return tolerance_of


def choose_models(options: HarnessOptions, models_dir: Path) -> dict[str, ModelSpec]:
    """Return the models asked for by name. Raises: ConfigError for two of one name; DataError for a bad file."""
    models: dict[str, ModelSpec] = {}
    for spec in _chosen_models(options, models_dir):
        if spec.name in models:
            raise ConfigError(
                f"--model: {models[spec.name].onnx_path} and {spec.onnx_path} are both called {spec.name}"
            )
        models[spec.name] = spec
    return models


def names_of_folder(models_dir: Path) -> frozenset[str]:
    """Return the names of the models that a run without --model takes; none where the folder cannot be read."""
    try:
        return frozenset(spec.name for spec in _models_of_folder(models_dir))
    except DataError:
        return frozenset()


def _models_of_folder(models_dir: Path) -> list[ModelSpec]:
    return [spec for spec in bundled_models(models_dir) if spec.graph is not None or not spec.timing_only]


def _chosen_models(options: HarnessOptions, models_dir: Path) -> list[ModelSpec]:
    engines = [_engine(file) for file in options.engines]
    if not options.models and engines:
        return engines
    if not options.models:
        return [
            spec if spec.graph is None else _read_graph(spec, options, replace(options.inputs, is_for_one=False))
            for spec in _models_of_folder(models_dir)
        ]
    return [*(_one_model(name, options, models_dir) for name in options.models), *engines]


def _engine(file: str) -> ModelSpec:
    spec = load_engine(file)
    if spec.engine is not None:
        check_name(spec.engine.backend, list_backends(), where=f"--engine={file}: [engine] backend")
    return spec


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
    asked = replace(options.inputs, is_for_one=len(options.models) == 1)
    if not isinstance(spec, ModelSpec):
        return inspected(spec, options, given, inputs=asked)
    if spec.graph is not None:
        return _read_graph(spec, options, asked)
    if spec.is_onnx and asked.is_given and len(options.models) == 1:
        raise ConfigError(
            f"model {name} is an image classifier by its card; --shapes and the like are for other graphs"
        )
    return replace(spec, **given)  # type: ignore[arg-type]


def _read_graph(card: ModelSpec, options: HarnessOptions, asked: InputsAsked) -> ModelSpec:
    """Return a card of any graph with what its file says of inputs and outputs. Raises: DataError, WorkerDied."""
    said = asked.over(card.graph or InputsAsked())
    found = inspected(Path(card.onnx_path), options, inputs=said, is_scored=False)
    image = card.input_name or found.input_name
    shape = next((one.shape for one in found.tensors.inputs if one.name == image), ()) if found.tensors else ()
    return replace(
        card,
        tensors=found.tensors,
        graph=None,
        sha256=card.sha256 or found.sha256,
        input_name=image,
        input_shape=card.input_shape or shape[1:],
        output_name=card.output_name or found.output_name,
        layout=card.layout if card.layout != "NCHW" else found.layout,
        is_quantized=found.is_quantized,
    )


def inspected(
    path: Path,
    options: HarnessOptions,
    given: Mapping[str, float] | None = None,
    *,
    inputs: InputsAsked | None = None,
    is_scored: bool | None = None,
) -> ModelSpec:
    """Return what an ONNX file says of itself, read in a worker, with the fields of it that are `given`.

    `inputs`: what is said of a graph's inputs; `is_scored`: whether a classifier is to be scored, not only timed
    (default: whether the options name a data set).
    Raises: DataError for a file that is damaged or a free axis without a size; WorkerDied.
    """
    worker = Worker(python=options.worker_python, label=path.name, limits=options.limits)
    try:
        question = OnnxQuestion(
            path=str(path),
            overrides=dict(given or {}),
            inputs=inputs or InputsAsked(),
            is_scored=options.has_data if is_scored is None else is_scored,
        )
        return worker.call("inspect_model", question, ModelSpec)
    finally:
        worker.close()
