"""The cheap look: what it lets pass, and what it sends on to pairs of processes."""

import math

import numpy as np
import pytest
from scipy import stats

from harness.errors import MeasurementError
from harness.stats.looking import MISS, LookSpread, _robust_variance, look_once
from harness.stats.pairs import Spread

MARGIN, ALPHA = 0.005, 0.001
CALIBRATED = LookSpread(times=Spread(sd=0.003, n=40), relative=Spread(sd=0.0012, n=40), pairs=Spread(sd=0.001, n=40))


def rounds(rng: np.random.Generator, *, sd: float, slowdown: float = 0.0, common: float = 0.0) -> np.ndarray:
    """Return the medians of 20 rounds of one process [ns]."""
    return 1e5 * np.exp(np.log1p(slowdown) + common + rng.normal(0, sd) + rng.normal(0, 0.001, 20))


def share_of_suspects(slowdown: float, *, sd: float, spread: LookSpread | None, relative: bool, n: int = 600) -> float:
    rng, suspects = np.random.default_rng(5), 0
    for _ in range(n):
        references = {}
        if relative:
            references = {"ours_reference_ns": rounds(rng, sd=1e-5), "theirs_reference_ns": rounds(rng, sd=1e-5)}
        ours, theirs = rounds(rng, sd=sd, slowdown=slowdown), rounds(rng, sd=sd)
        suspects += look_once(ours, theirs, margin=MARGIN, alpha=ALPHA, spread=spread, **references).is_suspicious
    return suspects / n


@pytest.mark.parametrize(("sd", "relative"), [(0.003, False), (0.0012, True)])
def test_at_most_one_detectable_slowdown_in_twenty_passes_unseen(sd, relative):
    rng = np.random.default_rng(6)
    seen = look_once(rounds(rng, sd=sd), rounds(rng, sd=sd), margin=MARGIN, alpha=ALPHA, spread=CALIBRATED).detectable
    assert MARGIN < seen < 0.008
    assert share_of_suspects(seen, sd=sd, spread=CALIBRATED, relative=relative) >= 0.93


def test_few_unchanged_engines_are_suspected_where_the_fp32_arm_cancels_the_machine():
    assert share_of_suspects(0.0, sd=0.0012, spread=CALIBRATED, relative=True) <= 0.10


def test_a_slowdown_of_one_per_cent_is_suspected():
    assert share_of_suspects(0.01, sd=0.0012, spread=CALIBRATED, relative=True) >= 0.99


def test_an_uncalibrated_device_suspects_what_it_cannot_tell():
    assert share_of_suspects(0.005, sd=0.001, spread=None, relative=False) >= 0.95


def test_a_slower_machine_cancels_and_a_much_slower_one_is_told():
    rng = np.random.default_rng(7)
    for common, is_suspicious in ((0.004, False), (0.05, True)):
        look = look_once(
            rounds(rng, sd=1e-5, common=common),
            rounds(rng, sd=1e-5),
            ours_reference_ns=rounds(rng, sd=1e-5, common=common),
            theirs_reference_ns=rounds(rng, sd=1e-5),
            margin=MARGIN,
            alpha=ALPHA,
            spread=CALIBRATED,
        )
        assert look.is_relative
        assert look.ratio == pytest.approx(1, abs=0.002)
        assert look.ratio_of_times == pytest.approx(np.exp(common), abs=0.002)
        assert look.is_suspicious is is_suspicious


def test_a_look_has_a_direction_an_interval_and_a_p_value():
    rng = np.random.default_rng(8)
    slower = look_once(
        rounds(rng, sd=0, slowdown=0.03), rounds(rng, sd=0), margin=MARGIN, alpha=ALPHA, spread=CALIBRATED
    )
    faster = look_once(
        rounds(rng, sd=0), rounds(rng, sd=0, slowdown=0.03), margin=MARGIN, alpha=ALPHA, spread=CALIBRATED
    )
    assert slower.is_suspicious
    assert not faster.is_suspicious
    assert slower.low < slower.ratio < slower.high
    assert slower.ratio > 1.02 > 0.98 > faster.ratio
    assert slower.p_value < 0.001
    assert faster.p_value > 0.999
    assert not slower.is_relative
    assert slower.ratio_of_times == slower.ratio


def test_the_interval_holds_the_spread_between_processes():
    rng = np.random.default_rng(9)
    ours, theirs = rounds(rng, sd=0), rounds(rng, sd=0)
    calm = look_once(ours, theirs, margin=MARGIN, alpha=ALPHA, spread=CALIBRATED)
    wide = look_once(ours, theirs, margin=MARGIN, alpha=ALPHA)
    assert wide.high - wide.low > 4 * (calm.high - calm.low)


def test_one_round_of_another_process_hardly_moves_a_look():
    rng = np.random.default_rng(10)
    ours, theirs = rounds(rng, sd=0), rounds(rng, sd=0)
    before = look_once(ours, theirs, margin=MARGIN, alpha=ALPHA, spread=CALIBRATED)
    ours[3] *= 3
    after = look_once(ours, theirs, margin=MARGIN, alpha=ALPHA, spread=CALIBRATED)
    assert after.ratio == pytest.approx(before.ratio, abs=5e-4)
    assert after.high == pytest.approx(before.high, abs=5e-4)


def test_rounds_that_do_not_pair_are_refused():
    with pytest.raises(MeasurementError, match="cannot be paired"):
        look_once(
            np.ones(4), np.ones(4), ours_reference_ns=np.ones(3), theirs_reference_ns=np.ones(4), margin=0.0, alpha=0.01
        )


@pytest.mark.parametrize("n", range(2, 14))
def test_the_scatter_of_rounds_is_that_of_their_quartiles(n):
    logs = np.random.default_rng(n).normal(3.0, 0.1, n)
    low, high = np.quantile(logs, [0.25, 0.75])
    assert _robust_variance(logs) == pytest.approx(((high - low) / 1.349) ** 2)


def test_one_round_has_the_scatter_between_processes_alone():
    found = look_once(np.array([100.0]), np.array([100.0]), margin=0.02, alpha=0.001)
    assert found.ratio == 1.0
    assert found.low < 1 < found.high


@pytest.mark.parametrize("missing", ["ours_reference_ns", "theirs_reference_ns"])
def test_times_are_relative_where_both_nights_have_a_reference(missing):
    times = np.array([100.0, 101.0, 99.0, 100.5, 99.5, 100.2])
    references = {"ours_reference_ns": times, "theirs_reference_ns": times} | {missing: None}
    assert not look_once(2 * times, times, margin=0.02, alpha=0.001, **references).is_relative


@pytest.mark.parametrize("n", [2, 6, 20])
def test_the_error_of_a_look_has_the_scatter_of_both_nights_and_of_processes(n):
    ours = np.exp(np.random.default_rng(1).normal(0.0, 0.02, n))
    theirs = np.exp(np.random.default_rng(2).normal(0.0, 0.01, n))
    known = LookSpread(times=Spread(sd=0.003, n=30))
    found = look_once(ours, theirs, margin=0.02, alpha=0.001, spread=known)
    of_median = math.pi / 2  # variance of a median over that of a mean, in a normal distribution
    variance = 2 * 0.003**2
    for side in (ours, theirs):
        low, high = np.quantile(np.log(side), [0.25, 0.75])
        variance += of_median * ((high - low) / 1.349) ** 2 / n
    half = stats.t.isf(MISS, 29) * math.sqrt(variance)
    assert math.log(found.high / found.ratio) == pytest.approx(half, rel=0.01)
    assert math.log(found.ratio / found.low) == pytest.approx(half, rel=0.01)
