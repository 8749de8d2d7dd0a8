"""Intervals and tests of rates: against SciPy and statsmodels, published values, and simulation."""

import functools
import math

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from harness.errors import MeasurementError
from harness.stats import (
    below_floor_p,
    cases_that_could_alarm,
    clopper_pearson_interval,
    detectable_loss,
    holm_p,
    images_needed,
    loss_beyond_margin_p,
    loss_interval,
    loss_within_margin_p,
    mcnemar_p,
    mcnemar_power,
    score_statistic,
    smallest_flagged_loss,
    wilson_interval,
)

COUNTS = [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (9930, 10_000), (9999, 10_000), (1, 50_000)]


@pytest.mark.parametrize(("n_hits", "n"), COUNTS)
def test_intervals_of_a_rate_agree_with_statsmodels(n_hits, n):
    for ours, method in ((wilson_interval, "wilson"), (clopper_pearson_interval, "beta")):
        for confidence in (0.95, 0.998):
            expected = proportion_confint(n_hits, n, alpha=1 - confidence, method=method)
            assert ours(n_hits, n, confidence) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_wilson_interval_has_the_published_value():
    # R. G. Newcombe, Statistics in Medicine 17 (1998) 857, table I: 81 of 263.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert clopper_pearson_interval(81, 263) == pytest.approx((0.2527, 0.3676), abs=5e-5)


def mean_coverage(interval, n, rates):
    lows, highs = np.array([interval(k, n) for k in range(n + 1)]).T
    return np.mean([scipy.stats.binom.pmf(np.arange(n + 1), n, p)[(lows <= p) & (p <= highs)].sum() for p in rates])


def test_wilson_interval_covers_the_rate_95_percent_of_the_time():
    rates = np.linspace(0.02, 0.98, 481)
    assert 0.94 <= mean_coverage(wilson_interval, 200, rates) <= 0.96


def test_clopper_pearson_never_covers_less_than_95_percent():
    lows, highs = np.array([clopper_pearson_interval(k, 100) for k in range(101)]).T
    for p in np.linspace(0.005, 0.995, 199):
        covered = scipy.stats.binom.pmf(np.arange(101), 100, p)[(lows <= p) & (p <= highs)].sum()
        assert covered >= 0.95


def test_floor_test_is_the_one_sided_binomial_test():
    expected = scipy.stats.binomtest(9850, 10_000, 0.99, alternative="less").pvalue
    assert below_floor_p(9850, 10_000, 0.99) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (11, 0), (5, 5), (6, 16), (32, 10), (600, 500)])
def test_mcnemar_agrees_with_statsmodels(lost, gained):
    table = [[0, lost], [gained, 0]]
    assert mcnemar_p(lost, gained) == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-9)
    one_sided = scipy.stats.binomtest(lost, lost + gained, alternative="greater").pvalue if lost + gained else 1.0
    assert mcnemar_p(lost, gained, two_sided=False) == pytest.approx(one_sided, rel=1e-9)


def test_mcnemar_has_the_published_values():
    # Fagerland, Lydersen, Laake, BMC Med Res Methodol 13 (2013) 91, table 1 (1 and 7 discordant): 0.0703, mid-p 0.0391.
    assert mcnemar_p(1, 7) == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar_p(1, 7, mid_p=True) == pytest.approx(0.0391, abs=5e-5)
    assert mcnemar_p(5, 5, mid_p=True) == pytest.approx(1 - scipy.stats.binom.pmf(5, 10, 0.5))


def test_mcnemar_raises_false_alarms_at_most_at_alpha():
    # Exact, not simulated: the test is conditional, so its error rate is bounded for every number of changed images.
    for alpha in (0.05, 0.01, 0.001):
        for changed in range(1, 80):
            lost = np.arange(changed + 1)
            rejected = [mcnemar_p(int(k), int(changed - k)) <= alpha for k in lost]
            assert scipy.stats.binom.pmf(lost, changed, 0.5)[rejected].sum() <= alpha


