"""Two engines on the same images: exact test, interval of the loss, and what a comparison could have seen.

Everything rests on two counts: `n_lost`, images that the reference gets right and this engine wrong, and `n_gained`,
the other way round. Images on which both are right or both wrong say nothing about a difference. The loss is
(n_lost - n_gained) / n [fraction].
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.stats.rates import CONFIDENCE, N_CACHED, check_counts, check_level

POWER = 0.8  # of a stated detectable loss; the customary value (J. Cohen, 1988)
TAIL = 1e-12  # probability left out at each end of a binomial sum


@lru_cache(maxsize=N_CACHED)
def mcnemar_p(n_lost: int, n_gained: int, *, two_sided: bool = True, mid_p: bool = False) -> float:
    """Return the exact p-value of McNemar's test: could a fair coin have lost this many?

    One-sided tests for a loss. `mid_p` counts the observed outcome half: its mean false-alarm rate is close to alpha
    but may exceed it, so no verdict uses it.
    Raises: MeasurementError for negative counts.
    Source: Q. McNemar, Psychometrika 12 (1947) 153; M. W. Fagerland et al., BMC Med Res Methodol 13 (2013) 91.
    """
    from scipy import stats

    if n_lost < 0 or n_gained < 0:
        raise MeasurementError(f"{n_lost} images lost and {n_gained} gained are not counts")
    n = n_lost + n_gained
    if n == 0:
        return 1.0
    here = float(stats.binom.pmf(n_lost, n, 0.5)) if mid_p else 0.0
    if not two_sided:
        return min(1.0, float(stats.binom.sf(n_lost - 1, n, 0.5)) - here / 2)
    if n_lost == n_gained:
        return 1.0 - here if mid_p else 1.0
    return min(1.0, 2 * float(stats.binom.sf(max(n_lost, n_gained) - 1, n, 0.5)) - here)


def smallest_p(n_lost: int, n_gained: int) -> float:
    """Return the smallest two-sided p-value that as many changed images could have given."""
    return min(1.0, 2.0 ** (1 - n_lost - n_gained))


def score_statistic(n_lost: int, n_gained: int, n: int, loss: float) -> float:
    """Return Tango's score statistic of the hypothesis that the true loss is `loss` [standard deviations].

    Positive when the observed loss is larger. Raises: MeasurementError for counts that do not fit into n.
    Source: T. Tango, Statistics in Medicine 17 (1998) 891, eq. 11 and 12 (maximum likelihood of the gain rate under
    the hypothesis in closed form).
    """
    check_counts(n, n_lost, n_gained)
    # Swapping the arms keeps |loss| under a non-negative hypothesis, where no term below cancels.
    if loss < 0:
        return -score_statistic(n_gained, n_lost, n, -loss)
    a, b = 2 * n, (2 * n - n_lost + n_gained) * loss - n_lost - n_gained
    c = -n_gained * loss * (1 - loss)
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    gain_rate = (root - b) / (2 * a) if b <= 0 else -2 * c / (root + b)
    variance = n * max(2 * gain_rate + loss * (1 - loss), 0.0)
    gap = n_lost - n_gained - n * loss
    if variance == 0:
        return 0.0 if gap == 0 else math.copysign(math.inf, gap)
    return gap / math.sqrt(variance)


@lru_cache(maxsize=N_CACHED)
def loss_interval(n_lost: int, n_gained: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Tango's score interval of the true loss [fraction, fraction]; a gain is negative.

    Chosen over Newcombe's method 10 because it inverts the very test that `loss_beyond_margin_p` computes, so interval
    and p-value never disagree, and because it stays sensible when nothing changed: 0 +- z^2 / (n + z^2).
    Raises: MeasurementError for counts that do not fit into n or a confidence outside (0, 1).
    Source: T. Tango, Statistics in Medicine 17 (1998) 891.
    """
    from scipy import stats

    check_counts(n, n_lost, n_gained)
    check_level(confidence, "confidence")
    z = float(stats.norm.isf((1 - confidence) / 2))
    observed = (n_lost - n_gained) / n
    return (
        _limit((n_lost, n_gained, n), z=z, low=-1.0, high=observed),
        _limit((n_lost, n_gained, n), z=-z, low=observed, high=1.0),
    )


def _limit(counts: tuple[int, int, int], *, z: float, low: float, high: float) -> float:
    """Return the loss between two bounds at which the score statistic is z; it falls as the loss grows."""
    from scipy import optimize

    edge = low if z > 0 else high
    if low == high or (score_statistic(*counts, edge) - z) * z < 0:
        return edge
    return float(optimize.brentq(lambda loss: score_statistic(*counts, loss) - z, low, high, xtol=1e-12, rtol=1e-12))


