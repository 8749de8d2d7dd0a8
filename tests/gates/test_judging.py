"""Judging is a function of records: the same records, baselines and options give the same verdicts."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from comparison_records import ENVIRONMENT, accuracy_with, latency_with, record_with
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ConfigError, MeasurementError
from harness.gates import (
    Gate,
    JudgeOptions,
    answer_of,
    find_gate,
    judge_records,
    list_gates,
    subject_from_record,
)
from harness.records import InvarianceCheck, Outcome, PackedArray, Record, Status
from harness.specs import Precision, Tolerance

N = 2_000
BEFORE_FP32 = ("presence", "chance", "floor", "invariance", "precision")
AFTER_FP32 = ("reference", "drift", "kernel", "metric", "baseline", "metric_baseline", "joint", "latency", "speedup")
COSTS = ("buildtime", "enginesize", "memory")
NAMES = (*BEFORE_FP32, "fp32", *AFTER_FP32, *COSTS)


def check(gap):
    return InvarianceCheck(
        name="slot", n_arrangements=2, n_rows=4, largest_gap=gap, accepted_gap=0.1, worst="slot 1", n_changed=1
    )


def int8_record(accuracy, **changes):
    record = record_with(accuracy, precision=Precision.INT8, weight_bits=8, status=Status.NOT_JUDGED, **changes)
    return replace(record, artifact=replace(record.artifact, precision=Precision.INT8))


@st.composite
def nights(draw):
    """A run of FP32 and INT8 on two backends, with baselines for some of its cases."""

    def scores():
        wrong = draw(st.integers(0, 120))
        first = draw(st.integers(0, 100))
        return accuracy_with(n=N, wrong=range(first, first + wrong))

    records, stored = [], {}
    for backend in ("ort", "openvino"):
        fp32 = record_with(scores(), backend=backend, status=Status.NOT_JUDGED, latencies=(latency_with(),))
        int8 = int8_record(scores(), backend=backend, emulation=scores(), expects_loss=draw(st.booleans()))
        floor, alpha = draw(st.sampled_from([None, 0.5, 0.97])), draw(st.sampled_from([0.001, 0.01]))
        for measured in (fp32, int8):
            record = replace(
                measured,
                tolerance=Tolerance(floor=floor, alpha=alpha),
                invariance=(check(draw(st.sampled_from([0.01, 0.5]))),),
                error=draw(st.sampled_from(["", "", "", "the worker crashed"])),
            )
            records.append(record)
            if draw(st.booleans()):
                stored[record.key] = subject_from_record(replace(record, accuracy=scores()), "the baseline")
    return records, stored


@given(night=nights(), strict=st.booleans(), baseline=st.sampled_from(["auto", "require", "ignore"]))
@settings(max_examples=60, deadline=None)
def test_records_read_back_from_disk_get_the_verdicts_they_got_in_the_run(night, strict, baseline):
    records, stored = night
    options = JudgeOptions(strict=strict, baseline=baseline)
    judged = judge_records(records, stored, options)
    read_back = [msgspec.json.decode(msgspec.json.encode(record), type=Record) for record in judged]
    assert judge_records(read_back, stored, options) == judged
    assert judge_records(list(reversed(records)), stored, options)[::-1] == judged, "the order of cases decides nothing"


def test_the_gates_there_are():
    assert tuple(gate.name for gate in list_gates()) == NAMES
    stored = {gate.name for gate in list_gates() if gate.reads_baseline}
    assert stored == {"presence", "precision", "baseline", "metric_baseline", "joint", "latency", *COSTS}
    assert {gate.name for gate in list_gates() if not gate.in_family} == {
        "presence",
        "chance",
        "floor",
        "invariance",
        "speedup",
    }
    assert all(gate.summary for gate in list_gates())


def test_an_unknown_gate_is_named():
    with pytest.raises(ConfigError, match="no gate is called 'flor'; there are: presence, chance, floor, "):
        find_gate("flor")


@pytest.mark.parametrize(("change", "says"), [({"name": "a b"}, "'a b'"), ({"needs": ("speed",)}, "'speed'")])
def test_a_gate_that_cannot_be_is_refused(change, says):
    good = {"name": "mine", "summary": "s", "needs": (), "applies": lambda c: True, "judge": lambda e: ()}
    with pytest.raises(ConfigError, match=says):
        Gate(**{**good, **change})


def test_only_the_gates_asked_are_judged():
    record = record_with(accuracy_with(), status=Status.NOT_JUDGED)
    (judged,) = judge_records([record], {}, JudgeOptions(gates=frozenset({"floor"})))
    assert [verdict.gate for verdict in judged.verdicts] == ["floor"]
    assert judged.status is Status.PASSED
    with pytest.raises(MeasurementError, match="gate baseline gave no verdict"):
        answer_of(judged, "baseline")


def test_a_case_is_compared_with_the_fp32_of_its_own_host():
    here = record_with(accuracy_with(n=N), status=Status.NOT_JUDGED)
    there = replace(here, environment=replace(ENVIRONMENT, n_cpus=64), accuracy=accuracy_with(n=N, wrong=range(400)))
    ours = int8_record(accuracy_with(n=N, wrong=range(400)))
    judged = judge_records([there, here, ours], {}, JudgeOptions(gates=frozenset({"fp32"})))
    assert [verdict.n_lost for verdict in judged[-1].verdicts] == [400]


def test_references_are_compared_with_and_not_judged():
    fp32 = record_with(accuracy_with(n=N), status=Status.NOT_JUDGED, is_reference=True)
    ours = int8_record(accuracy_with(n=N, wrong=range(400)))
    reference, judged = judge_records([fp32, ours], {}, JudgeOptions(gates=frozenset({"floor", "fp32"})))
    assert reference.verdicts == ()
    assert [verdict.gate for verdict in judged.verdicts] == ["floor", "fp32"]


def test_an_error_is_the_reason_whatever_else_was_found():
    bad = replace(record_with(accuracy_with(), status=Status.NOT_JUDGED), error="the worker crashed")
    (judged,) = judge_records([bad], {}, JudgeOptions())
    assert (judged.status, judged.reason) == (Status.ERROR, "the worker crashed")


def test_scores_that_contradict_themselves_are_an_error_of_their_case_alone():
    good = record_with(accuracy_with(n=N), status=Status.NOT_JUDGED)
    broken = replace(good.accuracy, top1_hits=accuracy_with(n=N, wrong=[1]).top1_hits)
    bad = record_with(broken, backend="openvino", status=Status.NOT_JUDGED)
    first, second = judge_records([good, bad], {}, JudgeOptions())
    assert first.status is Status.PASSED
    assert second.status is Status.ERROR
    assert "contradict" in second.reason


def shifted(offset, n=N):
    """A perfect model whose classes are counted from another number, as with a forgotten background class."""
    right = accuracy_with(n=n)
    labels = right.labels.array()
    predictions = ((labels + offset) % right.num_classes).astype(labels.dtype)
    hits = PackedArray.of(np.packbits(predictions == labels))
    return replace(right, predictions=PackedArray.of(predictions), top1_hits=hits, top5_hits=hits)


def chance_of(accuracy, **changes):
    record = record_with(accuracy, status=Status.NOT_JUDGED, **changes)
    (judged,) = judge_records([record], {}, JudgeOptions(gates=frozenset({"chance"})))
    return judged.verdicts[0]


def test_a_set_up_that_cannot_be_right_fails_and_names_the_likely_causes_in_order():
    verdict = chance_of(shifted(1))
    assert (verdict.code, verdict.is_failure) == ("no_better_than_chance", True)
    assert "top-1 0.00 % of 2000 images (Cohen's kappa" in verdict.message
    causes = ["label offset", "scale", "number of classes", "layout", "label file"]
    assert sorted(causes, key=verdict.advice.index) == causes
    assert not chance_of(shifted(1), allows_chance=True).is_failure
    assert not chance_of(shifted(1, n=99)).is_failure
    assert chance_of(shifted(1, n=100)).is_failure


def test_a_model_that_is_better_than_chance_or_right_everywhere_holds():
    assert chance_of(accuracy_with(n=N, wrong=range(1_000))).code == "better_than_chance"
    assert chance_of(accuracy_with(n=N)).outcome is Outcome.SAME


def test_a_gate_that_raises_is_an_error_of_its_case_and_of_no_other(monkeypatch):
    invariance = find_gate("invariance")

    def judge(evidence):
        if evidence.record.case.backend == "ort":
            raise AttributeError("no such thing")
        return invariance.judge(evidence)

    mine = Gate(name="mine", summary="", needs=(), applies=lambda candidate: True, judge=judge)
    monkeypatch.setattr("harness.gates.list_gates", lambda: (mine,))
    records = [
        record_with(accuracy_with(n=N), backend=backend, status=Status.NOT_JUDGED, invariance=(check(0.01),))
        for backend in ("ort", "openvino")
    ]
    broken, fine = judge_records(records, {}, JudgeOptions())
    assert (broken.status, broken.reason) == (Status.ERROR, "mine: AttributeError: no such thing")
    assert fine.status is Status.PASSED
    with pytest.raises(MeasurementError, match="gate mine gave no verdict: mine: AttributeError"):
        answer_of(broken, "mine")


@pytest.mark.parametrize("expects_loss", [True, False])
def test_a_planted_victim_s_loss_is_stated_and_not_failed(expects_loss):
    fp32 = record_with(accuracy_with(n=N), status=Status.NOT_JUDGED)
    ours = int8_record(accuracy_with(n=N, wrong=range(400)), expects_loss=expects_loss, backend="ort")
    judged = judge_records([fp32, ours], {}, JudgeOptions(gates=frozenset({"fp32", "reference"})))[1]
    assert {verdict.code for verdict in judged.verdicts} == {"expected_loss" if expects_loss else "loss_beyond_margin"}
    assert judged.status is (Status.PASSED if expects_loss else Status.FAILED)


@pytest.mark.parametrize("can_keep_float", [True, False])
def test_keeping_nodes_in_float_is_advised_where_the_recipe_lets_them_be(can_keep_float):
    fp32 = record_with(accuracy_with(n=N), status=Status.NOT_JUDGED)
    lossy = {"emulation": accuracy_with(n=N)}  # of the kernels alone
    ours = int8_record(accuracy_with(n=N, wrong=range(400)), **lossy)
    ours = replace(ours, artifact=replace(ours.artifact, can_keep_float=can_keep_float))
    judged = judge_records([fp32, ours], {}, JudgeOptions(gates=frozenset({"fp32", "kernel"})))[1]
    assert {verdict.code for verdict in judged.verdicts} == {"loss_beyond_margin", "kernel_loss"}
    assert all(("--keep-float" in verdict.advice) == can_keep_float for verdict in judged.verdicts)
    even = replace(ours, accuracy=accuracy_with(n=N))
    judged = judge_records([fp32, even], {}, JudgeOptions(gates=frozenset({"fp32", "kernel"})))[1]
    assert not any("--keep-float" in verdict.advice for verdict in judged.verdicts)


def test_a_split_of_the_loss_is_part_of_judging():
    fp32 = record_with(accuracy_with(n=N), status=Status.NOT_JUDGED)
    ours = int8_record(accuracy_with(n=N, wrong=range(40)), emulation=accuracy_with(n=N, wrong=range(30)))
    judged = judge_records([fp32, ours], {}, JudgeOptions())[1]
    assert (judged.loss_split.quantization_lost, judged.loss_split.kernel_lost) == (30, 10)


def test_all_cases_share_one_false_alarm_rate():
    backends = [f"b{index}" for index in range(30)]
    records, stored = [], {}
    for index, backend in enumerate(backends):
        lost = 11 if index == 0 else 0
        record = record_with(accuracy_with(wrong=range(lost)), backend=backend, status=Status.NOT_JUDGED)
        records.append(record)
        moved = range(5_000, 5_011) if index else ()
        stored[record.key] = subject_from_record(replace(record, accuracy=accuracy_with(wrong=moved)), "the baseline")
        if index:
            records[-1] = replace(record, accuracy=accuracy_with(wrong=range(12)))
    options = JudgeOptions(gates=frozenset({"baseline"}))
    alone = judge_records(records[:1], stored, options)
    together = judge_records(records, stored, options)
    assert alone[0].verdicts[0].outcome is Outcome.REGRESSED
    assert together[0].verdicts[0].outcome is Outcome.INCONCLUSIVE
    assert "30 tests" in together[0].verdicts[0].message


def test_a_suite_reads_one_answer_of_several_verdicts():
    record = replace(record_with(accuracy_with(n=N), status=Status.NOT_JUDGED), invariance=(check(0.01), check(0.5)))
    (judged,) = judge_records([record], {}, JudgeOptions())
    answer = answer_of(judged, "invariance")
    assert not answer.ok
    assert answer.message.startswith("slot: outputs of 4 rows")
    assert len(answer.verdicts) == 2
    assert np.count_nonzero([verdict.ok for verdict in answer.verdicts]) == 1