def test_loss_interval_has_the_published_value():
    # Bentur et al. 2009 (1 and 7 of 21 discordant), Tango's interval in Fagerland, Lydersen, Laake,
    # Statistics in Medicine 33 (2014) 2850.
    assert loss_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert loss_interval(7, 1, 21) == pytest.approx((0.026, 0.517), abs=5e-4)


def test_loss_interval_without_changes_is_the_closed_form():
    z2 = scipy.stats.norm.isf(0.001) ** 2
    low, high = loss_interval(0, 0, 10_000, 0.998)
    assert high == pytest.approx(z2 / (10_000 + z2), rel=1e-6)
    assert low == pytest.approx(-high)


def test_loss_interval_at_its_edges():
    assert loss_interval(5, 0, 5)[1] == 1.0
    assert loss_interval(0, 5, 5)[0] == -1.0
    low, high = loss_interval(1, 0, 1)
    assert -1 <= low < high == 1


def test_score_statistic_maximises_the_likelihood_it_is_built_on():
    """The closed form of the gain rate under the hypothesis, against a numerical maximum of the likelihood."""
    for lost, gained, n, loss in ((6, 16, 161, 0.02), (16, 6, 161, 0.05), (40, 20, 160, 0.0), (11, 2, 10_000, 0.0005)):
        grid = np.linspace(0, (1 - loss) / 2, 400_001)[1:-1]
        same = n - lost - gained
        likelihood = lost * np.log(grid + loss) + gained * np.log(grid) + same * np.log1p(-2 * grid - loss)
        rate = grid[np.argmax(likelihood)]
        expected = (lost - gained - n * loss) / math.sqrt(n * (2 * rate + loss * (1 - loss)))
        assert score_statistic(lost, gained, n, loss) == pytest.approx(expected, rel=2e-3)


def test_loss_interval_covers_the_loss_95_percent_of_the_time():
    generator = np.random.default_rng(1)
    n, covered, tried = 500, 0, 0
    intervals = {}
    for _ in range(40):
        gain, loss = generator.uniform(0.01, 0.08), generator.uniform(-0.008, 0.05)
        counts = generator.multinomial(n, [gain + loss, gain, 1 - 2 * gain - loss], size=400)
        for lost, gained, _ in counts.tolist():
            if (lost, gained) not in intervals:
                intervals[lost, gained] = loss_interval(lost, gained, n)
            low, high = intervals[lost, gained]
            covered += low <= loss <= high
            tried += 1
    assert 0.94 <= covered / tried <= 0.96


def test_margin_tests_are_the_ends_of_the_interval():
    low, high = loss_interval(30, 10, 10_000, 0.998)
    assert loss_beyond_margin_p(30, 10, 10_000, low) == pytest.approx(0.001, rel=1e-6)
    assert loss_within_margin_p(30, 10, 10_000, high) == pytest.approx(0.001, rel=1e-6)


def test_smallest_flagged_losses_are_those_of_the_target():
    assert [smallest_flagged_loss(gained, 0.001) for gained in (0, 10, 20)] == [11, 22, 28]
    for gained in (0, 3, 40, 1000):
        for alpha in (0.05, 0.001, 1e-9, 1e-30):
            net = smallest_flagged_loss(gained, alpha)
            assert mcnemar_p(gained + net, gained) <= alpha
            assert net == 1 or mcnemar_p(gained + net - 1, gained) > alpha


@pytest.mark.parametrize(("loss", "gain_rate"), [(0.0014, 0.0), (0.002, 0.0005), (0.004, 0.002)])
def test_power_is_as_computed(loss, gain_rate):
    generator = np.random.default_rng(2)
    counts = generator.multinomial(10_000, [gain_rate + loss, gain_rate, 1 - 2 * gain_rate - loss], size=20_000)
    lost, gained = counts[:, 0], counts[:, 1]
    p = np.minimum(1, 2 * scipy.stats.binom.sf(np.maximum(lost, gained) - 1, lost + gained, 0.5))
    simulated = ((p <= 0.001) & (lost > gained)).mean()
    assert mcnemar_power(loss, n=10_000, alpha=0.001, gain_rate=gain_rate) == pytest.approx(simulated, abs=0.015)


