"""Is an engine slower than its control? A sequential test on pairs of fresh processes, each pair one number.

The process is the unit of replication: rounds of one process share its addresses, its clocks and its luck. Benchmarks
that pool the samples of one process find differences between runs of identical code (T. Kalibera, R. Jones, Rigorous
Benchmarking in Reasonable Time, ISMM 2013).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.stats.latency import round_medians
from harness.stats.quantiles import finite_samples
from harness.stats.rates import check_level

LOOKS = (4, 6, 8, 12, 16)  # pairs after which the test looks; even, so that either arm was first equally often
POWER = 0.95
PAIRS_PER_TRIM = 8  # one pair of every 8 is trimmed off either end: a wild process must not hide what the others show
MAX_PRIOR_DF = 8  # a calibration counts no more than 9 pairs of tonight, however large it was
MIN_SD = 1e-4  # no two processes are known to repeat better; fewer digits than that are the clock's


class PairsOutcome(str, Enum):
    """What pairs of processes say of an engine against its control."""

    SLOWER = "slower"  # by more than the margin
    NOT_SLOWER = "not_slower"  # than the margin allows
    FASTER = "faster"  # than the control
    OPEN = "open"  # more pairs are wanted
    UNDECIDED = "undecided"  # after the last look


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A standard deviation of logarithms of times, or of their ratios, and how many values it comes from."""

    sd: float
    n: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sd) and self.sd >= 0):
            raise MeasurementError(f"spread {self.sd} is not a standard deviation; expected 0 or more")
        if self.n < 2:
            raise MeasurementError(f"a spread needs 2 or more values, not {self.n}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsJudged:
    """The test after some pairs. Ratios are the engine's time / its control's: above 1 is slower."""

    outcome: PairsOutcome
    ratio: float | None  # None without a pair
    low: float | None  # ends of the interval that decides; None before the first look
    high: float | None
    p_value: float  # of "at most `margin` slower", one-sided, corrected for the looks
    n_pairs: int  # that were used
    next_look: int | None  # how many pairs the next look needs; None when it is decided or was the last
    detectable: float | None  # smallest slowdown [fraction] called slower with 95 % power by the last look

    @property
    def is_final(self) -> bool:
        """Tell whether no more pairs are wanted."""
        return self.outcome is not PairsOutcome.OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """Location and scale of the first `n` pairs of some comparisons, trimmed alike: float64[comparisons]."""

    n: int
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    df: int


def log_ratio(candidate_rounds_ns: NDArray[np.generic], control_rounds_ns: NDArray[np.generic]) -> float:
    """Return log(candidate's time / control's time) of one pair: the median over interleaved rounds.

    Both: float64[rounds, samples] or float64[rounds] [ns]. Above 0 the candidate is slower.
    Raises: MeasurementError for different numbers of rounds, or times that are not positive numbers.
    """
    ours, theirs = round_medians(candidate_rounds_ns), round_medians(control_rounds_ns)
    if ours.size != theirs.size:
        raise MeasurementError(f"{ours.size} rounds cannot be paired with {theirs.size} of the control")
    return float(np.median(np.log(ours / theirs)))


def judge_pairs(
    log_ratios: NDArray[np.float64], *, margin: float, alpha: float, spread: Spread | None = None
) -> PairsJudged:
    """Test whether an engine is more than `margin` slower than its control, looking after 4, 6, 8, 12 and 16 pairs.

    log_ratios: float64[n], one number a pair of fresh processes (`log_ratio`), in the order in which they were
    measured; those after the deciding look are not read. `alpha`: the rate of false "slower", all looks together, for
    an engine that is exactly `margin` slower; far fewer for one that is as fast as its control. The same error bounds
    a false "not_slower". `spread`: of such log ratios, from this device's calibration.

    Student's t on the mean of trimmed pairs. "slower" rests on tonight's pairs alone; the calibrated spread moderates
    the variance only where it releases an engine, so a machine that is noisier tonight makes no alarms.
    The looks spend alpha by the square of their share of all pairs, and add up by Bonferroni's inequality: the rate
    holds whatever the looks have in common. With heavier tails than the normal distribution's it is lower still.
    Raises: MeasurementError for ratios that are not numbers, a negative margin or an alpha outside (0, 1).
    Sources: J. W. Tukey, D. H. McLaughlin, Sankhya A 25 (1963) 331 and K. K. Yuen, Biometrika 61 (1974) 165 (trimmed
    t); K. Kim, D. L. DeMets, Biometrika 74 (1987) 149 (spending); Y. Benjamini, JASA 78 (1983) 645 (heavy tails);
    G. K. Smyth, Stat. Appl. Genet. Mol. Biol. 3 (2004) 3 (moderated variance).
    """
    check_level(alpha, "alpha")
    limit, values = _log_margin(margin), finite_samples(log_ratios)
    p_value, low, high = 1.0, None, None
    n_used = min(int(values.size), LOOKS[-1])
    outcome, next_look = PairsOutcome.OPEN, next((n for n in LOOKS if n > n_used), None)
    for n in (n for n in LOOKS if n <= n_used):
        look = _look(values[None, :n])
        p_value = min(p_value, float(_upper_p(look, limit)[0]) / spent(n))
        lows, highs = _ends(look, alpha * spent(n), spread)
        low, high = float(lows[0]), float(highs[0])
        outcome = _outcome(low, high, limit, is_last=n == LOOKS[-1])
        if outcome is not PairsOutcome.OPEN:
            n_used, next_look = n, None
            break
    used = values[:n_used]
    return PairsJudged(
        outcome=outcome,
        ratio=math.exp(float(_look(used[None]).mean[0])) if used.size else None,
        low=None if low is None else math.exp(low),
        high=None if high is None else math.exp(high),
        p_value=p_value,
        n_pairs=n_used,
        next_look=next_look,
        detectable=_detectable(used, spread, margin=margin, alpha=alpha),
    )


def judge_comparisons(
    log_ratios: NDArray[np.float64], *, margin: float, alpha: float, spread: Spread | None = None
) -> tuple[list[PairsOutcome], NDArray[np.int64]]:
    """Return the outcomes of many comparisons by the rule of `judge_pairs`, and how many pairs each of them used.

    log_ratios: float64[comparisons, 16]. For measuring the rule itself.
    Raises: MeasurementError as `judge_pairs`, and for another number of pairs.
    """
    check_level(alpha, "alpha")
    if log_ratios.ndim != 2 or log_ratios.shape[1] != LOOKS[-1]:
        raise MeasurementError(f"comparisons of shape {log_ratios.shape}; expected [comparisons, {LOOKS[-1]}]")
    limit = _log_margin(margin)
    finite_samples(log_ratios)
    outcomes = [PairsOutcome.OPEN] * len(log_ratios)
    n_pairs = np.full(len(log_ratios), LOOKS[-1], np.int64)
    for n in LOOKS:
        lows, highs = _ends(_look(log_ratios[:, :n]), alpha * spent(n), spread)
        for index, (low, high) in enumerate(zip(lows.tolist(), highs.tolist(), strict=True)):
            if outcomes[index] is PairsOutcome.OPEN:
                outcomes[index], n_pairs[index] = _outcome(low, high, limit, is_last=n == LOOKS[-1]), n
    return outcomes, n_pairs


def detectable_slowdown(spread: Spread, *, margin: float, alpha: float) -> float:
    """Return the smallest slowdown [fraction] that 16 pairs of this spread call slower with 95 % power.

    By the power of the last look alone (noncentral t); the earlier ones add a little.
    Raises: MeasurementError for a negative margin or an alpha outside (0, 1).
    """
    check_level(alpha, "alpha")
    return math.expm1(_log_margin(margin) + _reach(alpha) * max(spread.sd, MIN_SD) / math.sqrt(LOOKS[-1]))


def smallest_margin(spread: Spread, *, alpha: float) -> float:
    """Return the smallest accepted slowdown [fraction] that a device of this spread supports.

    Under it 16 pairs of an unchanged engine are released with 95 % power, so that a smaller one would end undecided.
    """
    return detectable_slowdown(spread, margin=0.0, alpha=alpha)


def pairs_spread(log_ratios: NDArray[np.float64]) -> Spread:
    """Return the spread of log ratios of pairs, trimmed as the test trims them.

    Raises: MeasurementError for fewer than 2 of them, or one that is not a number.
    """
    values = finite_samples(log_ratios)
    if values.size < 2:
        raise MeasurementError(f"a spread needs 2 or more pairs, not {values.size}")
    return Spread(sd=float(_look(values[None]).sd[0]), n=int(values.size))


def spent(n: int) -> float:
    """Return the share of alpha that the look after `n` pairs may spend; all looks together spend it once."""
    before = max((look for look in LOOKS if look < n), default=0)
    return float(n**2 - before**2) / LOOKS[-1] ** 2


def _outcome(low: float, high: float, limit: float, *, is_last: bool) -> PairsOutcome:
    if low > limit:
        return PairsOutcome.SLOWER
    if high < 0:
        return PairsOutcome.FASTER
    if high < limit:
        return PairsOutcome.NOT_SLOWER
    return PairsOutcome.UNDECIDED if is_last else PairsOutcome.OPEN


def _n_kept(n: int) -> int:
    return n - 2 * (n // PAIRS_PER_TRIM)


def _look(values: NDArray[np.float64]) -> _Look:
    """Return the trimmed mean, and the standard deviation that its error follows (winsorized, Yuen 1974).

    values: float64[comparisons, pairs].
    """
    n = int(values.shape[-1])
    ordered, trimmed, kept = np.sort(values, axis=-1), n // PAIRS_PER_TRIM, _n_kept(n)
    winsorized = np.clip(ordered, ordered[:, [trimmed]], ordered[:, [n - trimmed - 1]])
    sd = winsorized.std(axis=-1, ddof=1) * n / kept if n > 1 else np.zeros(len(values))
    mean = ordered[:, trimmed : n - trimmed].mean(axis=-1)
    return _Look(n=n, mean=mean, sd=np.maximum(sd, MIN_SD), df=kept - 1)


def _moderated(look: _Look, spread: Spread | None) -> _Look:
    """Return a look whose variance is drawn towards the calibrated one."""
    if spread is None:
        return look
    prior = min(spread.n - 1, MAX_PRIOR_DF)
    variance = (prior * spread.sd**2 + look.df * look.sd**2) / (prior + look.df)
    return _Look(n=look.n, mean=look.mean, sd=np.maximum(np.sqrt(variance), MIN_SD), df=prior + look.df)


def _ends(look: _Look, level: float, spread: Spread | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the interval: the lower of tonight's pairs alone, the upper with the calibrated spread."""
    return look.mean - _half_width(look, level), look.mean + _half_width(_moderated(look, spread), level)


def _half_width(look: _Look, level: float) -> NDArray[np.float64]:
    return np.asarray(_t_quantile(level, look.df) * look.sd / math.sqrt(look.n), np.float64)


def _upper_p(look: _Look, limit: float) -> NDArray[np.float64]:
    from scipy import special

    return np.asarray(special.stdtr(look.df, -(look.mean - limit) / (look.sd / math.sqrt(look.n))), np.float64)


def _detectable(used: NDArray[np.float64], spread: Spread | None, *, margin: float, alpha: float) -> float | None:
    if used.size >= LOOKS[0]:
        look = _moderated(_look(used[None]), spread)
        return detectable_slowdown(Spread(sd=float(look.sd[0]), n=look.n), margin=margin, alpha=alpha)
    return None if spread is None else detectable_slowdown(spread, margin=margin, alpha=alpha)


def _log_margin(margin: float) -> float:
    if not (math.isfinite(margin) and margin >= 0):
        raise MeasurementError(f"margin {margin} is not an accepted slowdown; expected a fraction of 0 or more")
    return math.log1p(margin)


@lru_cache(maxsize=1024)
def _reach(alpha: float) -> float:
    """Return how many standard errors beyond the margin the last look sees with the stated power."""
    from scipy import special

    n = LOOKS[-1]
    df = _n_kept(n) - 1
    return float(special.nctdtrinc(df, 1 - POWER, _t_quantile(alpha * spent(n), df)))


@lru_cache(maxsize=1024)
def _t_quantile(level: float, df: float) -> float:
    """Return the t that is exceeded with probability `level`."""
    from scipy import special

    return float(-special.stdtrit(df, level))
