"""Numbers that decide, each against an independent reckoning or its neighbour; mutants of them survived other tests."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from harness.errors import MeasurementError
from harness.stats import changes, joint, low_margin_images
from harness.stats.calibrated import N_RESAMPLED, _resampled
from harness.stats.changes import KEPT, KEPT_MEAN, KEPT_SIGMA, _clip_outliers, find_steps
from harness.stats.confusion import flips_between
from harness.stats.joint import MAX_EXACT
from harness.stats.latency import ratio_of_runs, summarize_latency
from harness.stats.looking import look_once
from harness.stats.multiple import holm_p
from harness.stats.paired import images_needed, loss_beyond_margin_p, loss_interval, mcnemar_p
from harness.stats.pairs import LOOKS
from harness.stats.quantiles import _median_depth, _order_statistics, n_needed_for_quantile
from harness.stats.samples import _saddlepoint_p, change_of_means, change_of_resamples, mean_interval
from harness.stats.sequential import SignTest
from harness.stats.throughput import summarize_throughput


@pytest.mark.parametrize("confidence", [0.3, 0.5, 0.95])  # z is below 1, and above
@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (3, 0), (0, 3), (5, 2)])
def test_the_interval_of_a_loss_holds_the_loss(lost, gained, confidence):
    low, high = loss_interval(lost, gained, 100, confidence)
    assert -1 <= low <= (lost - gained) / 100 <= high <= 1
    if lost or gained:
        assert low < high


def test_images_are_counted_for_no_change_unless_a_rate_is_given():
    assert images_needed(0.01, alpha=0.001) == images_needed(0.01, alpha=0.001, change_rate=0.0)
    assert images_needed(0.01, alpha=0.001) < images_needed(0.01, alpha=0.001, change_rate=0.005)


@pytest.mark.parametrize("quantile", [0.01, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_a_quantile_takes_the_fewest_samples_that_can_cover_it(quantile, confidence):
    def covered(n):
        return 1 - quantile**n - (1 - quantile) ** n >= confidence

    n = n_needed_for_quantile(quantile, confidence)
    assert covered(n)
    assert n == 1 or not covered(n - 1)


@pytest.mark.parametrize("n", range(6, 60))
def test_the_median_interval_has_its_rank_from_the_binomial(n):
    depth, _ = _median_depth(n, 0.95)
    assert 1 - 2 * stats.binom.cdf(depth - 1, n, 0.5) >= 0.95
    assert 1 - 2 * stats.binom.cdf(depth, n, 0.5) < 0.95


def losses_of(n, mean=0.3, seed=0):
    """Losses that are no hits."""
    return np.random.default_rng(seed).normal(mean, 0.2, n)


@pytest.mark.parametrize("n", [2, 3, 10, 31])
def test_a_loss_beyond_the_margin_is_told_by_students_t(n):
    losses = losses_of(n)
    found = change_of_means(losses, margin=0.1, alpha=0.05, is_fraction=False)
    expected = stats.ttest_1samp(losses, 0.1, alternative="greater").pvalue
    assert found.p_beyond == pytest.approx(max(found.p_any, expected))
    reach = stats.t.ppf(0.95, n - 1) * losses.std(ddof=1) / math.sqrt(n)
    assert (found.low, found.high) == pytest.approx((losses.mean() - reach, losses.mean() + reach))


def test_two_samples_have_a_scatter_and_one_has_none():
    assert math.isfinite(change_of_means(np.array([0.1, 0.4]), margin=0.1, alpha=0.05, is_fraction=False).high)
    assert not math.isfinite(change_of_means(np.array([0.1]), margin=0.1, alpha=0.05, is_fraction=False).high)


def test_where_nothing_differs_chance_was_not_tested():
    assert not change_of_means(np.zeros(50), margin=0.1, alpha=0.05, is_fraction=False).is_real
    assert change_of_means(losses_of(50), margin=0.1, alpha=0.05, is_fraction=False).is_real


@pytest.mark.parametrize(("margin", "p_above"), [(0.2, 0.0), (0.1, 0.5), (0.05, 0.0)])
def test_equal_losses_lie_above_the_margin_at_it_or_below(margin, p_above):
    found = change_of_means(np.full(40, 0.1), margin=margin, alpha=0.05, is_fraction=False)
    assert found.p_within == pytest.approx({0.2: 0.0, 0.1: 0.5, 0.05: 1.0}[margin], abs=1e-9)
    assert found.p_beyond >= p_above


@pytest.mark.parametrize("is_fraction", [True, False])
def test_a_small_loss_on_resamples_may_hide_in_samples_that_were_not_drawn(is_fraction):
    resamples = np.random.default_rng(0).normal(0.0, 1e-9, 200)
    found = change_of_resamples(0.0, resamples, n=20, margin=0.05, alpha=0.05, is_fraction=is_fraction)
    assert found.p_within == pytest.approx(0.95**20 if is_fraction else 0.0, abs=1e-12)
    assert found.p_within >= 0


def test_the_mean_of_one_number_has_no_bounds_and_of_none_no_interval():
    assert mean_interval(np.array([0.3])) == (-math.inf, math.inf)
    assert mean_interval(np.array([1.0])) != (-math.inf, math.inf)  # a hit has Wilson's
    with pytest.raises(MeasurementError, match="no samples"):
        mean_interval(np.empty(0))


def test_the_mean_that_noise_is_told_by_is_the_truncated_normals():
    inside, _ = integrate.quad(lambda z: 2 * z * stats.norm.pdf(z), 0, KEPT_SIGMA)
    assert pytest.approx(inside / KEPT) == KEPT_MEAN


@pytest.mark.parametrize(("n_new", "steps"), [(2, []), (3, [20])])
def test_a_level_of_three_runs_is_a_step_and_of_two_is_not(n_new, steps):
    series = np.random.default_rng(1).normal(0, 0.1, 20 + n_new)
    series[20:] += 50
    assert find_steps(series[None], resolution=np.array([1e-3])) == [steps]
    assert changes.MIN_LEVEL_RUNS == 3


@pytest.mark.parametrize("agreement", [-0.5, 0.3, 0.5, 1.0, 1.5])
def test_trials_that_agree_by_chance_or_more_than_always_are_refused(agreement):
    with pytest.raises(MeasurementError, match="decide nothing"):
        SignTest(error=0.01, agreement=agreement)


def test_many_cases_together_are_judged_by_the_normal_law_with_its_step(monkeypatch):
    net = np.concatenate([np.full(40, 3), np.full(20, -3)])
    monkeypatch.setattr(joint, "MAX_EXACT", 10)
    deviation = math.sqrt(60 * 9)
    assert joint.joint_loss_p(net) == pytest.approx(2 * stats.norm.sf((60 - 1) / deviation))
    assert MAX_EXACT > 10


@pytest.mark.parametrize("margins", [np.empty(0), np.array([1.0, np.nan])])
def test_margins_that_cannot_be_ordered_are_refused(margins):
    with pytest.raises(MeasurementError, match="cannot be ordered"):
        low_margin_images(margins)
    assert list(low_margin_images(np.array([2.0]))) == [0]


@pytest.mark.parametrize("counts", [(100, 0, 100), (0, 100, 100), (1, 0, 1), (0, 1, 1), (0, 0, 1)])
def test_the_interval_of_the_largest_loss_and_gain_has_ends(counts):
    low, high = loss_interval(*counts)
    observed = (counts[0] - counts[1]) / counts[2]
    assert -1 <= low <= observed <= high <= 1


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (0, 1), (1, 0), (0, 9), (9, 0), (4, 4)])
@pytest.mark.parametrize("options", [{}, {"two_sided": False}, {"mid_p": True}, {"two_sided": False, "mid_p": True}])
def test_a_p_value_of_flips_is_a_probability(lost, gained, options):
    assert 0 <= mcnemar_p(lost, gained, **options) <= 1


def test_one_number_says_nothing_of_a_loss():
    found = change_of_means(np.array([0.3]), margin=0.1, alpha=0.05, is_fraction=False)
    assert (found.p_beyond, found.p_within) == (1.0, 0.5)


def test_both_ends_of_each_quantile_are_told():
    rounds = np.random.default_rng(0).lognormal(7, 0.3, (40, 50))
    found = summarize_latency(rounds)
    for name in ("p50", "p90", "p99"):
        low, value, high = (getattr(found, name + end) for end in ("_low", "", "_high"))
        assert low < value < high, name
    assert found.p50_high < found.p90_low < found.p90_high < found.p99_low


def test_a_throughput_has_the_interval_of_its_rounds():
    rates = np.linspace(90, 110, 21)
    found = summarize_throughput(rates, np.full(400, 5.0))
    assert found.low < found.images_per_s < found.high
    assert (summarize_throughput(rates[:2], np.full(400, 5.0)).low) is None


def test_flips_are_numbered_from_the_first_image():
    labels, margins = np.zeros(3, int), np.ones(3)
    given = {"labels": labels, "reference_margins": margins, "margins": margins}
    (flip,) = flips_between(reference_predictions=labels, predictions=np.array([0, 1, 0]), **given)
    assert flip.index == 1
    (flip,) = flips_between(reference_predictions=labels, predictions=np.array([0, 1, 0]), first=7, **given)
    assert flip.index == 8


@pytest.mark.parametrize("n", [1, 2, 3, 50])
def test_the_error_of_resamples_has_the_degrees_of_its_samples(n):
    drawn = np.random.default_rng(2).normal(0.0, 0.01, 1000)
    found = change_of_resamples(0.0, drawn, n=n, margin=0.01, alpha=0.01)
    if n == 1:
        assert (found.low, found.high, found.detectable) == (-math.inf, math.inf, None)
        return
    reach = stats.t.isf(0.01, n - 1) * drawn.std(ddof=1) * math.sqrt(n / (n - 1))
    assert (found.low, found.high) == (pytest.approx(-reach), pytest.approx(reach))
    assert found.detectable == (pytest.approx(0.01 + reach) if 0.01 + reach <= 1 else None)


@pytest.mark.parametrize("is_fraction", [True, False])
def test_a_loss_of_more_than_all_can_be_told_of_what_is_no_fraction_alone(is_fraction):
    drawn = np.random.default_rng(2).normal(0.0, 1.0, 1000)
    found = change_of_resamples(0.1, drawn, n=40, margin=0.01, alpha=0.001, is_fraction=is_fraction)
    assert (found.detectable is None) is is_fraction
    means = change_of_means(losses_of(4, mean=0.0), margin=0.9, alpha=0.001, is_fraction=is_fraction)
    assert (means.detectable is None) is is_fraction


@pytest.mark.parametrize("n", [10, 11, 12, 30, 1000])
@pytest.mark.parametrize(("n_lost", "n_gained"), [(0, 0), (2, 0), (3, 2)])
@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_the_detectable_loss_of_hits_is_the_smallest_that_both_tests_call(n, n_lost, n_gained, margin):
    losses = np.zeros(n)
    losses[:n_lost], losses[n_lost : n_lost + n_gained] = 1.0, -1.0
    found = change_of_means(losses, margin=margin, alpha=0.001).detectable

    def is_called(least):
        lost = least + n_gained
        beyond = margin == 0 or loss_beyond_margin_p(lost, n_gained, n, margin) <= 0.001
        return mcnemar_p(lost, n_gained) <= 0.001 and beyond

    expected = next((least / n for least in range(1, n - 2 * n_gained + 1) if is_called(least)), None)
    assert found == expected


@pytest.mark.parametrize("n", [6, 7, 20, 59, 300])
@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_ranks_of_a_quantile_cover_it_and_no_narrower_ones_at_both_ends_do(n, quantile):
    if n < n_needed_for_quantile(quantile, 0.95):
        return
    low, high = _order_statistics(n, quantile, 0.95)
    assert 1 <= low < high <= n
    covered = stats.binom.cdf(high - 1, n, quantile) - stats.binom.cdf(low - 1, n, quantile)
    assert covered >= 0.95
    assert stats.binom.cdf(high - 2, n, quantile) - stats.binom.cdf(low, n, quantile) < 0.95


@pytest.mark.parametrize("n", [6, 9, 10, 30, 101])
def test_the_median_interval_is_mixed_as_hettmansperger_and_sheather_have_it(n):
    depth, mix = _median_depth(n, 0.95)

    def cover(rank):
        return 1 - 2 * stats.binom.cdf(rank - 1, n, 0.5)

    share = (cover(depth) - 0.95) / (cover(depth) - cover(depth + 1))
    assert 0 <= share <= 1
    assert mix == pytest.approx((n - depth) * share / (depth + (n - 2 * depth) * share))


def test_what_all_pairs_hide_is_no_part_of_what_is_within_a_margin():
    losses = np.array([0.0, 0.25, -0.25, 0.0] * 4)  # no hits
    fraction, plain = (change_of_means(losses, margin=0.5, alpha=0.01, is_fraction=kind) for kind in (True, False))
    assert fraction.p_within >= (1 - 0.5) ** 16
    assert plain.p_within == pytest.approx(stats.t.sf(0.5 / (losses.std(ddof=1) / 4), 15))


def test_a_mean_of_two_numbers_has_an_interval_and_one_of_one_has_none():
    """Student's t with one degree of freedom: 12.706 standard errors."""
    low, high = mean_interval(np.array([0.25, 0.75]))
    assert (low, high) == pytest.approx((0.5 - 12.706 * 0.25, 0.5 + 12.706 * 0.25), rel=1e-4)
    assert mean_interval(np.array([0.25])) == (-math.inf, math.inf)


