"""Two engines on the same samples, each with a number of any size: paired tests of the mean, and of whole-set metrics.

A loss is how much worse this engine does; a gain is negative. Where every difference is -1, 0 or 1, samples are lost or
gained like images, and the exact test and Tango's interval of `paired` are used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.stats.paired import (
    loss_beyond_margin_p,
    loss_interval,
    loss_within_margin_p,
    mcnemar_p,
    smallest_flagged_loss,
)
from harness.stats.rates import CONFIDENCE, check_level, wilson_interval

EXACT_SAMPLES = 16  # changed samples whose 2^16 signs are all tried
EQUAL = 1e-9  # of the largest: differences that rounding alone tells apart

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanChange:
    """How much worse one engine does than another on the same samples, in the metric's own unit."""

    n: int
    loss: float  # observed; a gain is negative
    low: float  # interval of the loss, of confidence 1 - 2 alpha
    high: float
    p_any: float  # two-sided, of any difference
    p_beyond: float  # one-sided, of a loss beyond the margin that is a loss at all
    p_within: float  # one-sided, of a loss within the margin
    detectable: float | None  # smallest loss that would have been called, with the scatter observed
    test: str  # what p_beyond is of, in words

    @property
    def is_real(self) -> bool:
        """Tell whether chance was tested at all: not where nothing differs."""
        return self.p_any < 1


def sign_flip_p(differences: Floats) -> float:
    """Return the two-sided p-value of the paired sign-flip test: could the signs have fallen like this by chance?

    `differences`: float64[N]. Exact for up to EXACT_SAMPLES that are not 0 and for differences of one size; others by
    the saddlepoint approximation of the same permutation distribution, accurate in its tails.
    Raises: MeasurementError for numbers that are not finite.
    Source: R. A. Fisher, The Design of Experiments (1935), section 21; J. Robinson, J. R. Statist. Soc. B 44 (1982) 91.
    """
    if not np.isfinite(differences).all():
        raise MeasurementError("differences that are not finite cannot be tested")
    sizes = np.abs(differences)
    largest = float(sizes.max(initial=0.0))
    if largest == 0:
        return 1.0
    sizes = sizes[sizes > EQUAL * largest] / largest
    total = abs(float(differences.sum())) / largest
    if np.all(np.abs(sizes - 1) <= EQUAL):
        n_up = round((sizes.size + total) / 2)
        return mcnemar_p(n_up, sizes.size - n_up)
    if sizes.size <= EXACT_SAMPLES:
        sums = np.zeros(1)
        for size in sizes:
            sums = np.concatenate((sums + size, sums - size))
        return float((np.abs(sums) >= total - EQUAL * sizes.sum()).mean())
    return _saddlepoint_p(sizes, total)


def _saddlepoint_p(sizes: Floats, total: float) -> float:
    """Return the two-sided tail of a sum of +-sizes (Lugannani and Rice), at least that of one sign pattern."""
    from scipy import optimize, special

    least = 2.0 ** (1 - sizes.size)
    if total >= sizes.sum() * (1 - EQUAL):
        return least
    if total <= EQUAL * sizes.sum():
        return 1.0

    def slope(t: float) -> float:
        return float(np.dot(sizes, np.tanh(t * sizes)))

    reach = 1.0
    while slope(reach) < total and reach < 1e9:
        reach *= 2
    t = float(optimize.brentq(lambda at: slope(at) - total, 0.0, reach, xtol=1e-14))
    x = t * sizes
    cumulant = float((np.logaddexp(x, -x) - math.log(2)).sum())
    spread = float(np.dot(sizes**2, 1 - np.tanh(x) ** 2))
    w = math.sqrt(max(2 * (t * total - cumulant), 0.0))
    u = t * math.sqrt(spread)
    if w < 1e-4 or u < 1e-4:  # at the centre, where the formula divides nothing by nothing
        return float(min(1.0, 2 * special.ndtr(-total / math.sqrt(float(np.dot(sizes, sizes))))))
    density = math.exp(-w * w / 2) / math.sqrt(2 * math.pi)
    tail = float(special.ndtr(-w)) + density * (1 / u - 1 / w)
    return min(1.0, max(least, 2 * tail))


