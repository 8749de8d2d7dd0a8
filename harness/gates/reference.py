"""Gate: an engine agrees with FP32 on the reference backend, so that a wrong build of FP32 itself cannot hide."""

from __future__ import annotations

from harness.gates._accuracy import excused, judge_against_reference_backend
from harness.gates._gate import Candidate, Evidence, Gate
from harness.records import Verdict
from harness.specs import REFERENCE_BACKEND, Precision


def applies(candidate: Candidate) -> bool:
    """Tell whether there is another engine to compare with: the reference itself has none."""
    is_reference = candidate.is_source and candidate.case.backend == REFERENCE_BACKEND
    return not is_reference and not candidate.timing_only and candidate.is_onnx


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge the loss against the reference backend image by image."""
    record, reference = evidence.record, evidence.reference
    if record.accuracy is None or reference is None or reference.accuracy is None:
        return ()
    source = "FP32" if reference.case.precision is Precision.FP32 else "its file"
    verdict = judge_against_reference_backend(
        record.accuracy, reference.accuracy, tolerance=record.tolerance, source=source
    )
    return (excused(verdict) if record.expects_loss else verdict,)


GATE = Gate(
    name="reference",
    summary="every engine agrees with FP32 on the reference backend",
    needs=("accuracy", "reference"),
    applies=applies,
    judge=judge,
    order=40,
    in_family=True,
    judges_outputs=True,
)
