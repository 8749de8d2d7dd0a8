"""Two sides' records -> verdicts that name both versions; a case that side B lost fails, one that it won is news."""

from dataclasses import replace

import numpy as np
import pytest
from comparison_records import ENVIRONMENT, accuracy_with, latency_with, record_with

from harness.errors import MeasurementError
from harness.gates import UpgradeSide, judge_upgrade
from harness.records import EffectivePrecision, Layer, Outcome, PackedArray, Replay, Status, percent
from harness.report.rows import rows_from_records
from harness.report.standing import Standing
from harness.report.upgrade import upgrade_lines
from harness.specs import Precision, Tolerance

OLD = {"onnxruntime": "1.30.0", "onnx": "1.23.2"}
NEW = {"onnxruntime": "1.32.0", "onnx": "1.23.2"}
UPGRADE = "onnxruntime 1.30.0 -> 1.32.0"


def sides(before=OLD, after=NEW, labels=("", "")):
    return (
        UpgradeSide(letter="a", versions={"ort": before} if before else {}, label=labels[0]),
        UpgradeSide(letter="b", versions={"ort": after} if after else {}, label=labels[1]),
    )


def measured(accuracy=None, **changes):
    return record_with(accuracy or accuracy_with(), status=Status.NOT_JUDGED, **changes)


def judged(before, after, named=None):
    return judge_upgrade(before, after, sides=named or sides())


def upgrade_text(record):
    (line,) = upgrade_lines(rows_from_records([record]))
    return line.text


def plain(text):
    return text.replace("\xa0", " ").replace("−", "-")


def test_identical_predictions_pass_in_words():
    (record,) = judged([measured()], [measured()])
    assert record.status is Status.PASSED
    assert plain(upgrade_text(record)) == f"{UPGRADE}: top-1 100.00 % unchanged, identical predictions"
    assert "of onnxruntime 1.30.0 on 10000 images" in record.verdicts[-1].message


def test_lost_images_regress_by_the_exact_test():
    (record,) = judged([measured()], [measured(accuracy_with(wrong=range(30)))])
    (line,) = upgrade_lines(rows_from_records([record]))
    assert line.standing is Standing.REGRESSED
    assert plain(line.text).startswith(f"{UPGRADE}: top-1 100.00 -> 99.70 % (-0.30 points; 30 lost, 0 gained of 10,000")
    assert {verdict.upgrade for verdict in record.verdicts} == {UPGRADE}


def test_gained_images_improve():
    (record,) = judged([measured(accuracy_with(wrong=range(30)))], [measured()])
    assert (record.status, record.verdicts[-1].outcome) == (Status.PASSED, Outcome.IMPROVED)


def test_a_loss_that_one_case_alone_would_alarm_for_is_judged_among_all():
    """Holm's correction over the cases of an upgrade, as over those of a night."""
    precisions = list(Precision)[:3]
    others = [measured(accuracy_with(wrong=range(11)), precision=p) for p in precisions]
    alone = judged([measured()], [measured(accuracy_with(wrong=range(11)))])
    before = [measured(precision=p) for p in precisions]
    together = judged(before, others)
    p_value = alone[0].verdicts[-1].p_value
    assert alone[0].status is Status.FAILED
    assert p_value * len(precisions) > alone[0].tolerance.alpha  # so none is beyond it among three
    codes = [verdict.code for record in together for verdict in record.verdicts if verdict.gate == "baseline"]
    assert codes == ["not_among_many"] * len(precisions)


def test_the_same_version_twice_is_named_twice():
    (record,) = judged([measured()], [measured()], sides(OLD, OLD))
    assert upgrade_text(record).startswith("onnxruntime 1.30.0 -> 1.30.0: ")


def test_labels_stand_before_the_versions():
    (record,) = judged([measured()], [measured()], sides(labels=("old", "")))
    assert upgrade_text(record).startswith("old (onnxruntime 1.30.0) -> onnxruntime 1.32.0: ")


