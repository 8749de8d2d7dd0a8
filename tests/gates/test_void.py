"""A time counts only if the outputs were right: what is void is judged by no gate of times, and fails its case."""

from dataclasses import replace

import pytest
from comparison_records import latency_with, pair_with, record_with
from render_records import make_run

from harness.gates import JudgeOptions, answer_of, judge_records, subject_from_record
from harness.records import Outcome, Precision, Status
from harness.report.rows import rows_from_records
from harness.report.tables import frame_from_rows
from harness.run.accepting import is_complete
from harness.store.baselines import BaselineStore
from harness.store.nights import values_of

WRONG = "its outputs before timing are not those that were scored: they differ by up to 1, accepted 0.1"
VOID = latency_with(batch_size=8, void=WRONG)


def judged(record, *others, stored=None, gates=("latency", "speedup", "baseline", "fp32", "invariance"), **options):
    baselines = {} if stored is None else {record.key: subject_from_record(stored, "the baseline")}
    asked = JudgeOptions(gates=frozenset(gates), **options)
    return judge_records([record, *others], baselines, asked)[0]


def regressed(**changes):
    before, now = pair_with(lost=400, gained=0)
    latencies = (latency_with(), latency_with(batch_size=8))
    stored = record_with(before, latencies=latencies)
    return record_with(now, latencies=latencies, status=Status.NOT_JUDGED, **changes), stored


def test_a_void_time_fails_its_case_and_the_other_batch_sizes_are_judged():
    stored = record_with(latencies=(latency_with(), latency_with(batch_size=8)))
    record = judged(record_with(latencies=(latency_with(), VOID)), stored=stored, gates=("latency",))
    by_batch = {v.message.split(":")[0]: v for v in record.verdicts}
    assert by_batch["batch 1"].outcome is Outcome.SAME
    void = by_batch["batch 8"]
    assert (void.code, void.outcome, void.is_failure) == ("void", Outcome.INCOMPARABLE, True)
    assert void.value is None, "a void time is told nowhere"
    assert (record.status, record.reason) == (Status.FAILED, f"batch 8: the time is void: {WRONG}")


def test_a_void_time_fails_its_case_whichever_gates_are_asked():
    for gates, options in (((), {}), (("latency",), {"baseline": "ignore"})):
        record = judged(record_with(latencies=(VOID,)), gates=gates, **options)
        assert (record.status, record.reason) == (Status.FAILED, f"batch 8: the time is void: {WRONG}")
        assert not record.verdicts


def test_a_time_that_is_void_itself_fails_beside_a_loss():
    record, stored = regressed()
    record = judged(replace(record, latencies=(latency_with(), VOID)), stored=stored)
    of_times = {v.batch_size: v.is_failure for v in record.verdicts if v.gate == "latency"}
    assert of_times == {1: False, 8: True}
    assert answer_of(record, "latency").no_times == ""


def test_a_void_time_has_no_speed_up():
    record = judged(record_with(precision=Precision.INT8, latencies=(VOID,)), gates=("speedup",))
    assert [(v.code, v.value, v.is_failure) for v in record.verdicts] == [("void", None, True)]


def test_a_case_whose_accuracy_regressed_has_void_times():
    record, stored = regressed()
    record = judged(record, stored=stored)
    assert record.times_void.startswith("what it scored is not right (baseline: ")
    assert record.valid_latencies == ()
    of_times = [v for v in record.verdicts if v.gate == "latency"]
    assert [(v.code, v.is_failure, v.value) for v in of_times] == [("void", False, None)] * 2, "one loss is one failure"
    assert [v.gate for v in record.verdicts if v.is_failure] == ["baseline"]
    assert answer_of(record, "latency").no_times.startswith("batch 1: the time is void: what it scored is not right")
    assert record.status is Status.FAILED
    assert record.reason == next(v.message for v in record.verdicts if v.gate == "baseline"), "the cause comes first"


def test_what_was_void_is_judged_anew():
    record, stored = regressed()
    void = judged(record, stored=stored)
    again = judged(void, stored=replace(void, times_void=""))  # against itself nothing is lost
    assert again.times_void == ""
    assert [v.outcome for v in again.verdicts if v.gate == "latency"] == [Outcome.SAME] * 2


@pytest.mark.parametrize("strict", [False, True])
def test_what_is_not_regressed_keeps_its_times(strict):
    before, now = pair_with(lost=2, gained=0)
    stored = record_with(before, latencies=(latency_with(),))
    record = record_with(now, latencies=(latency_with(),))
    assert judged(record, stored=stored, strict=strict).times_void == ""


def test_a_baseline_takes_no_void_time(tmp_path):
    record, stored = regressed()
    store = BaselineStore(tmp_path)
    void = judged(record, stored=stored)
    assert [path.parts[-4] for path in store._files_of(void, accepted_by="a", accepted_at="b")] == ["predictions"]
    half = record_with(record.accuracy, latencies=(latency_with(), VOID))
    times = store._files_of(half, accepted_by="a", accepted_at="b")[store.times_path(half)]
    assert [latency.batch_size for latency in times.latencies] == [1]
    assert not is_complete(judged(half, gates=("latency",)))


def test_a_void_time_is_shown_nowhere():
    record = judged(record_with(latencies=(latency_with(), VOID)), gates=("latency",))
    (row,) = rows_from_records([record])
    told = [(timing.summary is None, timing.speed_up is None, timing.problem) for timing in row.timings]
    assert told == [(False, False, ""), (True, True, f"void: {WRONG}")]
    assert [value.metric.batch_size for value in values_of(record) if value.metric.name == "p50_ns"] == [1]
    frame = frame_from_rows([row])
    assert frame.p50_ns.notna().tolist() == [True, False]
    assert frame.latency_problem.tolist()[1] == f"void: {WRONG}"


def test_a_void_time_of_the_previous_run_is_not_compared_with():
    later = replace(record_with(latencies=(latency_with(batch_size=8),)), status=Status.PASSED)
    for earlier, is_told in ((VOID, False), (latency_with(batch_size=8), True)):
        (row,) = rows_from_records([later], previous=(make_run(1)[0], [record_with(latencies=(earlier,))]))
        assert (row.timings[0].previous is not None) is is_told
