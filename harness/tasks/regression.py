"""Numbers a sample: mean absolute error, root mean square error, coefficient of determination."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, MeasurementError
from harness.protocols import Sample, Tensors
from harness.records import MetricScore, MetricSlices
from harness.tasks._metrics import Counts, Floats, Naming, Slicing, mean_score, whole_score
from harness.tasks._samples import (
    OUTPUT,
    SampleTask,
    Setting,
    Settings,
    names_of_classes,
    numbers_of,
    one_output,
    output_of,
    target_of,
)

NAME = "regression"
MAX_SLICES = 64  # numbers a sample that are told apart
EQUAL = 1e-12  # of the targets' variance: what rounding alone leaves


class Errors:
    """Scores one or several numbers a sample."""

    def __init__(self, settings: Settings) -> None:
        """Begin without samples."""
        self._settings = settings
        self._targets: list[NDArray[np.float64]] = []
        self._found: list[NDArray[np.float64]] = []

    def add(self, outputs: Tensors, sample: Sample) -> None:
        """Take the outputs of one sample: as many numbers as its target has, in any shape."""
        found = output_of(outputs, self._settings[OUTPUT], task=NAME).astype(np.float64)
        target = numbers_of(target_of(sample, "value", task=NAME), sample)
        if found.size != target.size or (self._targets and target.size != self._targets[0].size) or not target.size:
            expected = self._targets[0].size if self._targets else target.size
            raise DataError(
                f"sample {sample.id}: the output has shape {list(found.shape)} and the target {list(target.shape)}; "
                f"expected {expected} numbers in both"
            )
        if not np.isfinite(found).all():
            raise MeasurementError(f"sample {sample.id}: the output is not finite")
        self._targets.append(target.reshape(-1))
        self._found.append(found.reshape(-1))

    def scores(self) -> tuple[MetricScore, ...]:
        """Return MAE, RMSE, and R2 where the targets differ. Raises: MeasurementError without samples."""
        if not self._targets:
            raise MeasurementError(f"task {NAME}: no sample was scored")
        targets, found = np.stack(self._targets), np.stack(self._found)
        errors = np.abs(found - targets)
        unit = str(self._settings["unit"] or "")
        squared = (errors**2).mean(axis=1)
        scores = [
            mean_score(_naming("MAE", "mean absolute error", unit), errors.mean(axis=1), self._slices(errors)),
            whole_score(
                _naming("RMSE", "root of the mean squared error", unit), partial(_root_mean, squared), np.sqrt(squared)
            ),
        ]
        if (targets != targets[0]).any():
            r2 = Naming(name="R2", summary="share of the targets' variance that the outputs explain")
            scores.append(whole_score(r2, partial(_explained, targets, errors**2), -squared))
        return tuple(scores)

    def _slices(self, errors: Floats) -> MetricSlices | None:
        """Return the error of every number of a sample, where they are few."""
        n_numbers = errors.shape[1]
        if n_numbers > MAX_SLICES:
            return None
        slicing = Slicing("mean absolute error", higher_is_better=False)
        for row, of_sample in enumerate(errors.tolist()):
            slicing.add(row, dict(enumerate(of_sample)))
        return slicing.slices(names_of_classes(self._settings["classes"], n_numbers))


def _naming(name: str, summary: str, unit: str) -> Naming:
    return Naming(name=name, summary=summary, higher_is_better=False, is_fraction=False, unit=unit)


def _root_mean(squared: Floats, counts: Counts) -> Floats:
    roots: Floats = np.sqrt(counts @ squared / counts.sum(axis=1))
    return roots


def _explained(targets: Floats, squared: Floats, counts: Counts) -> Floats:
    """Return R2 on resamples, float64[R]: of every number its own, and their mean.

    `targets` and `squared` errors: float64[N, K]. A number whose targets are all the same on a resample is left out.
    """
    n = counts.sum(axis=1, keepdims=True)
    centred = targets - targets.mean(axis=0)  # the variance of a resample then loses no digits
    total = counts @ centred**2 - (counts @ centred) ** 2 / n
    varies = total > EQUAL * (centred**2).sum(axis=0)
    shares = np.divide(counts @ squared, total, out=np.zeros_like(total), where=varies)
    n_varying = varies.sum(axis=1)
    mean = np.divide(shares.sum(axis=1), n_varying, out=np.full(len(counts), np.nan), where=n_varying > 0)
    explained: Floats = 1 - mean
    return explained


TASK = SampleTask(
    name=NAME,
    summary="one or several numbers a sample",
    make=Errors,
    metrics=("MAE", "RMSE", "R2"),
    reads=one_output,
    settings=(
        Setting(name="unit", summary="the unit of the numbers"),
        Setting(name="classes", summary="the names of the numbers, where a sample has several", kinds=(list,)),
    ),
)
