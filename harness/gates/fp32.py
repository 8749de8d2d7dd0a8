"""Gate: a lower precision loses no more than is accepted against FP32 on the same backend."""

from __future__ import annotations

from harness.gates._accuracy import judge_against_fp32
from harness.gates._gate import Evidence, Gate
from harness.records import Verdict


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge the loss against FP32 image by image."""
    record, fp32 = evidence.record, evidence.fp32
    if record.accuracy is None or fp32 is None or fp32.accuracy is None:
        return ()
    return (
        judge_against_fp32(
            record.accuracy, fp32.accuracy, tolerance=record.tolerance, expects_loss=record.expects_loss
        ),
    )


GATE = Gate(
    name="fp32",
    summary="a lower precision loses no more than is accepted against FP32 on the same backend",
    needs=("accuracy", "fp32"),
    applies=lambda candidate: not candidate.is_source and not candidate.timing_only,
    judge=judge,
    order=30,
    in_family=True,
    judges_outputs=True,
)
