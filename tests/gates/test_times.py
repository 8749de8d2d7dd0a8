"""Times against accepted ones: the cheap look, pairs of processes, the machine, the driver, the lost engine file."""

from dataclasses import replace

import numpy as np
import pytest
from comparison_records import ENVIRONMENT, latency_with, record_with

from harness.gates import JudgeOptions, judge_records, subject_from_record
from harness.gates._subjects import round_medians_from_latency
from harness.gates._times import accepted_slowdown, look_at
from harness.records import CPU, Layer, Outcome, PackedArray, Replay, Status, TimingBasis, TimingSpread
from harness.specs import Precision, Tolerance

QUIET = TimingSpread(batch_size=1, times_sd=0.003, times_n=40, pairs_sd=0.001, pairs_n=40, smallest_slowdown=0.004)
CALIBRATED = TimingBasis(calibrated_at="2026-11-20T02:00:00+00:00", spreads=(QUIET,))
ALPHA = 1e-4
TONIGHT = replace(ENVIRONMENT, driver="580.65")
NEW_DRIVER = replace(ENVIRONMENT, driver="590.10")
OTHER_KERNELS = (Layer(name="conv1", kind="Conv", kernel="another", precision="fp32"),)


def timed(scale=1.0, *, seed=1, n_rounds=20, relative=None):
    """A latency about 100 us; `relative`: how FP32 in turn with it was scaled, None for none."""
    noise = np.random.default_rng(seed).lognormal(0, 0.001, n_rounds)
    reference = None if relative is None else PackedArray.of(2e5 * relative * noise[:, None])
    return latency_with(
        1e5 * scale * noise,
        reference_rounds_ns=reference,
        reference_case="" if relative is None else "lenet5-ort-fp32",
    )


def replay_of(ratio, *, control=1.0, n=16, sd=0.001, seed=3, **changes):
    """Pairs in which tonight's engine takes `ratio` of the accepted one, which takes `control` of what was stored."""
    rng = np.random.default_rng(seed)
    logs = np.log(ratio) + sd * rng.standard_normal(n)
    control_ns = 1e5 * control * np.exp(0.001 * rng.standard_normal(n))
    return Replay(
        batch_size=1,
        alpha=ALPHA,
        control_sha256="c" * 64,
        log_ratios=PackedArray.of(logs),
        candidate_ns=PackedArray.of(control_ns * np.exp(logs)),
        control_ns=PackedArray.of(control_ns),
        **changes,
    )


NOT_REPLAYABLE = Replay(batch_size=1, alpha=ALPHA, reason="the accepted engine's file is gone")


def judge(ours, *, theirs=None, margin=0.02, basis=CALIBRATED, replay=None, environment=TONIGHT, **changes):
    stored_times = (theirs or timed(seed=2),)
    before = record_with(precision=Precision.INT8, latencies=stored_times, environment=TONIGHT)
    now = record_with(
        precision=Precision.INT8,
        latencies=(ours,),
        status=Status.NOT_JUDGED,
        tolerance=Tolerance(max_slowdown=margin),
        timing_basis=basis,
        replays=(replay,) if replay else (),
        environment=environment,
        **changes,
    )
    stored = {now.key: subject_from_record(before, "the baseline of 2026-11-20")}
    options = JudgeOptions(gates=frozenset({"latency"}))
    (judged,) = judge_records([now], stored, options)
    (verdict,) = judged.verdicts
    return verdict


def test_an_unchanged_engine_passes_by_the_look_alone_and_says_what_it_would_have_seen():
    verdict = judge(timed())
    assert (verdict.outcome, verdict.code, verdict.is_failure) == (Outcome.SAME, "same_speed", False)
    assert "one process each" in verdict.message
    assert "would have been looked into" in verdict.message
    assert verdict.p_value is not None
    assert 0.02 < verdict.detectable < 0.05


def test_a_faster_engine_is_told():
    assert judge(timed(0.9)).outcome is Outcome.IMPROVED


