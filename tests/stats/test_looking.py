"""The cheap look: what it lets pass, and what it sends on to pairs of processes."""

import numpy as np
import pytest

from harness.errors import MeasurementError
from harness.stats.looking import LookSpread, look_once
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