def test_a_ratio_of_runs_ends_at_the_depth_of_the_table():
    """Mann and Whitney's table: of 5 and 5 rounds at 2.5 % on either side U is 2: the third ratio from either end."""
    ours, theirs = np.array([10.0, 11, 12, 13, 14.5]), np.array([9.0, 10.1, 11.2, 12.3, 13.4])
    found = ratio_of_runs(ours, theirs, 0.95)
    ratios = sorted(one / other for one in ours for other in theirs)
    assert (found.low, found.high, found.n_rounds) == (ratios[2], ratios[-3], 5)


@pytest.mark.parametrize("n", [60, 75, 200])
@pytest.mark.parametrize("quantile", [0.5, 0.9])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_ranks_of_a_quantile_leave_at_most_the_half_outside_on_either_side(n, quantile, confidence):
    low, high = _order_statistics(n, quantile, confidence)
    outside = (1 - confidence) / 2
    assert stats.binom.cdf(low - 1, n, quantile) <= outside + stats.binom.pmf(low - 1, n, quantile)
    assert stats.binom.cdf(low, n, quantile) > outside
    assert stats.binom.sf(high - 2, n, quantile) > outside
    assert stats.binom.cdf(high - 1, n, quantile) - stats.binom.cdf(low - 1, n, quantile) >= confidence


