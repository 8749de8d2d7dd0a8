"""Paired tests of samples' numbers: exact where few changed, calibrated by simulation, equal to the test of images."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from harness.errors import MeasurementError
from harness.stats import (
    change_of_means,
    change_of_resamples,
    loss_beyond_margin_p,
    loss_interval,
    mcnemar_p,
    mean_interval,
    percentile_interval,
    sign_flip_p,
)
from harness.stats.samples import EXACT_SAMPLES
from harness.tasks._metrics import resample_counts

ALPHA = 0.05


def every_sign(differences):
    signs = np.asarray(list(itertools.product((-1, 1), repeat=len(differences))))
    sums = np.abs(signs @ differences)
    return float((sums >= abs(differences.sum()) - 1e-9).mean())


# -- the sign-flip test


@pytest.mark.parametrize("seed", range(5))
def test_few_changed_samples_are_judged_by_all_signs(seed):
    differences = np.random.default_rng(seed).normal(0.4, 1, 10)
    assert sign_flip_p(differences) == pytest.approx(every_sign(differences))
    with_unchanged = np.concatenate((differences, np.zeros(50)))
    assert sign_flip_p(with_unchanged) == sign_flip_p(differences)


def test_it_is_scipys_permutation_test():
    differences = np.random.default_rng(3).normal(0.5, 1, 9)
    theirs = reference.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(differences) == pytest.approx(float(theirs.pvalue))


@pytest.mark.parametrize(("shift", "seed"), [(0.0, 1), (0.3, 2), (0.7, 3), (0.5, 4)])
def test_the_approximation_is_close_to_all_signs(shift, seed):
    n = EXACT_SAMPLES + 2
    differences = np.random.default_rng(seed).exponential(1, n) * np.random.default_rng(seed + 9).choice((-1, 1), n)
    differences += shift
    assert sign_flip_p(differences) == pytest.approx(every_sign(differences), rel=0.2)


def test_differences_of_one_size_are_mcnemars_exact_test():
    differences = np.asarray([0.25] * 30 + [-0.25] * 9 + [0.0] * 100)
    assert sign_flip_p(differences) == pytest.approx(mcnemar_p(30, 9))


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_a_p_value_is_symmetric_and_never_below_that_of_one_pattern(values):
    differences = np.asarray(values)
    p = sign_flip_p(differences)
    assert p == pytest.approx(sign_flip_p(-differences))
    assert 2.0 ** (1 - len(values)) * (1 - 1e-9) <= p <= 1


def test_equal_samples_differ_in_nothing_and_nan_is_refused():
    assert sign_flip_p(np.zeros(5)) == 1
    with pytest.raises(MeasurementError, match="not finite"):
        sign_flip_p(np.asarray([0.1, np.nan]))


# -- means


def test_lost_and_gained_samples_are_judged_like_images():
    losses = np.asarray([1.0] * 40 + [-1.0] * 5 + [0.0] * 955)
    change = change_of_means(losses, margin=0.005, alpha=0.001)
    assert (change.low, change.high) == loss_interval(40, 5, 1000, 0.998)
    assert change.p_any == pytest.approx(mcnemar_p(40, 5))
    assert change.p_beyond == max(change.p_any, loss_beyond_margin_p(40, 5, 1000, 0.005))
    assert change.loss == pytest.approx(0.035)


def test_a_mean_loss_has_the_interval_of_students_t():
    losses = np.random.default_rng(0).normal(0.02, 0.1, 200)
    change = change_of_means(losses, margin=0.0, alpha=0.025)
    theirs = reference.ttest_1samp(losses, 0).confidence_interval(0.95)
    assert (change.low, change.high) == pytest.approx((theirs.low, theirs.high))


def test_few_samples_cannot_show_that_a_loss_is_small():
    losses = np.zeros(100)
    losses[0] = 1e-6
    assert change_of_means(losses, margin=0.005, alpha=0.001).p_within > 0.001
    assert change_of_means(np.tile(losses, 20), margin=0.005, alpha=0.001).p_within <= 0.001
    assert change_of_means(losses, margin=0.005, alpha=0.001, is_fraction=False).p_within <= 0.001


@pytest.mark.parametrize("n", [10, 60])
@pytest.mark.parametrize("shape", ["normal", "rare", "skewed"])
def test_the_false_alarm_rate_of_means_is_held(n, shape):
    generator = np.random.default_rng(n)
    n_runs = 1500
    # Exchangeable engines: each sample's difference has either sign alike.
    sizes = {
        "normal": lambda: np.abs(generator.normal(0, 0.1, n)),
        "rare": lambda: generator.exponential(0.3, n) * (generator.random(n) < 0.2),
        "skewed": lambda: generator.lognormal(-3, 1.5, n),
    }[shape]
    p_values = np.asarray(
        [change_of_means(sizes() * generator.choice((-1, 1), n), margin=0.0, alpha=ALPHA).p_any for _ in range(n_runs)]
    )
    assert (p_values <= ALPHA).mean() <= ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / n_runs)


def test_a_loss_at_the_margin_is_seldom_called_beyond_it_and_a_larger_one_often():
    generator = np.random.default_rng(8)

    def called(loss):
        runs = [
            change_of_means(generator.exponential(loss, 150) + generator.normal(0, 0.02, 150), margin=0.05, alpha=ALPHA)
            for _ in range(400)
        ]
        return np.mean([change.p_beyond <= ALPHA for change in runs])

    assert called(0.05) <= ALPHA + 3 * np.sqrt(ALPHA / 400)
    assert called(0.09) > 0.9


def test_a_detectable_loss_is_called():
    generator = np.random.default_rng(2)
    noise = generator.normal(0, 0.05, 300)
    found = change_of_means(noise - noise.mean(), margin=0.005, alpha=0.001).detectable
    assert change_of_means(noise - noise.mean() + found * 1.01, margin=0.005, alpha=0.001).p_beyond <= 0.001
    assert change_of_means(noise - noise.mean() + found * 0.9, margin=0.005, alpha=0.001).p_beyond > 0.001


# -- metrics of the whole set


def rate_of_whole(counts, parts):
    sums = counts @ parts
    return sums[:, 0] / sums[:, 1]


def test_the_false_alarm_rate_of_a_paired_bootstrap_is_held_and_a_loss_is_found():
    generator = np.random.default_rng(4)
    n, n_runs = 40, 600
    counts = np.concatenate(list(resample_counts(n, 400)))
    whole = np.ones((1, n))

    def p_values(extra):
        found = []
        for _ in range(n_runs):
            lengths = generator.integers(2, 20, n)
            ours, theirs = (
                np.stack([generator.binomial(lengths, rate), lengths], axis=1).astype(float)
                for rate in (0.2 + extra, 0.2)
            )
            loss = float((rate_of_whole(whole, ours) - rate_of_whole(whole, theirs))[0])
            losses = rate_of_whole(counts, ours) - rate_of_whole(counts, theirs)
            found.append(change_of_resamples(loss, losses, n=n, margin=0.0, alpha=ALPHA).p_beyond)
        return np.asarray(found)

    null = p_values(0.0)
    for alpha in (0.05, 0.01):
        assert (null <= alpha).mean() <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / n_runs)
    assert (p_values(0.15) <= ALPHA).mean() > 0.95


def test_the_bootstrap_interval_of_a_mean_is_close_to_students_t():
    values = np.random.default_rng(6).normal(0.3, 0.1, 80)
    resampled = np.concatenate(list(resample_counts(80))) @ values / 80
    change = change_of_resamples(float(values.mean()), resampled, n=80, margin=0.0, alpha=0.025)
    low, high = mean_interval(values)
    assert (change.low, change.high) == pytest.approx((low, high), abs=0.003)
    assert percentile_interval(resampled) == pytest.approx((low, high), abs=0.004)


def test_two_samples_never_prove_a_loss():
    change = change_of_resamples(0.5, np.full(1000, 0.5), n=2, margin=0.0, alpha=0.001)
    assert change.p_beyond == 0.5


def test_damaged_resamples_are_refused():
    for losses in (np.zeros(1), np.asarray([0.1, np.inf])):
        with pytest.raises(MeasurementError, match="missing or not finite"):
            change_of_resamples(0.1, losses, n=5, margin=0.0, alpha=0.001)


def test_the_interval_of_hits_is_wilsons():
    hits = np.asarray([1.0] * 9 + [0.0])
    theirs = reference.binomtest(9, 10).proportion_ci(0.95, method="wilson")
    assert mean_interval(hits) == pytest.approx((theirs.low, theirs.high))