@pytest.mark.parametrize("margin", [None, 0.02], ids=["calibrated", "asked"])
def test_a_slow_engine_is_confirmed_by_pairs(margin):
    verdict = judge(timed(1.08), margin=margin, replay=replay_of(1.08))
    assert (verdict.outcome, verdict.code, verdict.is_failure) == (Outcome.REGRESSED, "slower", True)
    assert "7.98 % slower than the baseline of 2026-11-20 timed again" in verdict.message
    assert "pairs of processes" in verdict.message
    assert verdict.p_value <= ALPHA
    assert verdict.p_test == "Student's t on pairs of processes"


def test_the_changed_layers_are_named():
    verdict = judge(timed(1.05), replay=replay_of(1.05), layers=OTHER_KERNELS)
    assert "changed since: the engine's layers or kernels" in verdict.message


def test_a_slow_machine_is_no_slow_engine():
    verdict = judge(timed(1.05), replay=replay_of(1.0, control=1.05))
    assert (verdict.outcome, verdict.code, verdict.is_failure) == (Outcome.INCONCLUSIVE, "machine", False)
    assert "the accepted engine takes 5.01 % longer too; cause: the machine" in verdict.message


def test_an_accepted_engine_that_is_slower_by_less_than_the_margin_blames_no_machine():
    assert judge(timed(1.05), replay=replay_of(1.0, control=1.01)).code == "same_speed"


@pytest.mark.parametrize(
    ("is_relative", "case", "expected"),
    [(True, "lenet5-ort-fp32", 1.0), (False, "lenet5-ort-fp32", 1.05), (True, "a", 1.05)],
)
def test_times_are_looked_at_relative_to_one_and_the_same_arm(is_relative, case, expected):
    ours = round_medians_from_latency(replace(timed(1.05, relative=1.05), reference_case=case))
    theirs = round_medians_from_latency(timed(relative=1.0))
    found = look_at(ours, theirs, margin=0.02, alpha=ALPHA, basis=CALIBRATED, is_relative=is_relative)
    assert found.ratio == pytest.approx(expected, rel=1e-3)


def test_a_driver_that_slows_both_engines_is_the_cause():
    verdict = judge(timed(1.05), replay=replay_of(1.0, control=1.05), environment=NEW_DRIVER)
    assert (verdict.outcome, verdict.code, verdict.is_failure) == (Outcome.REGRESSED, "slower_by_change", True)
    assert "cause: driver 580.65 -> 590.10" in verdict.message


def test_the_machine_is_not_blamed_where_the_engine_is_another():
    verdict = judge(timed(1.05), replay=replay_of(1.0, control=1.05), layers=OTHER_KERNELS)
    assert (verdict.outcome, verdict.code) == (Outcome.INCONCLUSIVE, "both_slower")
    assert "cause: the machine" not in verdict.message


def test_a_false_suspicion_is_cleared_by_pairs():
    verdict = judge(timed(1.05), replay=replay_of(1.0))
    assert (verdict.outcome, verdict.code) == (Outcome.SAME, "same_speed")
    assert "would have been seen" in verdict.message


def test_pairs_that_scatter_too_much_decide_nothing():
    verdict = judge(timed(1.05), replay=replay_of(1.05, sd=0.2))
    assert (verdict.outcome, verdict.code, verdict.is_failure) == (Outcome.INCONCLUSIVE, "speed_unclear", False)


def test_too_few_pairs_are_no_verdict():
    assert judge(timed(1.05), replay=replay_of(1.05, n=3)).code == "speed_unclear"


def test_a_lost_engine_file_is_judged_by_stored_times_and_never_passed():
    verdict = judge(timed(1.2), replay=NOT_REPLAYABLE)
    assert (verdict.outcome, verdict.code, verdict.is_failure) == (Outcome.INCONCLUSIVE, "speed_unclear", False)
    assert "control not replayable: the accepted engine's file is gone" in verdict.message
    changed = judge(timed(1.2), replay=NOT_REPLAYABLE, environment=NEW_DRIVER)
    assert (changed.outcome, changed.code, changed.is_failure) == (Outcome.REGRESSED, "slower_than_stored", True)
    assert "driver 580.65 -> 590.10" in changed.message


