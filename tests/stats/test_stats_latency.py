"""Quantiles, summaries and ratios of times: coverage by simulation, and the edges."""

import numpy as np
import pytest
import scipy.stats

from harness.errors import MeasurementError
from harness.stats import (
    median_interval,
    n_needed_for_quantile,
    quantile_interval,
    quantile_or_none,
    ratio_of_rounds,
    ratio_of_runs,
    round_medians,
    summarize_latency,
)
from harness.stats.latency import _mann_whitney_depth


@pytest.mark.parametrize(("quantile", "n"), [(0.5, 6), (0.9, 29), (0.95, 59), (0.99, 299)])
def test_quantiles_need_as_many_samples_as_the_rule_says(quantile, n):
    assert n_needed_for_quantile(quantile) == n
    samples = np.arange(1.0, n + 1)
    assert quantile_or_none(samples, quantile) is not None
    assert quantile_interval(samples, quantile) is not None
    assert quantile_or_none(samples[:-1], quantile) is None
    assert quantile_interval(samples[:-1], quantile) is None


@pytest.mark.parametrize(("quantile", "n"), [(0.5, 20), (0.5, 101), (0.9, 100), (0.99, 300), (0.99, 2000)])
def test_order_statistic_intervals_cover_at_least_95_percent(quantile, n):
    samples = np.random.default_rng(5).uniform(size=(2_000, n))
    intervals = np.array([quantile_interval(row, quantile) for row in samples])
    covered = ((intervals[:, 0] <= quantile) & (quantile <= intervals[:, 1])).mean()
    assert covered >= 0.94
    assert covered <= 0.96 or n <= 300, "large samples should not be wasteful"


@pytest.mark.parametrize("draw", ["normal", "lognormal", "exponential"])
@pytest.mark.parametrize("n", [7, 10, 20, 40])
def test_median_interval_covers_95_percent(draw, n):
    generator = np.random.default_rng(6)
    samples = getattr(generator, draw)(size=(6_000, n))
    truth = {"normal": 0.0, "lognormal": 1.0, "exponential": np.log(2)}[draw]
    intervals = np.array([median_interval(row) for row in samples])
    covered = ((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])).mean()
    assert 0.94 <= covered <= 0.96


def test_median_interval_at_its_edges():
    assert median_interval(np.arange(5.0)) is None
    assert median_interval(np.empty(0)) is None
    assert median_interval(np.full(6, 3.0)) == (3.0, 3.0)
    low, high = median_interval(np.arange(6.0))
    assert 0 <= low < high <= 5


def test_summary_states_only_what_the_samples_support():
    generator = np.random.default_rng(7)
    rounds = generator.lognormal(sigma=0.1, size=(20, 20)) * 1_000
    summary = summarize_latency(rounds)
    assert summary.p50_low < summary.p50 < summary.p50_high < summary.p90 < summary.p99
    assert (summary.n_rounds, summary.n_samples) == (20, 400)
    assert summary.cv == pytest.approx(np.median(rounds, axis=1).std(ddof=1) / np.median(rounds, axis=1).mean())
    few = summarize_latency(rounds[:2, :3])
    assert (few.p50_low, few.p50_high, few.p90, few.p99) == (None, None, None, None)
    one = summarize_latency(rounds[:1, :1])
    assert one.p50 == rounds[0, 0]
    assert one.cv is None


def test_summary_takes_whole_rounds_as_the_unit():
    """Rounds that differ while their samples agree: samples alone would promise far too much."""
    generator = np.random.default_rng(8)
    covered = 0
    for _ in range(2_000):
        speed = generator.lognormal(sigma=0.1, size=(20, 1))
        summary = summarize_latency(speed * generator.lognormal(sigma=0.01, size=(20, 15)))
        covered += summary.p50_low <= 1 <= summary.p50_high
    assert 0.94 <= covered / 2_000 <= 0.96


def test_ratio_of_interleaved_rounds_cancels_the_machine():
    generator = np.random.default_rng(9)
    covered, widths = 0, []
    for _ in range(1_500):
        machine = np.where(generator.uniform(size=(20, 1)) < 0.5, 1.0, 1.45)
        ours = 1.1 * machine * generator.lognormal(sigma=0.02, size=(20, 9))
        theirs = machine * generator.lognormal(sigma=0.02, size=(20, 9))
        ratio = ratio_of_rounds(ours, theirs)
        covered += ratio.low <= 1.1 <= ratio.high
        widths.append(ratio.high - ratio.low)
    assert 0.94 <= covered / 1_500 <= 0.96
    assert np.median(widths) < 0.02


def test_ratio_of_two_runs_covers_95_percent():
    generator = np.random.default_rng(10)
    covered = 0
    for _ in range(2_000):
        ratio = ratio_of_runs(1.2 * generator.lognormal(sigma=0.1, size=14), generator.lognormal(sigma=0.1, size=11))
        covered += ratio.low <= 1.2 <= ratio.high
    assert 0.94 <= covered / 2_000 <= 0.965


@pytest.mark.parametrize(("n", "m"), [(3, 4), (6, 6), (20, 20), (7, 15), (40, 30)])
def test_mann_whitney_depth_is_scipys(n, m):
    """The largest d with P(U < d) <= tail, from SciPy's exact null distribution of U."""
    depth = _mann_whitney_depth(n, m, 0.025)
    ours, theirs = np.arange(n, dtype=float), np.arange(m, dtype=float)

    def p_below(u):  # P(U <= u): build samples whose U is u
        shift = np.full(n, -0.5)
        for i in range(n):
            shift[n - 1 - i] = min(m, max(0, u - i * m)) - 0.5
        exact = scipy.stats.mannwhitneyu(np.sort(shift) + 1e-6 * ours, theirs, alternative="less", method="exact")
        assert exact.statistic == u
        return exact.pvalue

    assert depth == 0 or p_below(depth - 1) <= 0.025
    assert p_below(depth) > 0.025


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_rounds_give_no_interval(n):
    rounds = np.full((n, 4), 100.0)
    for ratio in (ratio_of_rounds(2 * rounds, rounds), ratio_of_runs(2 * rounds[:3], rounds[:2])):
        assert ratio.value == 2.0
        assert (ratio.low, ratio.high, ratio.has_interval) == (None, None, False)


@pytest.mark.parametrize(
    "call",
    [
        lambda: summarize_latency(np.empty((0, 3))),
        lambda: summarize_latency(np.empty((3, 0))),
        lambda: summarize_latency(np.array([[1.0, np.nan]])),
        lambda: summarize_latency(np.array([[1.0, np.inf]])),
        lambda: summarize_latency(np.array([[1.0, 0.0]])),
        lambda: round_medians(np.zeros((2, 2, 2)) + 1),
        lambda: ratio_of_rounds(np.ones((3, 2)), np.ones((4, 2))),
        lambda: ratio_of_runs(np.ones((3, 2)), np.array([[-1.0]])),
        lambda: median_interval(np.array([np.nan] * 9)),
    ],
)
def test_broken_times_are_an_error(call):
    with pytest.raises(MeasurementError):
        call()