@pytest.mark.parametrize("p", [-0.5, -1e-9, 1.000001, 2.0, math.nan])
def test_no_p_value_outside_of_0_to_1_is_adjusted(p):
    with pytest.raises(MeasurementError, match=r"are not in 0\.\.1"):
        holm_p([0.2, p])
    assert holm_p([0.0, 1.0]).tolist() == [0.0, 1.0]


def test_comparisons_are_drawn_from_as_many_pairs_as_one_takes():
    assert _resampled(np.zeros(LOOKS[-1] - 1), is_null=True).shape == (0, LOOKS[-1])
    assert _resampled(np.zeros(LOOKS[-1]), is_null=True).shape == (N_RESAMPLED, LOOKS[-1])


def test_pairs_of_unchanged_engines_are_drawn_with_either_of_two_as_the_control():
    ratios = np.linspace(0.1, 1.6, LOOKS[-1])
    drawn = _resampled(ratios, is_null=True)
    assert np.isin(np.abs(drawn), ratios).all()
    assert (drawn > 0).mean() == pytest.approx(0.5, abs=0.02)
    assert (_resampled(ratios, is_null=False) > 0).all()


@pytest.mark.parametrize(("n_lost", "n_gained"), [(5, 2), (2, 5), (1, 0), (4, 4)])
@pytest.mark.parametrize("mid_p", [False, True])
def test_a_loss_alone_has_the_upper_tail_of_the_binomial(n_lost, n_gained, mid_p):
    n = n_lost + n_gained
    pmf = [math.comb(n, k) / 2**n for k in range(n + 1)]
    expected = sum(pmf[n_lost:]) - (pmf[n_lost] / 2 if mid_p else 0)
    assert mcnemar_p(n_lost, n_gained, mid_p=mid_p, two_sided=False) == pytest.approx(expected)