def test_a_suspicion_without_a_replay_is_never_passed():
    assert judge(timed(1.05)).outcome is Outcome.INCONCLUSIVE


def test_a_slowdown_of_both_arms_is_looked_into():
    """Relative to FP32 nothing has changed, and yet every time is 20 % longer."""
    verdict = judge(timed(1.2, relative=1.2), theirs=timed(seed=2, relative=1.0))
    assert (verdict.outcome, verdict.code) == (Outcome.INCONCLUSIVE, "speed_unclear")
    held = judge(timed(1.02, relative=1.02), theirs=timed(seed=2, relative=1.0))
    assert (held.outcome, "relative to FP32" in held.message) == (Outcome.SAME, True)


@pytest.mark.parametrize("n_rounds", [1, 5])
def test_few_rounds_are_not_gated(n_rounds):
    verdict = judge(timed(28.0, n_rounds=n_rounds))
    assert (verdict.outcome, verdict.code, verdict.change_low) == (Outcome.INCONCLUSIVE, "too_few_rounds", None)
    assert f"not gated: {n_rounds} round" in verdict.message
    assert "2701.54 % slower" in verdict.message


def test_without_a_calibration_nothing_is_gated_that_was_not_asked():
    slow = judge(timed(1.2), margin=None, basis=TimingBasis())
    assert (slow.outcome, slow.code, slow.p_value) == (Outcome.INCONCLUSIVE, "slower_not_gated", None)
    assert "not gated: run harness calibrate" in slow.message
    assert judge(timed(), margin=None, basis=TimingBasis()).outcome is Outcome.SAME
    asked = judge(timed(1.2), margin=0.05, basis=TimingBasis(), replay=replay_of(1.2))
    assert asked.outcome is Outcome.REGRESSED
    assert "false-alarm rate not measured here" in asked.message


@pytest.mark.parametrize(
    ("device", "smallest", "accepted"), [(CPU, 0.004, 0.05), (CPU, 0.08, 0.08), ("cuda:0", 0.004, 0.02)]
)
def test_a_calibrated_device_has_a_default(device, smallest, accepted):
    spread = replace(QUIET, smallest_slowdown=smallest)
    record = record_with(latencies=(timed(),), timing_basis=replace(CALIBRATED, spreads=(spread,)))
    record = replace(record, case=replace(record.case, device=device))
    assert accepted_slowdown(record, 1) == accepted
    assert accepted_slowdown(record, 100) is None, "a batch size that was not calibrated is not gated"


@pytest.mark.parametrize(("slower", "faster", "fails"), [(0.3, -0.3, False), (-0.3, -0.3, True), (0.3, 0.3, True)])
def test_a_gate_that_sees_a_planted_slowdown_on_the_wrong_side_judges_nothing(slower, faster, fails):
    basis = replace(CALIBRATED, planted_slower=slower, planted_faster=faster)
    verdict = judge(timed(), basis=basis)
    assert verdict.is_failure is fails
    assert (verdict.code == "failed_its_own_check") is fails


def test_many_comparisons_share_one_false_alarm_rate():
    """A slow engine among 40 keeps its verdict: its pairs were tested at its share of alpha."""
    before = record_with(precision=Precision.INT8, latencies=(timed(seed=2),))
    records, stored = [], {}
    for index in range(40):
        case = replace(before.case, model=f"net{index}")
        slow = index == 7
        now = replace(
            record_with(
                precision=Precision.INT8,
                latencies=(timed(1.05 if slow else 1.0),),
                status=Status.NOT_JUDGED,
                tolerance=Tolerance(max_slowdown=0.02),
                timing_basis=CALIBRATED,
                replays=(replace(replay_of(1.05), alpha=0.001 / 40),) if slow else (),
            ),
            case=case,
        )
        records.append(now)
        stored[now.key] = replace(subject_from_record(before, "the baseline"), case=case)
    judged = judge_records(records, stored, JudgeOptions(gates=frozenset({"latency"})))
    assert [record.status is Status.FAILED for record in judged].count(True) == 1
    assert judged[7].verdicts[0].outcome is Outcome.REGRESSED
