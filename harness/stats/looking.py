"""The cheap look: one process of tonight against the stored times of the accepted run. It only finds suspects."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.stats.latency import round_medians
from harness.stats.pairs import Spread, detectable_slowdown

MISS = 0.05  # of slowdowns that pairs could see, the share that the look may let pass
MEDIAN_ERROR = 1.2533  # standard error of a median over that of a mean, for a normal distribution: sqrt(pi / 2)
# Where nothing is calibrated: the largest spread that was seen between processes of one night on idle machines.
UNCALIBRATED = Spread(sd=0.02, n=31)
UNCALIBRATED_PAIRS = Spread(sd=0.017, n=31)


@dataclass(frozen=True, slots=True, kw_only=True)
class LookSpread:
    """How far the time of one process lies from another's, nights apart [standard deviations of logarithms]."""

    times: Spread = UNCALIBRATED
    relative: Spread = UNCALIBRATED  # of the time over that of the FP32 arm in the same process
    pairs: Spread = UNCALIBRATED_PAIRS  # of what would be measured next


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A look at one process against a stored one. Ratios are tonight's time / the stored: above 1 is slower."""

    is_suspicious: bool  # then pairs are to be measured
    is_relative: bool  # to the FP32 arm of either night, so that a slower machine cancels
    ratio: float
    low: float  # interval of 90 %, with the spread between processes in it
    high: float
    p_value: float  # of "at most `margin` slower", one-sided
    detectable: float  # smallest slowdown [fraction] that is missed by at most 5 % of looks
    ratio_of_times: float  # of the times themselves, whatever the ratio above is of


def look_once(
    ours_ns: NDArray[np.generic],
    theirs_ns: NDArray[np.generic],
    *,
    margin: float,
    alpha: float,
    ours_reference_ns: NDArray[np.generic] | None = None,
    theirs_reference_ns: NDArray[np.generic] | None = None,
    spread: LookSpread | None = None,
) -> Looked:
    """Look whether tonight's times may be more than `margin` slower than stored ones.

    All times: float64[rounds, samples] or float64[rounds] [ns]; the references are those of the FP32 arm, timed in turn
    in the same process. Suspicious is what the interval does not keep below the smallest slowdown that pairs of
    processes could show: true slowdowns of that size pass unseen in at most 5 % of looks, and on a machine too noisy to
    tell, every case is suspicious. Relative to the FP32 arm where both nights have one; a slowdown common to both arms
    is then suspicious where the times themselves are surely beyond the margin.
    Raises: MeasurementError for times that are not positive numbers, a negative margin or an alpha outside (0, 1).
    """
    spread = spread or LookSpread()
    detectable = detectable_slowdown(spread.pairs, margin=margin, alpha=alpha)
    limit, seen = math.log1p(margin), math.log1p(detectable)
    times = _difference(_logs(ours_ns), _logs(theirs_ns), spread.times)
    is_relative = not (ours_reference_ns is None or theirs_reference_ns is None)
    judged = times
    if is_relative:
        shares = _logs(ours_ns, ours_reference_ns), _logs(theirs_ns, theirs_reference_ns)
        judged = _difference(*shares, spread.relative)
    low, high = judged.interval(MISS)
    is_common = is_relative and times.interval(MISS)[0] > limit
    return Looked(
        is_suspicious=high > seen or is_common,
        is_relative=is_relative,
        ratio=math.exp(judged.value),
        low=math.exp(low),
        high=math.exp(high),
        p_value=judged.upper_p(limit),
        detectable=detectable,
        ratio_of_times=math.exp(times.value),
    )


@dataclass(frozen=True, slots=True)
class _Difference:
    value: float
    error: float
    df: int

    def interval(self, tail: float) -> tuple[float, float]:
        from scipy import special

        half = float(-special.stdtrit(self.df, tail)) * self.error
        return self.value - half, self.value + half

    def upper_p(self, limit: float) -> float:
        from scipy import special

        return float(special.stdtr(self.df, -(self.value - limit) / self.error))


def _logs(rounds_ns: NDArray[np.generic], reference_ns: NDArray[np.generic] | None = None) -> NDArray[np.float64]:
    logs = np.log(round_medians(rounds_ns))
    if reference_ns is None:
        return logs
    reference = np.log(round_medians(reference_ns))
    if reference.size != logs.size:
        raise MeasurementError(f"{logs.size} rounds cannot be paired with {reference.size} of the reference")
    return np.asarray(logs - reference, np.float64)


def _difference(ours: NDArray[np.float64], theirs: NDArray[np.float64], spread: Spread) -> _Difference:
    """Return the difference of two medians, whose error has the scatter of rounds and that between processes."""
    variance = 2 * max(spread.sd, 1e-5) ** 2
    for logs in (ours, theirs):
        if logs.size > 1:
            variance += MEDIAN_ERROR**2 * _robust_variance(logs) / logs.size
    return _Difference(float(np.median(ours) - np.median(theirs)), math.sqrt(variance), max(1, spread.n - 1))


def _robust_variance(logs: NDArray[np.float64]) -> float:
    """Return a variance from the interquartile range: one round of another process's work is no scatter of medians."""
    ranked, depth = np.sort(logs), (logs.size - 1) / 4  # np.quantile, of a few values and in a tenth of its time
    below, share = int(depth), depth % 1
    above = min(below + 1, logs.size - 1)
    low = ranked[below] + share * (ranked[above] - ranked[below])
    high = ranked[-1 - below] - share * (ranked[-1 - below] - ranked[-1 - above])
    return float((high - low) / 1.349) ** 2
