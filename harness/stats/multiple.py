"""Many cases in one run: keep the chance of any false alarm at alpha."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.stats.rates import check_level


def holm_p(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Return Holm's adjusted p-values, in the order given; empty for none.

    Raises: MeasurementError for a value outside [0, 1] (NaN included).
    Source: S. Holm, Scand. J. Statist. 6 (1979) 65.
    """
    p = np.asarray(p_values, np.float64)
    if p.size and not ((p >= 0) & (p <= 1)).all():
        raise MeasurementError(f"p-values {p[~((p >= 0) & (p <= 1))]} are not in 0..1")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def cases_that_could_alarm(smallest_p: Sequence[float], alpha: float) -> NDArray[np.bool_]:
    """Tell which cases could have become significant at all, and so must share alpha.

    `smallest_p`: the smallest p-value that a case's changed images allow. A case whose predictions all equal the
    baseline's cannot raise an alarm and costs the others no power. The choice rests on how many images changed, not on
    the direction, so Holm's procedure on the cases chosen keeps its error rate.
    Raises: MeasurementError for an alpha outside (0, 1).
    Source: R. E. Tarone, Biometrics 46 (1990) 515.
    """
    check_level(alpha, "alpha")
    smallest = np.asarray(smallest_p, np.float64)
    for n_sharing in range(1, smallest.size + 1):
        testable = smallest <= alpha / n_sharing
        if testable.sum() <= n_sharing:
            return testable
    return np.ones(smallest.size, np.bool_)
