"""The images of a run, looked at before any engine is built."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from harness.datasets import check_range, fingerprint_range, open_dataset, open_samples
from harness.errors import ConfigError, DataError
from harness.models.preprocess import Fit, fit_of
from harness.options.values import HarnessOptions
from harness.protocols import Dataset, Progress, Sample, SampleSet
from harness.specs import ImageRange, ModelSpec, Precision
from harness.tasks import collector_of, find_sample_task
from harness.worker.sample_sets import PreparedSamples, fingerprint_of, scored_samples, tensors_of


def check_data(
    options: HarnessOptions, models: Iterable[ModelSpec], progress: Progress, *, is_scored: bool = True
) -> None:
    """Open the images of every classifier once before any engine is built, downloading them if they must be.

    `is_scored=False`: they are only timed, and need no targets.
    Raises: DataError for a data set that is missing, damaged or too small; ConfigError for calibration images that
    would also be scored, whatever name either was asked for by.
    """
    models = list(models)
    for fit in {fit_of(model) for model in models if not model.timing_only}:
        _check(options, fit, progress)
    graphs = [model for model in models if model.tensors is not None]
    if options.has_data and graphs:
        _check_samples(options, graphs, progress, is_scored=is_scored)


def scored_by_metrics(options: HarnessOptions, models: Iterable[ModelSpec]) -> frozenset[str]:
    """Return the models of any graph whose samples a task scores by metrics. Raises: ConfigError for a task's settings.

    Seeded inputs have no targets, and some tasks no metric.
    """
    graphs = [model for model in models if model.tensors is not None and options.has_data]
    tasks = {model.name: find_sample_task(model.task) for model in graphs}
    for model in graphs:
        collector_of(model)  # refuses a wrong key before anything runs
    return frozenset(name for name, task in tasks.items() if task.metrics)


def _check_samples(
    options: HarnessOptions, graphs: Iterable[ModelSpec], progress: Progress, *, is_scored: bool
) -> None:
    """Open the samples of models of any graph once, and hold the first against each model.

    Raises: DataError, ConfigError as `check_data`.
    """
    data, wanted = options.data, options.data.calibration
    scored = open_samples(data.name, split=data.split, data_dir=data.data_dir, progress=progress)
    if not scored.n_samples:
        raise DataError(f"{scored.name}/{scored.split}: holds no samples")
    for model in graphs:
        sample = _first_of(scored, model, data.scored)
        if is_scored and find_sample_task(model.task).metrics and sample.target is None:
            raise DataError(f"{scored.name}: sample {sample.id}: it has no target, which task {model.task} scores by")
    if Precision.INT8 not in options.precisions:
        return
    calibrating = open_samples(wanted.dataset, split=data.calibration_split, data_dir=data.data_dir, progress=progress)
    if wanted.first >= calibrating.n_samples:
        raise DataError(
            f"{calibrating.name}/{calibrating.split} has {calibrating.n_samples} samples; none calibrates from "
            f"{wanted.first} on: give others with --calibration-dataset, or move one with --score-images and "
            "--calibration-from"
        )
    for model in graphs:
        _first_of(calibrating, model, wanted)
    ours = replace(_range_of(scored, data.scored), stop=max(data.scored.first, min(data.scored.stop, scored.n_samples)))
    theirs = replace(_range_of(calibrating, wanted), stop=min(wanted.stop, calibrating.n_samples))
    if shared := ours.overlap(theirs):
        raise ConfigError(
            f"{shared} calibration samples of {calibrating.name}/{calibrating.split} would also be scored; "
            f"{_others(ours, calibrating.n_samples)}"
        )


def _others(scored: ImageRange, n_there: int) -> str:
    """Say how to calibrate on what is not scored; `n_there`: in the set."""
    if scored.stop < n_there:
        return f"take those behind them, --calibration-from={scored.stop}, or others with --calibration-dataset"
    return (
        f"all {n_there} are scored: score fewer with --score-images and take those behind them with "
        "--calibration-from, or give others with --calibration-dataset"
    )


def _first_of(samples: SampleSet, model: ModelSpec, data: ImageRange) -> Sample:
    """Return the first sample of a range as a model takes it. Raises: DataError for one that does not fit."""
    return PreparedSamples(samples, model, tensors_of(model), data).sample(0)


class Fingerprints:
    """What the scores of a model will say that they are of; images that several models share are read once."""

    def __init__(self, options: HarnessOptions) -> None:
        self._data, self._has_data = options.data, options.has_data
        self._known: dict[Fit | str, str] = {}  # by how images are fitted; of a model of any graph by its name

    def of(self, model: ModelSpec) -> str:
        """Return the `fingerprint` of a model's `Accuracy` or `SampleScores` to come; "" where nothing is scored.

        Raises: DataError as `open_dataset`.
        """
        if model.tensors is None and model.timing_only:
            return ""
        key = fit_of(model) if model.tensors is None else model.name
        if key not in self._known:
            self._known[key] = self._of_images(model) if model.tensors is None else self._of_samples(model)
        return self._known[key]

    def _of_images(self, model: ModelSpec) -> str:
        data = self._data
        dataset = open_dataset(data.name, split=data.split, data_dir=data.data_dir, fit=fit_of(model))
        return fingerprint_range(dataset, data.scored.first, data.scored.stop)

    def _of_samples(self, model: ModelSpec) -> str:
        return fingerprint_of(scored_samples(model, self._data, has_data=self._has_data))


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
            f"{shared} calibration images of {calibrating.name}/{calibrating.split} would also be scored; "
            f"{_others(_range_of(scored, data.scored), calibrating.n_images)}"
        )


def _range_of(dataset: Dataset | SampleSet, asked: ImageRange) -> ImageRange:
    """Return a range by what its data set is, however it was spelled: two paths of one folder are one set."""
    path = Path(dataset.name)
    name = str(path.resolve()) if path.exists() else dataset.name
    return replace(asked, dataset=name, split=dataset.split)