def test_detectable_loss_has_the_power_it_promises():
    for gain_rate in (0.0, 0.001):
        loss = detectable_loss(n=10_000, alpha=0.001, power=0.8, gain_rate=gain_rate)
        assert mcnemar_power(loss, n=10_000, alpha=0.001, gain_rate=gain_rate) == pytest.approx(0.8, abs=0.01)
    assert detectable_loss(n=10, alpha=0.001) is None
    assert mcnemar_power(0.0, n=100, alpha=0.001) == 0.0


def test_images_needed_suffice_and_are_not_wasteful():
    for margin, change_rate in ((0.005, 0.0), (0.005, 0.002), (0.01, 0.05)):
        n = images_needed(margin, alpha=0.001, change_rate=change_rate)
        changed = math.ceil(n * change_rate / 2)
        assert loss_interval(changed, changed, n, 0.998)[1] <= margin * 1.000001
        fewer = int(n * 0.85)
        changed = math.ceil(fewer * change_rate / 2)
        assert loss_interval(changed, changed, fewer, 0.998)[1] > margin


def test_holm_agrees_with_statsmodels():
    p = np.random.default_rng(3).uniform(0, 0.1, 40)
    assert holm_p(p) == pytest.approx(multipletests(p, method="holm")[1], rel=1e-12)
    assert holm_p([]).shape == (0,)
    assert holm_p([0.4]) == pytest.approx([0.4])


def test_cases_without_changes_cost_the_others_nothing():
    could = cases_that_could_alarm([1.0] * 29 + [2.0**-10], 0.001)
    assert could.tolist() == [False] * 29 + [True]
    assert cases_that_could_alarm([1e-9] * 5, 0.001).all()
    assert cases_that_could_alarm([], 0.001).shape == (0,)


def test_families_keep_their_false_alarm_rate():
    """30 unchanged models a night, images flipping by chance: any alarm at most in alpha of the nights."""
    generator, cached_p = np.random.default_rng(4), functools.cache(mcnemar_p)
    alpha, nights, alarms = 0.05, 2_000, 0
    for _ in range(nights):
        changed = generator.poisson(8, 30)
        lost = generator.binomial(changed, 0.5)
        p = np.array([cached_p(int(k), int(d - k)) for k, d in zip(lost, changed, strict=True)])
        family = cases_that_could_alarm(np.minimum(1, 2.0 ** (1.0 - changed)), alpha)
        alarms += bool((holm_p(p[family]) <= alpha).any())
    assert alarms / nights <= alpha


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson_interval(0, 0),
        lambda: wilson_interval(3, 2),
        lambda: wilson_interval(1, 2, math.nan),
        lambda: clopper_pearson_interval(-1, 2),
        lambda: below_floor_p(1, 2, math.nan),
        lambda: mcnemar_p(-1, 2),
        lambda: loss_interval(0, 0, 0),
        lambda: loss_interval(3, 3, 5),
        lambda: loss_interval(1, 1, 5, 1.0),
        lambda: loss_beyond_margin_p(1, 1, 5, math.nan),
        lambda: holm_p([0.1, math.nan]),
        lambda: holm_p([1.5]),
        lambda: smallest_flagged_loss(1, 0.0),
        lambda: mcnemar_power(0.9, n=10, alpha=0.05, gain_rate=0.3),
        lambda: images_needed(0.0, alpha=0.001),
        lambda: cases_that_could_alarm([0.1], math.nan),
    ],
)
def test_nothing_to_compare_or_nan_is_an_error(call):
    with pytest.raises(MeasurementError):
        call()
