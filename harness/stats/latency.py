"""Rounds of times -> summary and ratios. The unit is the round: samples within one are not independent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.stats.quantiles import finite_samples, median_interval, quantile_interval, quantile_or_none
from harness.stats.rates import CONFIDENCE, check_level


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySummary:
    """Rounds in short [ns per call]. A quantile or interval that the samples cannot support is None."""

    p50: float  # median of the medians of rounds
    p50_low: float | None  # 95 % interval, from whole rounds; None below 6 rounds
    p50_high: float | None
    p90: float | None  # each quantile with its 95 % order-statistic interval, or not at all
    p90_low: float | None
    p90_high: float | None
    p99: float | None
    p99_low: float | None
    p99_high: float | None
    mean: float
    minimum: float
    cv: float | None  # standard deviation / mean of the medians of rounds [fraction]; None for one round
    n_rounds: int
    n_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A time divided by another; above 1 is slower. Without enough rounds there is no interval."""

    value: float
    low: float | None
    high: float | None
    n_rounds: int

    @property
    def has_interval(self) -> bool:
        """Tell whether anything may be concluded from the ratio."""
        return self.low is not None and self.high is not None


def round_medians(rounds_ns: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the median of every round [ns]; one row of samples is taken as rounds of one sample.

    rounds_ns: float64[rounds, samples] or float64[rounds].
    Raises: MeasurementError for no samples, or one that is NaN, infinite or not positive.
    """
    rounds = np.asarray(rounds_ns, np.float64)
    if rounds.ndim not in (1, 2) or rounds.size == 0:
        raise MeasurementError(f"times of shape {rounds.shape} are no rounds; expected [rounds, samples], both above 0")
    if (finite_samples(rounds) <= 0).any():
        raise MeasurementError(f"a time of {float(rounds.min())} ns is not positive: the clock is broken")
    rows = rounds.reshape(len(rounds), -1)
    middle, is_even = rows.shape[1] // 2, rows.shape[1] % 2 == 0
    # np.median, without the four fifths of its time that it spends on other shapes and NaN.
    ranked = np.partition(rows, (middle - 1, middle) if is_even else middle, axis=1)
    return np.asarray((ranked[:, middle - 1] + ranked[:, middle]) / 2 if is_even else ranked[:, middle], np.float64)


def summarize_latency(rounds_ns: NDArray[np.generic], confidence: float = CONFIDENCE) -> LatencySummary:
    """Return quantiles of the samples and an interval of the median over whole rounds.

    rounds_ns: float64[rounds, samples] [ns].
    Raises: MeasurementError for no samples, or one that is NaN, infinite or not positive.
    """
    medians = round_medians(rounds_ns)
    samples = np.asarray(rounds_ns, np.float64).ravel()
    interval = median_interval(medians, confidence) or (None, None)
    p90, p99 = (quantile_interval(samples, quantile, confidence) or (None, None) for quantile in (0.9, 0.99))
    return LatencySummary(
        p50=float(np.median(medians)),
        p50_low=interval[0],
        p50_high=interval[1],
        p90=None if p90[0] is None else quantile_or_none(samples, 0.9),
        p90_low=p90[0],
        p90_high=p90[1],
        p99=None if p99[0] is None else quantile_or_none(samples, 0.99),
        p99_low=p99[0],
        p99_high=p99[1],
        mean=float(samples.mean()),
        minimum=float(samples.min()),
        cv=float(medians.std(ddof=1) / medians.mean()) if medians.size > 1 else None,
        n_rounds=int(medians.size),
        n_samples=int(samples.size),
    )


def ratio_of_rounds(
    rounds_ns: NDArray[np.generic], reference_rounds_ns: NDArray[np.generic], confidence: float = CONFIDENCE
) -> Ratio:
    """Return how much slower one engine is than another that ran in turn with it, round by round.

    The median over rounds of the ratio of the rounds' medians: a change of the machine's speed hits both engines of a
    round alike and cancels. With fewer than 6 rounds (at 95 %) there is a value but no interval.
    Raises: MeasurementError for different numbers of rounds, or times that are not positive numbers.
    """
    ours, theirs = round_medians(rounds_ns), round_medians(reference_rounds_ns)
    if ours.size != theirs.size:
        raise MeasurementError(f"{ours.size} rounds cannot be paired with {theirs.size} of the reference")
    ratios = ours / theirs
    low, high = median_interval(ratios, confidence) or (None, None)
    return Ratio(value=float(np.median(ratios)), low=low, high=high, n_rounds=int(ratios.size))


def ratio_of_runs(
    rounds_ns: NDArray[np.generic], baseline_rounds_ns: NDArray[np.generic], confidence: float = CONFIDENCE
) -> Ratio:
    """Return how much slower an engine is than in another run, whose rounds are not paired with ours.

    The median of all ratios of a round here to a round there, with the interval that inverts the Wilcoxon-Mann-Whitney
    test on logarithms. It knows the scatter of the rounds, not that between processes or nights.
    Raises: MeasurementError for times that are not positive numbers.
    Source: J. L. Hodges, E. L. Lehmann, Ann. Math. Statist. 34 (1963) 598; M. Hollander, D. A. Wolfe, Nonparametric
    Statistical Methods (1999), section 4.3.
    """
    check_level(confidence, "confidence")
    ours, theirs = round_medians(rounds_ns), round_medians(baseline_rounds_ns)
    ratios = np.sort((ours[:, None] / theirs[None, :]).ravel())
    depth = _mann_whitney_depth(ours.size, theirs.size, (1 - confidence) / 2)
    interval = (float(ratios[depth - 1]), float(ratios[ratios.size - depth])) if depth else (None, None)
    return Ratio(
        value=float(np.median(ratios)), low=interval[0], high=interval[1], n_rounds=int(min(ours.size, theirs.size))
    )


@lru_cache(maxsize=1024)
def _mann_whitney_depth(n: int, m: int, tail: float) -> int:
    """Return the largest d with P(U < d) <= tail; 0 when even the extreme outcome is likelier than that.

    Only the lower tail is used, whose counts are whole numbers far below 2^53.
    """
    from scipy import special

    counts = np.ones(1)
    for k in range(1, n + 1):  # Gaussian binomial coefficient: product of (1 - x^(m+k)) / (1 - x^k)
        counts = _multiply_and_divide(counts, m + k, k, n * m + 1)
    below = np.cumsum(counts) / special.comb(n + m, n)
    return int(np.searchsorted(below, tail, side="right"))


def _multiply_and_divide(counts: NDArray[np.float64], up: int, down: int, size: int) -> NDArray[np.float64]:
    padded = np.zeros(size)
    padded[: counts.size] = counts
    raised: NDArray[np.float64] = np.array(padded)
    if up < size:
        raised[up:] -= padded[:-up]
    for start in range(down):  # dividing by (1 - x^down) is a running sum with that stride
        raised[start::down] = np.cumsum(raised[start::down])
    return raised
