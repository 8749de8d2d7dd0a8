"""Quantiles, each with an order-statistic interval or not at all."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.stats.rates import CONFIDENCE, check_level


@lru_cache(maxsize=1024)
def n_needed_for_quantile(quantile: float, confidence: float = CONFIDENCE) -> int:
    """Return how many samples a quantile needs before any order-statistic interval of it exists.

    The widest interval is [smallest, largest] and covers the quantile with probability 1 - q^n - (1 - q)^n: 6 samples
    for p50, 29 for p90, 59 for p95, 299 for p99 at 95 %. MLPerf asks 662 for p99, because its bound must hold with 99 %
    confidence and leave room for a second exceedance: a stricter question.
    Raises: MeasurementError for a quantile or confidence outside (0, 1).
    Source: H. A. David, H. N. Nagaraja, Order Statistics (2003), section 7.1.
    """
    check_level(quantile, "quantile")
    check_level(confidence, "confidence")
    n = max(1, math.floor(math.log(1 - confidence) / math.log(max(quantile, 1 - quantile))) - 1)
    while 1 - quantile**n - (1 - quantile) ** n < confidence:
        n += 1
    return n


def quantile_or_none(samples: NDArray[np.float64], quantile: float) -> float | None:
    """Return a quantile (linear between samples), or None when there are too few samples to vouch for it.

    Raises: MeasurementError for a sample that is NaN or infinite.
    """
    values = finite_samples(samples)
    if values.size < n_needed_for_quantile(quantile):
        return None
    return float(np.quantile(values, quantile))


def quantile_interval(
    samples: NDArray[np.float64], quantile: float, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Return an order-statistic interval of a quantile, or None when there are too few samples.

    Holds for any distribution of independent samples with at least the confidence asked; near the end of the samples
    the interval is moved inwards, where it still exists.
    Raises: MeasurementError for a sample that is NaN or infinite.
    Source: H. A. David, H. N. Nagaraja, Order Statistics (2003), section 7.1.
    """
    values = np.sort(finite_samples(samples))
    if values.size < n_needed_for_quantile(quantile, confidence):
        return None
    low, high = _order_statistics(int(values.size), quantile, confidence)
    return float(values[low - 1]), float(values[high - 1])


def median_interval(samples: NDArray[np.float64], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Return an interval of the median interpolated to the confidence asked, or None with too few samples.

    Two neighbouring order-statistic intervals, one with more and one with less than the confidence asked, are mixed;
    the coverage is then within 1 % of it for all usual distributions.
    Raises: MeasurementError for a sample that is NaN or infinite.
    Source: T. P. Hettmansperger, S. J. Sheather, Statistics & Probability Letters 4 (1986) 75.
    """
    values = np.sort(finite_samples(samples))
    n = int(values.size)
    if n < n_needed_for_quantile(0.5, confidence):
        return None
    depth, mix = _median_depth(n, confidence)
    low = (1 - mix) * values[depth - 1] + mix * values[depth]
    high = (1 - mix) * values[n - depth] + mix * values[n - depth - 1]
    return float(low), float(high)


@lru_cache(maxsize=1024)
def _order_statistics(n: int, quantile: float, confidence: float) -> tuple[int, int]:
    """Return the ranks (from 1) of the interval's ends."""
    from scipy import stats

    tail = (1 - confidence) / 2
    low = max(1, int(stats.binom.ppf(tail, n, quantile)))
    high = min(n, int(stats.binom.isf(tail, n, quantile)) + 1)
    while stats.binom.cdf(high - 1, n, quantile) - stats.binom.cdf(low - 1, n, quantile) < confidence:
        low, high = max(1, low - 1), min(n, high + 1)
    return low, high


@lru_cache(maxsize=1024)
def _median_depth(n: int, confidence: float) -> tuple[int, float]:
    """Return the rank of the wider interval's lower end, and the share of the narrower one to mix in."""
    from scipy import stats

    depth = max(1, int(stats.binom.ppf((1 - confidence) / 2, n, 0.5)))
    while depth > 1 and 1 - 2 * stats.binom.cdf(depth - 1, n, 0.5) < confidence:
        depth -= 1
    wide, narrow = (float(1 - 2 * stats.binom.cdf(d, n, 0.5)) for d in (depth - 1, depth))
    share = (wide - confidence) / (wide - narrow)
    return depth, (n - depth) * share / (depth + (n - 2 * depth) * share)


def finite_samples(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the samples as one float64 row. Raises: MeasurementError for NaN or infinity."""
    values = np.asarray(samples, np.float64).ravel()
    if not np.isfinite(values).all():
        raise MeasurementError(f"{int((~np.isfinite(values)).sum())} of {values.size} samples are NaN or infinite")
    return values