def mean_interval(values: Floats, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval of a mean: Wilson's score interval of hits (0 or 1), Student's t of other numbers.

    `values`: float64[N]. Raises: MeasurementError without values or for a confidence outside (0, 1).
    """
    from scipy import special

    check_level(confidence, "confidence")
    if values.size == 0:
        raise MeasurementError("the mean of no samples has no interval")
    if np.isin(values, (0.0, 1.0)).all():
        return wilson_interval(int(values.sum()), values.size, confidence)
    if values.size == 1:
        return -math.inf, math.inf
    reach = float(special.stdtrit(values.size - 1, (1 + confidence) / 2)) * float(values.std(ddof=1))
    reach /= math.sqrt(values.size)
    mean = float(values.mean())
    return mean - reach, mean + reach


def percentile_interval(resamples: Floats, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the percentile interval of a metric from its values on bootstrap resamples, float64[R].

    Raises: MeasurementError for a confidence outside (0, 1).
    Source: B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    check_level(confidence, "confidence")
    low, high = np.quantile(resamples, ((1 - confidence) / 2, (1 + confidence) / 2))
    return float(low), float(high)


def change_of_means(losses: Floats, *, margin: float, alpha: float, is_fraction: bool = True) -> MeanChange:
    """Judge the mean loss of samples, float64[N], against an accepted one.

    A loss beyond the margin takes two tests, and the larger p-value is stated: the sign-flip test says that there is
    a loss, a one-sided t test that it is beyond the margin. `is_fraction`: no sample can lose more than 1, so that a
    loss of the margin may hide in samples that were not drawn: none is called small that (1 - margin)^n leaves open.
    Raises: MeasurementError without samples or for numbers that are not finite.
    """
    n = losses.size
    if n == 0:
        raise MeasurementError("no sample was compared")
    p_any = sign_flip_p(losses)
    if is_fraction and np.isin(losses, (-1.0, 0.0, 1.0)).all():
        return _change_of_hits(losses, margin=margin, alpha=alpha, p_any=p_any)
    error = float(losses.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    moved = _Moved(n=n, loss=float(losses.mean()), error=error)
    hidden = (1 - margin) ** n if is_fraction else 0.0
    fewest = smallest_flagged_loss(0, alpha)  # changed samples without which no sign-flip test calls anything
    least = fewest / n if is_fraction and np.count_nonzero(losses) < fewest else 0.0
    detectable = max(margin + moved.reach(alpha), least)
    return MeanChange(
        n=n,
        loss=moved.loss,
        low=moved.loss - moved.reach(alpha),
        high=moved.loss + moved.reach(alpha),
        p_any=p_any,
        p_beyond=max(p_any, moved.p_above(margin)),
        p_within=max(1 - moved.p_above(margin), hidden),
        detectable=detectable if math.isfinite(detectable) and (not is_fraction or detectable <= 1) else None,
        test="paired sign-flip test of a loss, and t test of one beyond the accepted",
    )


def change_of_resamples(
    loss: float, losses: Floats, *, n: int, margin: float, alpha: float, is_fraction: bool = True
) -> MeanChange:
    """Judge the loss of a metric of n samples by its losses on paired bootstrap resamples, float64[R].

    Standard errors come from the resamples and tails from Student's t with n - 1 degrees: percentiles of R resamples
    say nothing of rates below 1 / R, at which verdicts are given. No p-value is below that of n equal signs.
    Raises: MeasurementError for fewer than two resamples or numbers that are not finite.
    Source: B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap (1993), sections 6.2 and 12.2.
    """
    if losses.size < 2 or not (np.isfinite(losses).all() and math.isfinite(loss)):
        raise MeasurementError("losses on resamples are missing or not finite")
    error = float(losses.std(ddof=1)) * math.sqrt(n / (n - 1)) if n > 1 else math.inf
    moved, floor = _Moved(n=n, loss=loss, error=error), min(1.0, 2.0 ** (1 - n))
    p_any = 1.0 if loss == 0 else min(1.0, max(2 * min(moved.p_above(0.0), 1 - moved.p_above(0.0)), floor))
    detectable = margin + moved.reach(alpha)
    hidden = (1 - margin) ** n if is_fraction else 0.0
    return MeanChange(
        n=n,
        loss=loss,
        low=loss - moved.reach(alpha),
        high=loss + moved.reach(alpha),
        p_any=p_any,
        p_beyond=max(p_any, moved.p_above(margin)) if loss > 0 else max(moved.p_above(margin), 0.5),
        p_within=max(1 - moved.p_above(margin), hidden),
        detectable=detectable if math.isfinite(detectable) and (not is_fraction or detectable <= 1) else None,
        test=f"paired bootstrap ({losses.size} resamples) of a loss beyond the accepted",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moved:
    """A loss and its standard error, with Student's t."""

    n: int
    loss: float
    error: float

    def reach(self, alpha: float) -> float:
        """Return half the width of the interval of confidence 1 - 2 alpha."""
        from scipy import special

        check_level(alpha, "alpha")
        if not math.isfinite(self.error):
            return math.inf
        return float(special.stdtrit(self.n - 1, 1 - alpha)) * self.error

    def p_above(self, bound: float) -> float:
        """Return the one-sided p-value of a true loss above a bound."""
        from scipy import special

        gap = self.loss - bound
        if not math.isfinite(self.error):
            return 0.5
        if self.error == 0:
            return 0.5 if gap == 0 else float(gap < 0)
        return float(special.stdtr(self.n - 1, -gap / self.error))


def _change_of_hits(losses: Floats, *, margin: float, alpha: float, p_any: float) -> MeanChange:
    n, n_lost, n_gained = losses.size, int((losses > 0).sum()), int((losses < 0).sum())
    low, high = loss_interval(n_lost, n_gained, n, 1 - 2 * alpha)
    least = smallest_flagged_loss(n_gained, alpha)
    while (
        least + 2 * n_gained <= n and margin > 0 and loss_beyond_margin_p(least + n_gained, n_gained, n, margin) > alpha
    ):
        least += 1
    return MeanChange(
        n=n,
        loss=(n_lost - n_gained) / n,
        low=low,
        high=high,
        p_any=p_any,
        p_beyond=max(p_any, loss_beyond_margin_p(n_lost, n_gained, n, margin)),
        p_within=loss_within_margin_p(n_lost, n_gained, n, margin),
        detectable=least / n if least + 2 * n_gained <= n else None,
        test="McNemar's exact test of a loss, and Tango's score test of one beyond the accepted",
    )