def unsupported():
    return measured(unsupported="no fp16 kernels", accuracy=None, latencies=(), artifact=None)


@pytest.mark.parametrize(
    ("before", "after", "standing", "told"),
    [
        (measured(), replace(unsupported(), accuracy=None), Standing.FAILED, "side B ended in unsupported (no fp16"),
        (
            replace(unsupported(), accuracy=None),
            measured(),
            Standing.NOT_JUDGED,
            "side A ended in unsupported (no fp16",
        ),
        (measured(), replace(measured(), accuracy=None, error="it broke"), Standing.ERROR, "side B ended in error (it"),
        (
            replace(measured(), accuracy=None, error="it broke"),
            measured(),
            Standing.NOT_JUDGED,
            "side A ended in error",
        ),
    ],
)
def test_a_case_that_one_side_cannot_run_is_told(before, after, standing, told):
    (record,) = judged([before], [after])
    (line,) = upgrade_lines(rows_from_records([record]))
    assert line.standing is standing
    assert line.text.startswith(f"{UPGRADE}: {told}")
    assert any(verdict.is_failure for verdict in record.verdicts) is (standing in (Standing.FAILED, Standing.ERROR))


def test_what_neither_side_can_run_is_no_failure():
    (record,) = judged([replace(unsupported(), accuracy=None)], [replace(unsupported(), accuracy=None)])
    (line,) = upgrade_lines(rows_from_records([record]))
    assert line.standing is Standing.UNSUPPORTED
    assert not any(verdict.is_failure for verdict in record.verdicts)


def test_a_case_that_only_side_a_ran_is_lost_and_one_that_only_side_b_ran_is_news():
    other = measured(precision=Precision.INT8)
    lost, gained = judged([measured(), other], [measured()]), judged([measured()], [measured(), other])
    lines = {line.case_id: line for line in upgrade_lines(rows_from_records(lost))}
    assert lines["lenet5-ort-int8"].standing is Standing.FAILED
    assert lines["lenet5-ort-int8"].text == f"{UPGRADE}: in side A only; side B has no such case"
    lines = {line.case_id: line for line in upgrade_lines(rows_from_records(gained))}
    assert lines["lenet5-ort-int8"].standing is Standing.NOT_JUDGED
    assert lines["lenet5-ort-fp32"].standing is Standing.PASSED


def test_a_backend_that_one_side_lacks_is_named_so():
    ort, other = measured(), measured(backend="openvino")
    records = judged([ort], [ort, other])
    assert upgrade_text(records[1]).startswith("openvino: in side B only; side A has no such case")


def test_sides_without_a_common_case_are_an_error():
    with pytest.raises(MeasurementError, match="share no case"):
        judged([measured()], [measured(precision=Precision.INT8)])


def test_another_precision_than_on_side_a_is_told_without_naming_a_baseline():
    before, after = (
        measured(precision=Precision.INT8, effective_precision=EffectivePrecision(by_layer={ran: 1.0}))
        for ran in ("int8", "fp32")
    )
    (record,) = judged([before], [after])
    (line,) = upgrade_lines(rows_from_records([record]))
    assert line.standing is Standing.REGRESSED
    assert "in onnxruntime 1.30.0 100% ran in int8" in line.text
    assert not any("baseline" in verdict.advice for verdict in record.verdicts)


def test_the_environment_of_a_side_may_be_another_python():
    other = replace(ENVIRONMENT, python="3.13.1", versions={"numpy": "1.26.4", "onnxruntime": "1.32.0"})
    (record,) = judged([measured()], [measured(environment=other)])
    assert record.status is Status.PASSED


# -- times


def timed(scale=1.0, *, seed=1, n_rounds=20, relative=None, size=1, **changes):
    noise = np.random.default_rng(seed).lognormal(0, 0.001, n_rounds)
    reference = None if relative is None else PackedArray.of(2e5 * relative * noise[:, None])
    return latency_with(
        1e5 * size * scale * noise,
        batch_size=size,
        reference_rounds_ns=reference,
        reference_case="" if relative is None else "lenet5-ort-fp32",
        **changes,
    )


