"""Intervals of one rate, and the exact test of a rate against a floor."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

from harness.errors import MeasurementError

N_CACHED = 1 << 16  # results of counts: the cases of a fleet share most of theirs
CONFIDENCE = 0.95  # of every interval that is only shown; verdicts use 1 - 2 alpha


@lru_cache(maxsize=N_CACHED)
def wilson_interval(n_hits: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the Wilson score interval of a rate [fraction, fraction].

    The interval to show: its mean coverage is close to `confidence` (Clopper-Pearson's is above it).
    Raises: MeasurementError for n = 0, counts out of order or a confidence outside (0, 1).
    Source: E. B. Wilson, JASA 22 (1927) 209; `scipy.stats.binomtest(...).proportion_ci("wilson")`.
    """
    return _binomial_interval(n_hits, n, confidence, "wilson")


@lru_cache(maxsize=N_CACHED)
def clopper_pearson_interval(n_hits: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the exact interval of a rate [fraction, fraction].

    The interval to judge with: its coverage is never below `confidence`.
    Raises: MeasurementError for n = 0, counts out of order or a confidence outside (0, 1).
    Source: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934) 404; `scipy.stats.binomtest`.
    """
    return _binomial_interval(n_hits, n, confidence, "exact")


@lru_cache(maxsize=N_CACHED)
def below_floor_p(n_hits: int, n: int, floor: float) -> float:
    """Return the exact p-value of "the rate is below the floor" (one-sided binomial test).

    Raises: MeasurementError for n = 0, counts out of order or a floor outside [0, 1].
    """
    from scipy import stats

    check_counts(n, n_hits)
    if not 0 <= floor <= 1:
        raise MeasurementError(f"floor {floor} is not a fraction of images; expected 0 to 1")
    return float(stats.binom.cdf(n_hits, n, floor))


def check_counts(n: int, *parts: int) -> None:
    """Check that `n` images were compared and that the parts fit into them.

    Raises: MeasurementError otherwise; nothing to compare is never a pass.
    """
    if n < 1:
        raise MeasurementError(f"{n} images were compared; at least 1 is needed for any statement")
    if any(part < 0 for part in parts) or sum(parts) > n:
        raise MeasurementError(f"counts {parts} do not fit into {n} images")


def check_level(level: float, name: str) -> None:
    """Check that a confidence, alpha or power lies strictly between 0 and 1.

    Raises: MeasurementError otherwise (NaN included).
    """
    if not 0 < level < 1:
        raise MeasurementError(f"{name} is {level}; expected a fraction between 0 and 1")


def _binomial_interval(
    n_hits: int, n: int, confidence: float, method: Literal["exact", "wilson"]
) -> tuple[float, float]:
    from scipy import stats

    check_counts(n, n_hits)
    check_level(confidence, "confidence")
    interval = stats.binomtest(int(n_hits), int(n)).proportion_ci(confidence, method=method)
    return float(np.clip(interval.low, 0, 1)), float(np.clip(interval.high, 0, 1))