def test_the_tail_of_a_sum_is_whole_where_it_hardly_differs_from_none():
    sizes = np.ones(100)
    total = 1e-6
    assert _saddlepoint_p(sizes, total) == pytest.approx(2 * stats.norm.sf(total / 10))
    assert _saddlepoint_p(sizes, 0.0) == 1.0


@pytest.mark.parametrize("arms", ["none", "ours", "theirs"])
def test_times_are_relative_where_both_sides_have_an_arm(arms):
    ours, theirs = np.array([110.0, 111, 112, 113, 114, 115]), np.array([100.0, 101, 102, 103, 104, 105])
    alone = look_once(ours, theirs, margin=0.02, alpha=0.001)
    given = (
        {"ours_reference_ns": ours} if arms == "ours" else {"theirs_reference_ns": theirs} if arms == "theirs" else {}
    )
    assert look_once(ours, theirs, margin=0.02, alpha=0.001, **given) == alone
    both = look_once(ours, theirs, margin=0.02, alpha=0.001, ours_reference_ns=ours, theirs_reference_ns=theirs)
    assert both.ratio == 1.0 != alone.ratio


def test_a_series_of_two_shortest_levels_has_a_step_and_one_run_less_has_none():
    short = np.array([0.0, 0.1, 0.05, 50.0, 50.1, 50.05])
    assert find_steps(short[None], resolution=np.array([1e-3])) == [[3]]
    assert find_steps(short[None, :5], resolution=np.array([1e-3])) == [[]]


@pytest.mark.parametrize("n_odd", [1, 2])
@pytest.mark.parametrize("last", [50, -50])
def test_odd_nights_at_the_end_are_clipped_to_what_came_before_them(n_odd, last):
    series = np.random.default_rng(2).normal(0, 0.1, 30)
    series[:5] += 9  # what stands at the other end is none of theirs
    series[-n_odd:] = last
    assert np.abs(_clip_outliers(series, 0.1)[-n_odd:]).max() < 1


@pytest.mark.parametrize("is_fraction", [True, False])
@pytest.mark.parametrize("loss", [0.02, 0.1])
def test_a_gain_on_resamples_is_as_sure_as_a_loss_of_its_size(loss, is_fraction):
    resamples = np.random.default_rng(3).normal(0.0, 0.03, 500)
    found = [
        change_of_resamples(
            sign * loss, sign * (loss + resamples), n=40, margin=0.0, alpha=0.05, is_fraction=is_fraction
        )
        for sign in (1, -1)
    ]
    assert found[1].p_any == pytest.approx(found[0].p_any, rel=1e-6)
    assert (found[0].p_any < 0.05) == (loss == 0.1)