def pairs_of(ratio, *, control=1.0, n=16, sd=0.001):
    """Pairs of processes in which side B takes `ratio` of side A, and A takes `control` of its own look."""
    rng = np.random.default_rng(3)
    logs = np.log(ratio) + sd * rng.standard_normal(n)
    control_ns = np.full(n, 1e5 * control)
    return Replay(
        batch_size=1,
        alpha=1e-3,
        log_ratios=PackedArray.of(logs),
        candidate_ns=PackedArray.of(control_ns * np.exp(logs)),
        control_ns=PackedArray.of(control_ns),
    )


def judged_times(ours, *, theirs=None, margin=0.02, replays=(), versions=(OLD, NEW), accuracy=None):
    before, after = (replace(ENVIRONMENT, versions=one) for one in versions)
    (record,) = judged(
        [measured(latencies=(theirs or timed(seed=2),), environment=before)],
        [
            measured(
                accuracy,
                latencies=ours if isinstance(ours, tuple) else (ours,),
                environment=after,
                tolerance=Tolerance(max_slowdown=margin),
                replays=replays,
            )
        ],
    )
    times = [verdict for verdict in record.verdicts if verdict.gate == "latency"]
    assert {verdict.upgrade for verdict in times} == {UPGRADE}
    return record, times


def test_a_slower_version_regresses_by_pairs_and_its_line_says_so():
    record, (verdict,) = judged_times(timed(1.1), replays=(pairs_of(1.1),))
    (line,) = upgrade_lines(rows_from_records([record]))
    assert (record.status, verdict.outcome, verdict.p_value < 1e-3) == (Status.FAILED, Outcome.REGRESSED, True)
    assert line.standing is Standing.REGRESSED
    assert "; batch 1: 9.98 % slower than onnxruntime 1.30.0 timed again (" in line.text
    assert line.time(1).change == "+7.27 to +12.76 %"
    assert (line.time(1).sees, line.time(100)) == ("", None)


def test_a_pass_says_what_it_would_have_seen():
    record, (verdict,) = judged_times(timed(), margin=0.05)
    (line,) = upgrade_lines(rows_from_records([record]))
    assert (record.status, verdict.outcome) == (Status.PASSED, Outcome.SAME)
    assert line.time(1).sees == percent(verdict.detectable)
    assert "than onnxruntime 1.30.0 (" in verdict.message
    assert "one process each" in verdict.message


def test_a_slowdown_that_the_fp32_arm_shares_is_no_less_suspicious():
    """The arm runs on the new version too: relative to it, what slows both would be hidden."""
    _, (verdict,) = judged_times(timed(1.07, relative=1.07), theirs=timed(seed=2, relative=1.0))
    assert (verdict.outcome, verdict.code) == (Outcome.INCONCLUSIVE, "speed_unclear")
    assert "relative to FP32" not in verdict.message


def test_pairs_decide_whatever_the_machine_did_between_the_looks():
    """Side A itself took longer in the pairs than in its look: of a night that is the machine, here it is no matter."""
    record, (verdict,) = judged_times(timed(1.2), replays=(pairs_of(1.0, control=1.2),))
    assert (record.status, verdict.outcome, verdict.code) == (Status.PASSED, Outcome.SAME, "same_speed")
    _, (verdict,) = judged_times(timed(1.2), replays=(pairs_of(1.1, control=1.2),))
    assert verdict.outcome is Outcome.REGRESSED


def test_a_faster_version_is_told_by_pairs():
    record, (verdict,) = judged_times(timed(0.8), replays=(pairs_of(0.8),))
    assert (record.status, verdict.outcome, verdict.code) == (Status.PASSED, Outcome.IMPROVED, "faster")
    assert "20.01 % faster than onnxruntime 1.30.0 timed again (" in verdict.message


