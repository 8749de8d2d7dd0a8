"""From what every sample scored to a metric with its interval: means, and metrics of the whole set by resampling.

A metric of the whole set is computed again on N_RESAMPLES resamples of the samples. They are the same ones for every
engine (one seed, the same number of samples), so two engines are compared resample by resample: a paired bootstrap.
Source: B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 13.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.records import MetricScore, MetricSlices, PackedArray
from harness.stats import mean_interval, percentile_interval

N_RESAMPLES = 1000
SEED = 20_261_126
BLOCK_VALUES = 1 << 21  # counts held at a time

Counts = NDArray[np.float64]  # float64[R, N]: how often each of N samples is in each of R resamples
Floats = NDArray[np.float64]


def resample_counts(n_samples: int, n_resamples: int = N_RESAMPLES) -> Iterator[Counts]:
    """Yield blocks of float64[R, n_samples], all together `n_resamples` rows; the same ones at every call.

    They come from the raw numbers of PCG64, which NumPy promises never to change; the bias of the remainder is
    below 2^-50 for any number of samples that fits in memory.
    """
    bits = np.random.PCG64(SEED)
    n_rows = max(1, BLOCK_VALUES // n_samples)
    for first in range(0, n_resamples, n_rows):
        rows = min(n_rows, n_resamples - first)
        drawn = (bits.random_raw(rows * n_samples) % np.uint64(n_samples)).astype(np.int64).reshape(rows, n_samples)
        places = drawn + n_samples * np.arange(rows)[:, None]
        yield np.bincount(places.ravel(), minlength=rows * n_samples).reshape(rows, n_samples).astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What a metric is called, and how it reads."""

    name: str
    summary: str
    higher_is_better: bool = True
    is_fraction: bool = True
    unit: str = ""


def mean_score(naming: Naming, values: Sequence[float] | Floats, slices: MetricSlices | None = None) -> MetricScore:
    """Return a metric that is the mean of its samples. `values`: float64[N]. Raises: MeasurementError without any."""
    array = np.asarray(values, np.float64)
    if array.size == 0:
        raise MeasurementError(f"{naming.name}: no sample was scored")
    if not np.isfinite(array).all():
        raise MeasurementError(f"{naming.name}: a sample's value is not finite")
    return _score(naming, float(array.mean()), mean_interval(array), array, slices=slices)


def whole_score(
    naming: Naming,
    on_resamples: Callable[[Counts], Floats],
    own: Sequence[float] | Floats,
    slices: MetricSlices | None = None,
) -> MetricScore:
    """Return a metric of the whole set.

    `on_resamples`: takes counts float64[R, N], returns the metric float64[R]; `own`: float64[N], what each sample
    scores alone, to show which changed (NaN: nothing to score in it).
    Raises: MeasurementError without samples, or where the metric is not defined on them.
    """
    return whole_scores([naming], lambda counts: on_resamples(counts)[:, None], own, slices)[0]


def whole_scores(
    namings: Sequence[Naming],
    on_resamples: Callable[[Counts], Floats],
    own: Sequence[float] | Floats,
    slices: MetricSlices | None = None,
) -> tuple[MetricScore, ...]:
    """Return several metrics of the whole set at once, as `whole_score`; `on_resamples` returns float64[R, metrics].

    The slices are the first metric's.
    """
    array = np.asarray(own, np.float64)
    if array.size == 0:
        raise MeasurementError(f"{namings[0].name}: no sample was scored")
    values = on_resamples(np.ones((1, array.size)))[0]
    for naming, value in zip(namings, values, strict=True):
        if not np.isfinite(value):
            raise MeasurementError(f"{naming.name} is not defined on these {array.size} samples: {naming.summary}")
    replicates = np.concatenate([on_resamples(counts) for counts in resample_counts(array.size)])
    replicates = np.where(np.isfinite(replicates), replicates, values)  # a resample that holds nothing to score
    return tuple(
        _score(
            naming,
            float(values[i]),
            percentile_interval(replicates[:, i]),
            array,
            resamples=np.ascontiguousarray(replicates[:, i]),
            slices=None if i else slices,
        )
        for i, naming in enumerate(namings)
    )


def _score(
    naming: Naming,
    value: float,
    interval: tuple[float, float],
    own: Floats,
    *,
    resamples: Floats | None = None,
    slices: MetricSlices | None = None,
) -> MetricScore:
    return MetricScore(
        name=naming.name,
        summary=naming.summary,
        higher_is_better=naming.higher_is_better,
        is_fraction=naming.is_fraction,
        unit=naming.unit,
        value=value,
        low=interval[0] if np.isfinite(interval[0]) and own.size > 1 else None,
        high=interval[1] if np.isfinite(interval[1]) and own.size > 1 else None,
        n_samples=own.size,
        values=PackedArray.of(own),
        resamples=None if resamples is None else PackedArray.of(resamples),
        slices=slices,
    )


class Ratios:
    """Sums of numerators over sums of denominators, group by group, and their mean over the groups.

    One group: a rate of the whole set (character error rate, mean squared error). Many: a mean over classes (mean
    intersection over union, macro F1, class-balanced accuracy). A group without a denominator is left out.
    """

    def __init__(self) -> None:
        """Begin without samples."""
        self._rows: list[int] = []
        self._groups: list[int] = []
        self._parts: list[tuple[float, float]] = []
        self._n = 0

    def add(self, parts: dict[int, tuple[float, float]]) -> None:
        """Take one sample: group -> (numerator, denominator)."""
        self._rows += [self._n] * len(parts)
        self._groups += parts
        self._parts += parts.values()
        self._n += 1

    def __call__(self, counts: Counts) -> Floats:
        """Return float64[R]; NaN where no group has a denominator."""
        from scipy import sparse

        shape = (self._n, max(self._groups, default=0) + 1)
        places = (np.asarray(self._rows, np.int64), np.asarray(self._groups, np.int64))
        parts = np.asarray(self._parts, np.float64).reshape(-1, 2)
        above, below = (sparse.csr_matrix((parts[:, i], places), shape=shape) for i in (0, 1))
        numerators, denominators = np.asarray(counts @ above), np.asarray(counts @ below)
        has_any = denominators > 0
        ratios = np.divide(numerators, denominators, out=np.zeros_like(numerators), where=has_any)
        n_groups = has_any.sum(axis=1)
        means: Floats = np.divide(ratios.sum(axis=1), n_groups, out=np.full(len(counts), np.nan), where=n_groups > 0)
        return means


class Slicing:
    """What samples scored in each class that they hold."""

    def __init__(self, of: str, *, higher_is_better: bool = True) -> None:
        """Begin without samples. `of`: what a value is, in words."""
        self._of, self._higher_is_better = of, higher_is_better
        self._rows: list[int] = []
        self._groups: list[int] = []
        self._values: list[float] = []

    def add(self, row: int, values: dict[int, float]) -> None:
        """Take the sample at a place: group -> value."""
        self._rows += [row] * len(values)
        self._groups += values
        self._values += values.values()

    def slices(self, names: Sequence[str]) -> MetricSlices | None:
        """Return the slices, None where there are fewer than two groups. `names`: of all groups."""
        if len(set(self._groups)) < 2:
            return None
        return MetricSlices(
            of=self._of,
            higher_is_better=self._higher_is_better,
            names=tuple(names),
            rows=PackedArray.of(np.asarray(self._rows, np.int32)),
            groups=PackedArray.of(np.asarray(self._groups, np.int32)),
            values=PackedArray.of(np.asarray(self._values, np.float64)),
        )
