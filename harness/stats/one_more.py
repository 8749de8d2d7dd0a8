"""Is one more value larger than what came before? A prediction interval for a single future observation.

Of a cost that is paid once a night there is one value tonight and one of each night before. Logarithms of such times
are taken as normal, with the mean and the scatter of those before. Source: G. J. Hahn, W. Q. Meeker, Statistical
Intervals (Wiley 1991), section 4.7 (one future observation, one-sided).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import MeasurementError
from harness.stats.rates import check_level

MIN_VALUES = 5  # at alpha = 0.001 fewer see nothing: with a scatter of 10 % they begin at 2.2 times as long, 3 at 13
MIN_SD = 1e-3  # of logarithms: so few values may agree by luck, and no time of a whole build repeats better


@dataclass(frozen=True, slots=True, kw_only=True)
class OneMore:
    """One value beside those before it; ratios are to their geometric mean."""

    ratio: float
    low: float  # of the ratio, one-sided at alpha each way
    high: float
    p_value: float  # of a value at least so large, were the true growth the margin
    detectable: float  # smallest growth that would have been called larger [fraction]


def compare_one_more(value: float, before: Sequence[float], *, margin: float, alpha: float) -> OneMore:
    """Compare one value with at least MIN_VALUES before it; `margin`: accepted growth [fraction].

    Raises: MeasurementError for too few values, for one that is not a positive number, a negative margin, or an alpha
    that is no level.
    """
    from scipy import stats

    check_level(alpha, "alpha")
    if len(before) < MIN_VALUES:
        raise MeasurementError(f"{len(before)} values have no spread to compare with; expected at least {MIN_VALUES}")
    if not all(math.isfinite(one) and one > 0 for one in (value, *before)):
        raise MeasurementError(f"{value:g} beside {', '.join(f'{one:g}' for one in before)}: expected positive numbers")
    if not margin >= 0:
        raise MeasurementError(f"an accepted growth of {margin} is not a fraction of at least 0")
    logs = np.log(np.asarray(before, np.float64))
    n, change = len(logs), math.log(value) - float(logs.mean())
    error = max(float(logs.std(ddof=1)), MIN_SD) * math.sqrt(1 + 1 / n)
    beyond = change - math.log1p(margin)
    reach = float(stats.t.isf(alpha, n - 1)) * error
    return OneMore(
        ratio=math.exp(change),
        low=_exp(change - reach),
        high=_exp(change + reach),
        p_value=float(stats.t.sf(beyond / error, n - 1)),
        detectable=_exp(math.log1p(margin) + reach) - 1,
    )


def _exp(value: float) -> float:
    """Return e to a power, infinite where that is beyond a float."""
    return math.exp(value) if value < math.log(np.finfo(np.float64).max) else math.inf