def test_looks_alone_never_decide_a_change():
    reason = Replay(batch_size=1, alpha=1e-3, reason="killed by signal 9")
    for replays in ((), (reason,)):
        _, (verdict,) = judged_times(timed(3.0), replays=replays)
        assert (verdict.outcome, verdict.is_failure) == (Outcome.INCONCLUSIVE, False)
    assert "not timed in pairs of processes: killed by signal 9" in verdict.message
    _, (faster,) = judged_times(timed(0.5))
    assert (faster.outcome, faster.code) == (Outcome.INCONCLUSIVE, "speed_unclear"), "nor do they improve"
    assert "--control-python" not in verdict.advice


def test_without_a_limit_times_are_shown_and_not_gated():
    record, (verdict,) = judged_times(timed(1.5), margin=None)
    assert (record.status, verdict.p_value, verdict.detectable) == (Status.PASSED, None, None)
    assert "not gated: run harness calibrate" in verdict.message


def test_too_few_rounds_are_not_gated():
    _, (verdict,) = judged_times(timed(1.5, n_rounds=5))
    assert "not gated: 5 rounds" in verdict.message


def test_times_are_void_where_images_were_lost():
    record, (verdict,) = judged_times(timed(1.1), replays=(pairs_of(1.1),), accuracy=accuracy_with(wrong=range(30)))
    assert (verdict.code, verdict.batch_size, verdict.is_failure) == ("void", 1, False)
    assert record.times_void
    (line,) = upgrade_lines(rows_from_records([record]))
    assert line.time(1).change == "void"


def test_times_that_side_a_has_not_are_told_without_naming_a_baseline():
    record, (verdict,) = judged_times(timed(), theirs=timed(size=100, seed=2))
    assert (verdict.code, verdict.message) == ("no_times", "batch 1: onnxruntime 1.30.0 holds no times of it")
    before = timed(seed=2, void="its outputs are not those that were scored")
    record, (verdict,) = judged_times(timed(), theirs=before)
    assert (verdict.code, verdict.advice) == ("no_times", "")
    assert record.status is Status.PASSED


@pytest.mark.parametrize(("n_cases", "code"), [(1, "slower"), (3, "not_among_many")])
def test_times_of_all_cases_share_one_false_alarm_rate(n_cases, code):
    """Slower beyond alpha alone, and not among three: Holm's correction over the times of an upgrade."""
    precisions = list(Precision)[:n_cases]
    before = [measured(precision=precision, latencies=(timed(seed=2),)) for precision in precisions]
    after = [
        measured(
            precision=precision,
            latencies=(timed(1.1),),
            replays=(pairs_of(1.045, sd=0.005),),
            tolerance=Tolerance(max_slowdown=0.02),
        )
        for precision in precisions
    ]
    found = judged(before, after)
    codes = [verdict.code for record in found for verdict in record.verdicts if verdict.gate == "latency"]
    assert codes == [code] * n_cases


def test_a_slower_version_is_the_change_and_other_kernels_are_named_beside_it():
    """Both versions stand before every verdict; other packages of the environments are no suspects."""
    record, (verdict,) = judged_times(
        timed(1.1), replays=(pairs_of(1.1),), versions=({**OLD, "openvino": "1"}, {**NEW, "openvino": "2"})
    )
    assert record.reason.startswith(f"{UPGRADE}: batch 1: 9.98 % slower than onnxruntime 1.30.0 timed again (")
    for words in ("openvino", "1.32.0", "changed", "build"):
        assert words not in verdict.message
    layers = [(Layer(name="conv", kind="Conv", kernel=name, precision="fp32"),) for name in ("one", "other")]
    (record,) = judged(
        [measured(latencies=(timed(seed=2),), layers=layers[0])],
        [
            measured(
                latencies=(timed(1.1),),
                layers=layers[1],
                replays=(pairs_of(1.1),),
                tolerance=Tolerance(max_slowdown=0.02),
            )
        ],
    )
    assert "changed since: the engine's layers or kernels" in record.reason
