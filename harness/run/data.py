"""The images of a run, looked at before any engine is built."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from harness.datasets import check_range, fingerprint_range, open_dataset, open_samples
from harness.errors import ConfigError, DataError
from harness.models.preprocess import Fit, fit_of
from harness.options.values import HarnessOptions
from harness.protocols import Dataset, Progress, SampleSet
from harness.specs import DatasetRequest, ImageRange, ModelSpec, Precision
from harness.tasks import collector_of, find_sample_task


def check_data(options: HarnessOptions, models: Iterable[ModelSpec], progress: Progress) -> None:
    """Open the images of every classifier once before any engine is built, downloading them if they must be.

    Raises: DataError for a data set that is missing, damaged or too small; ConfigError for calibration images that
    would also be scored, whatever name either was asked for by.
    """
    models = list(models)
    for fit in {fit_of(model) for model in models if not model.timing_only}:
        _check(options, fit, progress)
    if options.has_data and any(model.tensors is not None for model in models):
        _check_samples(options, progress)


def scored_by_metrics(options: HarnessOptions, models: Iterable[ModelSpec]) -> frozenset[str]:
    """Return the models of any graph whose samples a task scores by metrics. Raises: ConfigError for a task's settings.

    Seeded inputs have no targets, and some tasks no metric.
    """
    graphs = [model for model in models if model.tensors is not None and options.has_data]
    tasks = {model.name: find_sample_task(model.task) for model in graphs}
    for model in graphs:
        collector_of(model)  # refuses a wrong key before anything runs
    return frozenset(name for name, task in tasks.items() if task.metrics)


def _check_samples(options: HarnessOptions, progress: Progress) -> None:
    """Open the samples of models of any graph once. Raises: DataError, ConfigError as `check_data`."""
    data, wanted = options.data, options.data.calibration
    scored = open_samples(data.name, split=data.split, data_dir=data.data_dir, progress=progress)
    if not scored.n_samples:
        raise DataError(f"{scored.name}/{scored.split}: holds no samples")
    if Precision.INT8 not in options.precisions:
        return
    calibrating = open_samples(wanted.dataset, split=data.calibration_split, data_dir=data.data_dir, progress=progress)
    if wanted.first >= calibrating.n_samples:
        raise DataError(
            f"{calibrating.name}/{calibrating.split} has {calibrating.n_samples} samples; none calibrates from "
            f"{wanted.first} on: give others with --calibration-dataset, or move one with --score-images and "
            "--calibration-from"
        )
    ours = replace(_range_of(scored, data.scored), stop=max(data.scored.first, min(data.scored.stop, scored.n_samples)))
    theirs = replace(_range_of(calibrating, wanted), stop=min(wanted.stop, calibrating.n_samples))
    if shared := ours.overlap(theirs):
        raise ConfigError(
            f"{shared} calibration samples of {calibrating.name}/{calibrating.split} would also be scored; give "
            "others with --calibration-dataset, or move one with --score-images and --calibration-from"
        )


def scored_fingerprint(data: DatasetRequest, models: Iterable[ModelSpec]) -> str:
    """Return what `Accuracy.fingerprint` of every scored case will be, "" where none is.

    Raises: DataError as `open_dataset`; ConfigError for models whose cards make other images of the same files.
    """
    prints = set()
    for fit in {fit_of(model) for model in models if not model.timing_only}:
        dataset = open_dataset(data.name, split=data.split, data_dir=data.data_dir, fit=fit)
        prints.add(fingerprint_range(dataset, data.scored.first, data.scored.stop))
    if len(prints) > 1:
        raise ConfigError("the cards of the models make other images of the same files; plan those models apart")
    return prints.pop() if prints else ""


def _check(options: HarnessOptions, fit: Fit, progress: Progress) -> None:
    data = options.data
    scored = open_dataset(data.name, split=data.split, data_dir=data.data_dir, progress=progress, fit=fit)
    check_range(data.scored.first, data.scored.stop, name=scored.name, split=scored.split, n_images=scored.n_images)
    if Precision.INT8 not in options.precisions:
        return
    wanted = data.calibration
    calibrating = open_dataset(
        wanted.dataset, split=data.calibration_split, data_dir=data.data_dir, progress=progress, fit=fit
    )
    check_range(
        wanted.first, wanted.stop, name=calibrating.name, split=calibrating.split, n_images=calibrating.n_images
    )
    shared = _range_of(scored, data.scored).overlap(_range_of(calibrating, wanted))
    if shared:
        raise ConfigError(
            f"{shared} calibration images of {calibrating.name}/{calibrating.split} would also be scored; move one "
            "with --score-from or --calibration-from"
        )


def _range_of(dataset: Dataset | SampleSet, asked: ImageRange) -> ImageRange:
    """Return a range by what its data set is, however it was spelled: two paths of one folder are one set."""
    path = Path(dataset.name)
    name = str(path.resolve()) if path.exists() else dataset.name
    return replace(asked, dataset=name, split=dataset.split)
