"""Rounds of images a second, and times under load -> what is told of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.stats.quantiles import finite_samples, median_interval, quantile_interval, quantile_or_none

P99 = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughputSummary:
    """Images a second with the interval of its median over rounds, and times of single inferences under that load."""

    images_per_s: float
    low: float | None  # of the median's 95 % interval; None with fewer than 6 rounds
    high: float | None
    p50_ns: float
    p99_ns: float | None  # None below 299 inferences
    p99_low_ns: float | None
    p99_high_ns: float | None


def summarize_throughput(rates: NDArray[np.generic], latencies_ns: NDArray[np.generic]) -> ThroughputSummary:
    """Return a summary of float64[rounds] images/s and float64[inferences] ns.

    Raises: MeasurementError for values that are not positive numbers.
    """
    rounds, spans = (finite_samples(np.asarray(values, np.float64)) for values in (rates, latencies_ns))
    if not rounds.size or not spans.size or rounds.min() <= 0 or spans.min() <= 0:
        raise MeasurementError("a throughput needs rounds and times, all greater than 0")
    low, high = median_interval(rounds) or (None, None)
    p99_low, p99_high = quantile_interval(spans, P99) or (None, None)
    return ThroughputSummary(
        images_per_s=float(np.median(rounds)),
        low=low,
        high=high,
        p50_ns=float(np.median(spans)),
        p99_ns=quantile_or_none(spans, P99),
        p99_low_ns=p99_low,
        p99_high_ns=p99_high,
    )
