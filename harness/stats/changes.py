"""Find level changes in long series of nightly values: an exact, batched Potts fit. Pure; no I/O.

What a step means, and which library changed on that night, is `harness.store.history`'s business.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MIN_LEVEL_RUNS = 3  # a level is believed after so many runs; one odd night is never a step
PENALTY = 4.0  # times sigma^2 log(runs) a step; false steps of steady noise: docs/report.md
PENALTY_RUNS = 100  # a short series pays as much as one of so many runs: its noise is known less well
CLIP_SIGMA = 3.0  # values farther from their running median are pulled in: two odd nights stay below one penalty
CLIP_WINDOW = 5
KEPT = 0.95  # share of the night-to-night differences that estimate the noise; the largest may be steps
KEPT_SIGMA = 1.959963984540054  # standard normal: 95 % of absolute values lie below
# Mean of |z| below that bound for a standard normal z: sqrt(2 / pi) (1 - exp(-bound^2 / 2)) / 0.95.
KEPT_MEAN = math.sqrt(2 / math.pi) * (1 - math.exp(-(KEPT_SIGMA**2) / 2)) / KEPT


def find_steps(values: NDArray[np.float64], *, resolution: NDArray[np.float64]) -> list[list[int]]:
    """Return, for each series, the indices at which a new level begins.

    values: float64[series, runs], NaN where a run has no value. resolution: float64[series], the smallest
    difference that means anything (one image, one byte); it bounds the noise of a constant series from below.

    The levels minimise sum (x - level)^2 + penalty * steps exactly, by dynamic programming over all series at once.
    Source: Friedrich, Kempe, Liebscher, Winkler (2008), Complexity penalized M-estimation: fast computation,
    J. Comp. Graph. Stat. 17(1), eq. 3; penalty of the order sigma^2 log n: Yao (1988), Stat. Prob. Letters 6.
    """
    n_series, n_runs = values.shape
    counts = np.isfinite(values).sum(axis=1)
    packed = np.zeros((n_series, n_runs))
    penalties = np.ones(n_series)
    for row, series in enumerate(values):
        known = series[np.isfinite(series)]
        if known.size >= 2 * MIN_LEVEL_RUNS:
            sigma = max(noise_sigma(known), float(resolution[row]) / 4)
            packed[row, : known.size] = _clip_outliers(known, sigma) - np.median(known)
            penalties[row] = PENALTY * sigma**2 * math.log(max(known.size, PENALTY_RUNS))
    starts = _fit_levels(packed, penalties)
    positions = [np.flatnonzero(np.isfinite(series)) for series in values]
    return [
        [int(where[index]) for index in _steps_back(starts[row], int(counts[row]))]
        for row, where in enumerate(positions)
    ]


def noise_sigma(series: NDArray[np.float64]) -> float:
    """Return the standard deviation of the night-to-night noise, blind to rare steps.

    series: float64[runs], finite. Source: mean absolute successive difference (von Neumann 1941), trimmed.
    """
    differences = np.sort(np.abs(np.diff(series)))
    kept = differences[: max(math.ceil(KEPT * differences.size), 1)]
    return float(kept.mean()) / (KEPT_MEAN * math.sqrt(2)) if differences.size else 0.0


def _clip_outliers(series: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    # A running median keeps a step where it is (Tukey 1977) and forgets up to two odd nights in a row.
    half = CLIP_WINDOW // 2
    # Beyond the ends stands the median of the nearest runs: two odd nights at the very end are no step yet.
    ends = [np.full(half, np.median(part)) for part in (series[:CLIP_WINDOW], series[-CLIP_WINDOW:])]
    padded = np.concatenate([ends[0], series, ends[1]])
    median = np.median(np.lib.stride_tricks.sliding_window_view(padded, CLIP_WINDOW), axis=1)
    return np.clip(series, median - CLIP_SIGMA * sigma, median + CLIP_SIGMA * sigma)


def _fit_levels(series: NDArray[np.float64], penalties: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return int64[series, runs + 1]: where the last level begins in the best fit of the first r values."""
    n_series, n_runs = series.shape
    sums = np.zeros((n_series, n_runs + 1))
    squares = np.zeros((n_series, n_runs + 1))
    np.cumsum(series, axis=1, out=sums[:, 1:])
    np.cumsum(series**2, axis=1, out=squares[:, 1:])
    best = np.full((n_series, n_runs + 1), np.inf)
    best[:, 0] = -penalties  # the first level is not a step
    starts = np.zeros((n_series, n_runs + 1), dtype=np.int64)
    rows = np.arange(n_series)
    for stop in range(MIN_LEVEL_RUNS, n_runs + 1):
        last = stop - MIN_LEVEL_RUNS + 1
        length = stop - np.arange(last)
        error = squares[:, stop, None] - squares[:, :last] - (sums[:, stop, None] - sums[:, :last]) ** 2 / length
        total = best[:, :last] + penalties[:, None] + np.maximum(error, 0.0)
        starts[:, stop] = total.argmin(axis=1)
        best[:, stop] = total[rows, starts[:, stop]]
    return starts


def _steps_back(starts: NDArray[np.int64], stop: int) -> list[int]:
    steps: list[int] = []
    while stop >= 2 * MIN_LEVEL_RUNS or (steps and stop > 0):
        stop = int(starts[stop])
        if stop == 0:
            break
        steps.append(stop)
    return steps[::-1]
