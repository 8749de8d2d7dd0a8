"""The gate `invariance`: a batch size is advised only when it was held against what the outputs should be."""

from dataclasses import replace

import pytest
from comparison_records import accuracy_with, latency_with, record_with

from harness.gates import JudgeOptions, judge_records
from harness.records import InvarianceCheck, SizeCheck, Status

LEAK = InvarianceCheck(
    name="batch_size",
    n_arrangements=3,
    n_rows=48,
    largest_gap=0.5,
    accepted_gap=0.1,
    worst="batch 8",
    n_changed=3,
)


def sizes(**gaps):
    return tuple(
        SizeCheck(batch_size=int(name[1:]), largest_gap=gap, accepted_gap=0.1, against="FP32 on ort")
        for name, gap in gaps.items()
    )


def verdicts(**changes):
    record = record_with(accuracy_with(n=300), status=Status.NOT_JUDGED, **changes)
    (judged,) = judge_records([record], {}, JudgeOptions(gates=frozenset({"invariance"})))
    return judged.verdicts


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ((), "no batch size is known to be right: compare with another backend before any is deployed"),
        (sizes(b1=0.5, b8=0.01, b100=0.01), "batch 8, 100 agrees with FP32 on ort, batch 1 does not"),
        (sizes(b1=0.01, b8=0.5), "batch 1 agrees with FP32 on ort, batch 8 does not"),
        (sizes(b1=0.5, b8=0.5), "no batch size agrees with FP32 on ort: do not deploy this engine"),
        (sizes(b1=0.01, b8=0.01), "in full batches, batch 1, 8 agrees with FP32 on ort: deploy no others"),
    ],
)
def test_advice_names_batch_sizes_that_are_known_to_be_right(found, told):
    (verdict,) = verdicts(invariance=(LEAK,), sizes=found)
    assert verdict.is_failure
    assert verdict.advice == f"a result depends on the rest of its batch; {told}"


def test_what_holds_needs_no_advice():
    (verdict,) = verdicts(invariance=(replace(LEAK, largest_gap=0.01),))
    assert (verdict.is_failure, verdict.advice) == (False, "")


def test_a_timed_engine_that_gives_other_outputs_than_were_scored_fails():
    good, bad = latency_with(), latency_with(batch_size=8, void="its outputs are not those that were scored")
    (verdict,) = verdicts(latencies=(good, bad))
    assert (verdict.code, verdict.is_failure) == ("not_as_scored", True)
    assert verdict.message == "batch 8: its outputs are not those that were scored"
