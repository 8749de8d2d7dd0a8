"""The sequential test on pairs of processes: every outcome, its two rates, and what it can see."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from harness.errors import MeasurementError
from harness.stats.pairs import (
    LOOKS,
    MAX_PRIOR_DF,
    PairsOutcome,
    Spread,
    _half_width,
    _look,
    _moderated,
    detectable_slowdown,
    judge_comparisons,
    judge_pairs,
    log_ratio,
    pairs_spread,
    smallest_margin,
    spent,
)

ALPHA, MARGIN = 0.001, 0.005
PATTERN = np.array([1, -1, 0.5, -0.5, 0.8, -0.8, 0.2, -0.2] * 2)  # of mean 0 at every look


def pairs_at(slowdown: float, *, sd: float = 0.001, n: int = 16) -> np.ndarray:
    return np.log1p(slowdown) + sd * PATTERN[:n]


def judged(ratios: np.ndarray, **changes: object):
    return judge_pairs(ratios, **{"margin": MARGIN, "alpha": ALPHA, **changes})


def rates(draw, *, margin: float = MARGIN, alpha: float = 0.02, n: int = 2_000, spread: Spread | None = None) -> dict:
    """Return the share of every outcome over `n` sets of pairs that `draw(rng)` gives."""
    rng = np.random.default_rng(1)
    outcomes, _ = judge_comparisons(np.stack([draw(rng) for _ in range(n)]), margin=margin, alpha=alpha, spread=spread)
    return {outcome: outcomes.count(outcome) / n for outcome in PairsOutcome}


def test_a_clear_slowdown_is_slower_before_the_last_look():
    verdict = judged(pairs_at(0.02))
    assert verdict.outcome is PairsOutcome.SLOWER
    assert verdict.n_pairs < LOOKS[-1]
    assert verdict.next_look is None
    assert verdict.is_final
    assert verdict.p_value <= ALPHA
    assert verdict.low > 1 + MARGIN
    assert verdict.low < verdict.ratio < verdict.high
    assert verdict.ratio == pytest.approx(1.02, abs=0.001)


def test_an_unchanged_engine_is_released_before_the_last_look():
    verdict = judged(pairs_at(0))
    assert verdict.outcome is PairsOutcome.NOT_SLOWER
    assert verdict.n_pairs < LOOKS[-1]
    assert verdict.next_look is None
    assert verdict.high < 1 + MARGIN
    assert verdict.p_value > 0.5


def test_an_interval_below_one_is_faster():
    verdict = judged(pairs_at(-0.03))
    assert verdict.outcome is PairsOutcome.FASTER
    assert verdict.high < 1


def test_an_engine_at_the_margin_stays_open_and_ends_undecided():
    for n, next_look in itertools.pairwise(LOOKS):
        verdict = judged(pairs_at(MARGIN, n=n))
        assert verdict.outcome is PairsOutcome.OPEN
        assert not verdict.is_final
        assert verdict.next_look == next_look
    verdict = judged(pairs_at(MARGIN))
    assert verdict.outcome is PairsOutcome.UNDECIDED
    assert verdict.next_look is None
    assert verdict.is_final


@pytest.mark.parametrize("n", [0, 1, 3])
def test_before_the_first_look_nothing_is_said(n):
    verdict = judged(pairs_at(0.5, n=n))
    assert verdict.outcome is PairsOutcome.OPEN
    assert verdict.next_look == LOOKS[0]
    assert (verdict.low, verdict.high, verdict.p_value, verdict.detectable) == (None, None, 1.0, None)
    assert (verdict.ratio is None) == (n == 0)


def test_between_two_looks_the_earlier_one_counts():
    assert judged(pairs_at(MARGIN, n=7)).low == judged(pairs_at(MARGIN, n=6)).low


def test_pairs_after_the_decision_change_nothing():
    clear = judged(pairs_at(0.02))
    after = np.concatenate([pairs_at(0.02)[: clear.n_pairs], np.full(20, -0.5)])
    assert judged(after).p_value == clear.p_value
    assert judged(after).outcome is PairsOutcome.SLOWER


def test_the_looks_spend_alpha_once():
    assert sum(spent(n) for n in LOOKS) == pytest.approx(1)
    assert all(n % 2 == 0 for n in LOOKS), "either arm is first equally often"


def test_the_p_value_decides_like_the_interval():
    for slowdown in np.linspace(0.004, 0.012, 60):
        verdict = judged(pairs_at(slowdown))
        assert (verdict.p_value <= ALPHA) == (verdict.outcome is PairsOutcome.SLOWER)


def test_false_alarms_keep_to_alpha_for_an_engine_exactly_at_the_margin():
    """The hardest case that is no regression; 2,000 nights at alpha 2 %: more than 58 alarms have a chance of 0.2 %."""
    shares = rates(lambda rng: np.log1p(MARGIN) + rng.normal(0, 0.002, 16))
    assert shares[PairsOutcome.SLOWER] <= 0.029
    assert shares[PairsOutcome.NOT_SLOWER] + shares[PairsOutcome.FASTER] <= 0.029
    assert shares[PairsOutcome.SLOWER] > 0.002, "a rule that never fires keeps any rate"


def test_a_machine_noisier_than_its_calibration_makes_no_more_false_alarms():
    calm = Spread(sd=0.001, n=30)
    shares = rates(lambda rng: np.log1p(MARGIN) + rng.normal(0, 0.004, 16), spread=calm)
    assert shares[PairsOutcome.SLOWER] <= 0.029


def test_heavy_tails_make_no_more_false_alarms():
    shares = rates(lambda rng: np.log1p(MARGIN) + 0.002 * rng.standard_t(3, 16))
    assert shares[PairsOutcome.SLOWER] <= 0.029


def test_unchanged_engines_make_no_alarm():
    """Conv nets (0.1 %), mlp (1.7 %), and one process in 25 that reads 5 % slower, on one side or the other."""

    def wild(rng: np.random.Generator) -> np.ndarray:
        return rng.normal(0, 0.001, 16) + 0.05 * ((rng.random(16) < 0.04) - 1.0 * (rng.random(16) < 0.04))

    for draw in (wild, lambda rng: rng.normal(0, 0.001, 16), lambda rng: rng.normal(0, 0.017, 16)):
        assert rates(draw, alpha=ALPHA, n=700)[PairsOutcome.SLOWER] == 0


def test_one_wild_process_neither_alarms_nor_hides_a_slowdown():
    for wild in (0.05, -0.05):
        unchanged, slower = pairs_at(0), pairs_at(0.01)
        unchanged[1] += wild
        slower[1] += wild
        assert judged(unchanged).outcome is PairsOutcome.NOT_SLOWER
        assert judged(slower).outcome is PairsOutcome.SLOWER


@pytest.mark.parametrize(
    ("margin", "slowdown", "sd", "power"),
    [(0.005, 0.01, 0.0015, 0.95), (0.005, 0.02, 0.003, 0.99), (0.02, 0.05, 0.015, 0.95)],
)
def test_slowdowns_that_must_be_caught_are(margin, slowdown, sd, power):
    def draw(rng: np.random.Generator) -> np.ndarray:
        return np.log1p(slowdown) + rng.normal(0, sd, 16)

    assert rates(draw, margin=margin, alpha=ALPHA, n=500)[PairsOutcome.SLOWER] >= power


def test_the_detectable_slowdown_is_caught_as_often_as_it_says():
    sd, trimming = 0.002, 1.026  # what trimming 2 of 16 costs in the normal distribution
    seen = detectable_slowdown(Spread(sd=trimming * sd, n=100), margin=MARGIN, alpha=ALPHA)
    assert MARGIN < seen < 0.01
    caught = rates(lambda rng: np.log1p(seen) + rng.normal(0, sd, 16), alpha=ALPHA, n=1_000)[PairsOutcome.SLOWER]
    assert 0.94 <= caught <= 0.995
    beyond = MARGIN + 0.8 * (seen - MARGIN)  # four fifths of the way: no longer
    assert rates(lambda rng: np.log1p(beyond) + rng.normal(0, sd, 16), alpha=ALPHA, n=1_000)[PairsOutcome.SLOWER] < 0.93


def test_what_a_verdict_could_have_seen_follows_the_scatter_of_its_pairs():
    calm, loud = judged(pairs_at(0, sd=0.0005)), judged(pairs_at(0, sd=0.004))
    assert MARGIN < calm.detectable < loud.detectable
    assert judged(np.zeros(0), spread=Spread(sd=0.001, n=20)).detectable is not None


def test_a_margin_that_a_device_supports_releases_unchanged_engines():
    sd, trimming = 0.01, 1.026
    margin = smallest_margin(Spread(sd=trimming * sd, n=50), alpha=ALPHA)
    shares = rates(lambda rng: rng.normal(0, sd, 16), margin=margin, alpha=ALPHA, n=800)
    assert shares[PairsOutcome.NOT_SLOWER] + shares[PairsOutcome.FASTER] >= 0.93


def test_a_calibration_releases_unchanged_engines_sooner():
    spread = Spread(sd=0.001, n=30)
    assert judged(pairs_at(0, n=4), spread=spread).outcome is PairsOutcome.NOT_SLOWER
    assert judged(pairs_at(0, n=4)).outcome is PairsOutcome.OPEN


def test_equal_pairs_have_the_resolution_of_clocks_not_none():
    verdict = judged(np.full(4, np.log1p(MARGIN + 0.0002)))
    assert verdict.outcome is PairsOutcome.OPEN
    assert verdict.high > verdict.low


def test_many_comparisons_are_judged_like_each_of_them():
    rng = np.random.default_rng(2)
    ratios = rng.normal(0, 0.001, (40, 16)) + rng.choice([-0.02, 0, 0.005, 0.007, 0.02], (40, 1))
    for spread in (None, Spread(sd=0.001, n=20)):
        outcomes, n_pairs = judge_comparisons(ratios, margin=MARGIN, alpha=ALPHA, spread=spread)
        alone = [judged(row, spread=spread) for row in ratios]
        assert outcomes == [verdict.outcome for verdict in alone]
        assert n_pairs.tolist() == [verdict.n_pairs for verdict in alone]
        assert len(set(outcomes)) == 4


def test_the_spread_of_pairs_forgets_one_wild_pair():
    rng = np.random.default_rng(3)
    ratios = rng.normal(0, 0.001, 24)
    assert pairs_spread(ratios).sd == pytest.approx(0.001, rel=0.4)
    ratios[5] = 0.3
    assert pairs_spread(ratios).sd == pytest.approx(0.001, rel=0.5)
    assert pairs_spread(ratios).n == 24


def test_a_planted_slowdown_and_a_planted_speed_up_land_on_their_sides():
    rng = np.random.default_rng(4)
    control = [1e5 * rng.lognormal(0, 0.002, (6, 20)) for _ in range(16)]
    other = [1e5 * rng.lognormal(0, 0.002, (6, 20)) for _ in range(16)]
    for change, outcome in (
        (1.05, PairsOutcome.SLOWER),
        (1 / 1.05, PairsOutcome.FASTER),
        (1.0, PairsOutcome.NOT_SLOWER),
    ):
        ratios = np.array([log_ratio(change * ours, theirs) for ours, theirs in zip(other, control, strict=True)])
        verdict = judged(ratios)
        assert verdict.outcome is outcome
        assert verdict.ratio == pytest.approx(change, rel=0.005)


def test_a_log_ratio_is_the_median_over_interleaved_rounds():
    control = np.full((5, 3), 100.0)
    candidate = np.full((5, 3), 110.0)
    candidate[0], candidate[1, 2] = 900.0, 500.0  # a round of another process's work, a spike
    assert log_ratio(candidate, control) == pytest.approx(np.log(1.1))
    shared = np.array([1, 1, 1.5, 1.5, 1])[:, None]  # the machine's speed
    assert log_ratio(110 * shared, 100 * shared) == pytest.approx(np.log(1.1))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: judged(np.array([0.0, np.nan])),
        lambda: judged(pairs_at(0), margin=-0.01),
        lambda: judged(pairs_at(0), margin=float("nan")),
        lambda: judged(pairs_at(0), alpha=0.0),
        lambda: Spread(sd=-1.0, n=5),
        lambda: Spread(sd=0.1, n=1),
        lambda: pairs_spread(np.zeros(1)),
        lambda: judge_comparisons(np.zeros((2, 15)), margin=MARGIN, alpha=ALPHA),
        lambda: log_ratio(np.ones(3), np.ones(4)),
        lambda: log_ratio(np.zeros(3), np.ones(3)),
    ],
)
def test_what_is_no_measurement_is_refused(wrong):
    with pytest.raises(MeasurementError):
        wrong()


def test_alarms_with_the_calibrated_variance_would_break_the_rate_on_a_noisier_night():
    """Why the calibration has no say in an alarm: three times its noise, and the rate is above ten times alpha."""
    rng, calm = np.random.default_rng(1), Spread(sd=0.001, n=30)
    limit = np.log1p(MARGIN)
    ratios = limit + rng.normal(0, 3 * calm.sd, (10_000, 16))
    moderated, plain = np.zeros(len(ratios), bool), np.zeros(len(ratios), bool)
    for n in LOOKS:
        look, level = _look(ratios[:, :n]), ALPHA * spent(n)
        with_calibration = _moderated(look, calm)
        plain |= look.mean - _half_width(look, level) > limit
        moderated |= look.mean - _half_width(with_calibration, level) > limit
    assert plain.mean() < 2 * ALPHA
    assert moderated.mean() > 10 * ALPHA


@pytest.mark.parametrize("n", [2, 7, 8, 9, 16, 24, 33])
def test_a_look_is_the_trimmed_mean_with_yuens_error(n):
    values = np.random.default_rng(n).standard_t(2, (3, n))
    found = _look(values)
    trimmed = n // 8
    for row in range(3):
        winsorized = np.asarray(stats.mstats.winsorize(values[row], (trimmed / n, trimmed / n)))
        assert found.mean[row] == pytest.approx(stats.trim_mean(values[row], trimmed / n))
        assert found.sd[row] == pytest.approx(winsorized.std(ddof=1) * n / (n - 2 * trimmed))
    assert found.df == n - 2 * trimmed - 1


@pytest.mark.parametrize("n_known", [5, 1000])
def test_a_calibrated_spread_weighs_as_its_pairs_up_to_a_bound(n_known):
    look = _look(np.random.default_rng(4).normal(0.0, 0.01, (1, 16)))
    found, prior = _moderated(look, Spread(sd=0.02, n=n_known)), min(n_known - 1, MAX_PRIOR_DF)
    variance = (prior * 0.02**2 + look.df * look.sd[0] ** 2) / (prior + look.df)
    assert found.df == prior + look.df
    assert found.sd[0] == pytest.approx(math.sqrt(variance))
    assert _moderated(look, None) is look