@lru_cache(maxsize=N_CACHED)
def loss_beyond_margin_p(n_lost: int, n_gained: int, n: int, margin: float) -> float:
    """Return the one-sided p-value of "the true loss is larger than the margin".

    Raises: MeasurementError for counts that do not fit into n or a margin outside (-1, 1).
    Source: T. Tango, Statistics in Medicine 17 (1998) 891.
    """
    from scipy import special

    if not -1 < margin < 1:
        raise MeasurementError(f"margin {margin} is not a loss in fractions of images")
    return float(special.ndtr(-score_statistic(n_lost, n_gained, n, margin)))


def loss_within_margin_p(n_lost: int, n_gained: int, n: int, margin: float) -> float:
    """Return the one-sided p-value of "the true loss is smaller than the margin" (non-inferiority).

    Raises: MeasurementError for counts that do not fit into n or a margin outside (-1, 1).
    Source: T. Tango, Statistics in Medicine 17 (1998) 891.
    """
    return 1.0 - loss_beyond_margin_p(n_lost, n_gained, n, margin)


@lru_cache(maxsize=4096)
def smallest_flagged_loss(n_gained: int, alpha: float) -> int:
    """Return the fewest net lost images that the exact two-sided test flags, with `n_gained` gained [images].

    11 without gains, 22 with 10 and 28 with 20 gains at alpha = 0.001.
    Raises: MeasurementError for an alpha outside (0, 1).
    """
    from scipy import stats

    check_level(alpha, "alpha")
    reach = 64
    while True:
        lost = np.arange(n_gained + 1, n_gained + reach)
        flagged = np.asarray(2 * stats.binom.sf(lost - 1, lost + n_gained, 0.5)) <= alpha
        if flagged.any():
            return int(lost[np.argmax(flagged)]) - n_gained
        reach *= 4


def _critical_lost(n_changed: NDArray[np.int64], alpha: float) -> NDArray[np.int64]:
    """Return the fewest lost of `n_changed` images at which the two-sided test flags a loss."""
    from scipy import stats

    return np.asarray(stats.binom.isf(alpha / 2, n_changed, 0.5), np.int64) + 1


def mcnemar_power(loss: float, *, n: int, alpha: float, gain_rate: float = 0.0) -> float:
    """Return the chance that the exact test flags a true loss [fraction].

    `gain_rate`: rate of gained images; images are lost at `gain_rate + loss`. Exact: sums over the number of changed
    images and, given it, over the lost ones.
    Raises: MeasurementError for an alpha outside (0, 1) or rates that do not sum to at most 1.
    """
    from scipy import stats

    check_level(alpha, "alpha")
    change_rate = 2 * gain_rate + loss
    if n < 1 or gain_rate < 0 or loss < 0 or change_rate > 1:
        raise MeasurementError(f"no power at n={n}, loss={loss}, gain rate={gain_rate}: not rates of images")
    if change_rate == 0:
        return 0.0
    low, high = int(stats.binom.ppf(TAIL, n, change_rate)), int(stats.binom.isf(TAIL, n, change_rate))
    n_changed = np.arange(low, high + 1)
    flagged = stats.binom.sf(_critical_lost(n_changed, alpha) - 1, n_changed, (gain_rate + loss) / change_rate)
    return float(np.dot(stats.binom.pmf(n_changed, n, change_rate), flagged))


@lru_cache(maxsize=N_CACHED)
def detectable_loss(*, n: int, alpha: float, power: float = POWER, gain_rate: float = 0.0) -> float | None:
    """Return the smallest true loss that the exact test flags with the given power [fraction].

    `gain_rate`: the observed rate of gained images, the noise in which a loss must be seen. None when even the loss
    of every image would be missed (too few images).
    Raises: MeasurementError for an alpha or power outside (0, 1).
    """
    from scipy import optimize

    check_level(power, "power")
    most = 1 - 2 * gain_rate
    if most <= 0 or mcnemar_power(most, n=n, alpha=alpha, gain_rate=gain_rate) < power:
        return None
    found = optimize.brentq(
        lambda loss: mcnemar_power(loss, n=n, alpha=alpha, gain_rate=gain_rate) - power, 0.0, most, xtol=1e-4 / n
    )
    return float(found)


@lru_cache(maxsize=N_CACHED)
def images_needed(margin: float, *, alpha: float, change_rate: float = 0.0) -> int:
    """Return how many images show that a loss of 0 is within the margin, at a rate of changed images [images].

    Raises: MeasurementError for a margin that is not positive.
    """
    from scipy import special

    if not margin > 0:
        raise MeasurementError(f"a margin of {margin} can never be shown to hold; it must be above 0")
    z = float(special.ndtri(1 - alpha))
    n = z * z * (1 - margin) / margin  # where nothing changed: the limit of Tango's interval
    for _ in range(60):  # with changes on both sides, grow until the interval fits
        changed = math.ceil(n * change_rate / 2)
        if loss_interval(changed, changed, math.ceil(n), 1 - 2 * alpha)[1] < margin:
            return math.ceil(n)
        n *= 1.1
    return math.ceil(n)
