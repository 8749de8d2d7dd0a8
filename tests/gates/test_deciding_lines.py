"""Lines that decide, each with the case that tells it from its neighbours; mutants of them survived other tests."""

from dataclasses import replace

import numpy as np
import pytest
from comparison_records import accuracy_with, latency_with, record_with

from harness.errors import MeasurementError
from harness.gates import Candidate, Evidence, JudgeOptions, find_gate, judge_records, list_gates, subject_from_record
from harness.gates._times import _is_open
from harness.records import EffectivePrecision, Outcome, Status
from harness.specs import Case, ModelSpec, ModelTensors, Precision, Tolerance
from harness.stats import Ratio, cases_that_could_alarm, low_margin_agreement, mcnemar_p, mcnemar_power
from harness.stats.looking import Looked
from harness.stats.pairs import LOOKS, judge_comparisons
from harness.stats.throughput import summarize_throughput

READING = {"baseline", "joint", "latency", "metric_baseline", "precision", "presence"}
# gate -> whether it is asked of: FP32 of the reference backend, FP32 of another, INT8, INT8 that is only timed
APPLIES = {
    "presence": (True, True, True, True),
    "chance": (True, True, False, False),
    "floor": (True, True, True, False),
    "fp32": (False, False, True, False),
    "reference": (False, True, True, False),
    "kernel": (False, False, True, False),
    "baseline": (True, True, True, False),
    "joint": (True, True, True, False),
    "latency": (True, True, True, True),
    "speedup": (False, False, True, True),
}


def candidate(backend, precision, *, timing_only=False):
    recipe = "none" if precision is Precision.FP32 else "qdq-minmax"
    case = Case(model="m", backend=backend, precision=precision, recipe=recipe)
    return Candidate(case=case, writes="nothing" if recipe == "none" else "qdq", timing_only=timing_only)


@pytest.mark.parametrize("name", APPLIES)
def test_a_gate_is_asked_of_the_cases_that_it_is_for(name):
    asked = [
        candidate("ort", Precision.FP32),
        candidate("openvino", Precision.FP32),
        candidate("openvino", Precision.INT8),
        candidate("openvino", Precision.INT8, timing_only=True),
    ]
    assert tuple(find_gate(name).applies(one) for one in asked) == APPLIES[name]


ROLES = {  # in the order of judging: the reason of a red case is that of its first gate
    "presence": (1, {"judges_absent", "reads_baseline"}),
    "chance": (5, {"judges_outputs"}),
    "floor": (10, {"judges_outputs"}),
    "invariance": (20, set()),
    "precision": (25, {"in_family", "judges_alone", "reads_baseline"}),
    "fp32": (30, {"in_family", "judges_outputs"}),
    "reference": (40, {"in_family", "judges_outputs"}),
    "drift": (45, {"in_family", "judges_outputs"}),
    "kernel": (50, {"in_family", "judges_outputs"}),
    "metric": (55, {"in_family", "judges_outputs"}),
    "baseline": (60, {"in_family", "is_exact", "judges_outputs", "reads_baseline"}),
    "metric_baseline": (62, {"in_family", "judges_outputs", "reads_baseline"}),
    "joint": (65, {"in_family", "judges_outputs", "reads_baseline"}),
    "latency": (70, {"in_family", "judges_times", "reads_baseline"}),
    "speedup": (75, {"judges_times"}),
    "buildtime": (80, {"in_family", "reads_baseline"}),
    "enginesize": (82, {"in_family", "reads_baseline"}),
    "memory": (84, {"in_family", "reads_baseline"}),
}
FLAGS = (
    "in_family",
    "is_exact",
    "judges_absent",
    "judges_alone",
    "judges_outputs",
    "judges_times",
    "reads_baseline",
)


def test_what_a_gate_says_of_itself_decides_how_it_is_judged():
    found = {gate.name: (gate.order, {flag for flag in FLAGS if getattr(gate, flag)}) for gate in list_gates()}
    assert found == ROLES
    assert list(found) == list(ROLES)


def test_these_gates_read_a_baseline_and_none_of_them_is_asked_without_one_unless_it_judges_alone():
    reading = {gate.name for gate in list_gates() if gate.reads_baseline}
    assert reading >= READING
    asked = {gate.name for gate in list_gates() if JudgeOptions(baseline="ignore").asks(gate)}
    assert reading & asked == {gate.name for gate in list_gates() if gate.reads_baseline and gate.judges_alone}


def test_nothing_is_compared_with_a_reference_where_either_was_not_scored():
    scored, timed = record_with(accuracy_with(n=300), backend="openvino"), record_with(None, backend="openvino")
    judge = find_gate("reference").judge
    assert judge(Evidence(record=timed, reference=record_with(accuracy_with(n=300)))) == ()
    assert judge(Evidence(record=scored, reference=record_with(None))) == ()
    assert judge(Evidence(record=scored)) == ()


def test_a_baseline_without_times_is_none_for_times():
    record = record_with(accuracy_with(n=300), latencies=(latency_with(),))
    stored = subject_from_record(replace(record, latencies=()), "the baseline")
    (verdict,) = find_gate("latency").judge(Evidence(record=record, stored=stored))
    assert verdict.outcome is Outcome.NO_BASELINE


@pytest.mark.parametrize(("share", "code"), [(1.0, "as_asked"), (0.99, "not_as_asked")])
def test_all_layers_as_asked_is_as_asked(share, code):
    effective = EffectivePrecision(by_layer={"fp32": share, "fp16": 1 - share})
    (verdict,) = find_gate("precision").judge(Evidence(record=record_with(None, effective_precision=effective)))
    assert verdict.code == code


def test_no_slowdown_at_all_may_be_accepted_and_less_than_none_may_not():
    stored = record_with(None, latencies=(latency_with(),), timing_only=True)
    for margin, status in ((0.0, Status.PASSED), (-0.1, Status.ERROR)):
        record = replace(stored, tolerance=Tolerance(max_slowdown=margin))
        baselines = {record.key: subject_from_record(stored, "the baseline")}
        (judged,) = judge_records([record], baselines, JudgeOptions(gates=frozenset({"latency"})))
        assert judged.status is status, judged.reason


def test_cases_lose_together_whatever_objects_hold_the_names_of_their_images():
    """Fingerprints that were read from files are equal, and not the same object."""
    records, baselines = [], {}
    for number, backend in enumerate(("ort", "openvino", "trt")):
        lost = range(100 + 8 * number, 108 + 8 * number)
        before = replace(accuracy_with(n=4000, wrong=range(100)), fingerprint="".join(["ab"] * 32))
        after = replace(accuracy_with(n=4000, wrong=[*range(100), *lost]), fingerprint="".join(["ab"] * 32))
        record = record_with(after, backend=backend, status=Status.NOT_JUDGED)
        records.append(record)
        baselines[record.key] = subject_from_record(record_with(before, backend=backend), "the baseline")
    judged = judge_records(records, baselines, JudgeOptions(gates=frozenset({"joint"})))
    assert {record.status for record in judged} == {Status.FAILED}


def test_few_lost_images_of_many_cases_leave_none_that_could_alarm():
    """Tarone: five tests of which none reaches alpha / 3."""
    assert not cases_that_could_alarm([0.02] * 5, 0.05).any()
    assert cases_that_could_alarm([0.02, 0.9], 0.05).tolist() == [True, False]


@pytest.mark.parametrize(("lost", "gained"), [(-1, 3), (3, -1)])
def test_counts_below_none_are_refused(lost, gained):
    with pytest.raises(MeasurementError, match="are not counts"):
        mcnemar_p(lost, gained)


def test_no_image_is_gained_unless_somebody_says_so():
    assert mcnemar_power(0.01, n=1000, alpha=0.01) == mcnemar_power(0.01, n=1000, alpha=0.01, gain_rate=0.0)


@pytest.mark.parametrize("n_pairs", [LOOKS[-1] - 1, LOOKS[-1] + 1])
def test_comparisons_of_another_number_of_pairs_are_refused(n_pairs):
    with pytest.raises(MeasurementError, match="expected \\[comparisons, 16\\]"):
        judge_comparisons(np.zeros((2, n_pairs)), margin=0.02, alpha=0.01)


@pytest.mark.parametrize(("low", "high", "has"), [(0.9, 1.1, True), (None, 1.1, False), (0.9, None, False)])
def test_a_ratio_has_an_interval_where_it_has_both_ends(low, high, has):
    assert Ratio(value=1.0, low=low, high=high, n_rounds=9).has_interval is has


@pytest.mark.parametrize(("rates", "spans"), [([0.0], [1.0]), ([1.0], [0.0]), ([], [1.0]), ([1.0], [])])
def test_rates_and_spans_are_above_0(rates, spans):
    with pytest.raises(MeasurementError):
        summarize_throughput(np.asarray(rates), np.asarray(spans))


@pytest.mark.parametrize("other", [0, 2])
def test_an_unsure_image_agrees_only_where_the_classes_are_equal(other):
    margins, reference, now = np.linspace(0, 1, 20).astype(np.float32), np.ones(20, int), np.ones(20, int)
    now[0] = other
    assert low_margin_agreement(reference, now, margins) == 0.5


@pytest.mark.parametrize(("high", "is_open"), [(1.0, False), (0.999, True)])
def test_of_an_upgrade_pairs_are_timed_where_all_of_the_interval_is_faster(high, is_open):
    looked = Looked(
        is_suspicious=False,
        is_relative=False,
        ratio=0.97,
        low=0.95,
        high=high,
        p_value=1.0,
        detectable=0.05,
        ratio_of_times=0.97,
    )
    assert _is_open(looked, is_beside=True) is is_open
    assert not _is_open(looked, is_beside=False)
    assert _is_open(replace(looked, is_suspicious=True), is_beside=False)


def test_a_candidate_is_what_its_model_is():
    values = {"name": "m", "onnx_path": "m.onnx", "sha256": "", "input_name": "x", "input_shape": (1, 4, 4)}
    classifier = ModelSpec(**values, output_name="y", num_classes=10)
    graph = replace(classifier, tensors=ModelTensors(inputs=(), outputs=()))
    case = candidate("ort", Precision.FP32).case
    found = [Candidate.of_model(case, one, writes="qdq", has_metrics=True) for one in (classifier, graph)]
    assert [one.runs_samples for one in found] == [False, True]
    assert {(one.case, one.writes, one.has_metrics, one.is_onnx, one.timing_only) for one in found} == {
        (case, "qdq", True, True, False)
    }
    timed = Candidate.of_model(case, replace(classifier, timing_only=True), writes="cast", has_metrics=False)
    assert (timed.timing_only, timed.writes, timed.has_metrics) == (True, "cast", False)
