"""Gate: a task's metric loses no more than is accepted against FP32, on the same backend and on the reference."""

from __future__ import annotations

from harness.gates._accuracy import excused, with_expected_loss
from harness.gates._gate import Candidate, Evidence, Gate
from harness.gates._samples import judge_samples
from harness.records import Record, Verdict
from harness.specs import REFERENCE_BACKEND, Precision


def applies(candidate: Candidate) -> bool:
    """Tell whether there is another engine to compare with: the reference itself has none."""
    is_reference = candidate.is_source and candidate.case.backend == REFERENCE_BACKEND
    return candidate.has_metrics and not is_reference and (candidate.is_onnx or not candidate.is_source)


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge the leading metric sample by sample: against FP32 of the same backend, and of the reference backend."""
    record, fp32, reference = evidence.record, evidence.fp32, evidence.reference
    if record.samples is None:
        return ()
    verdicts: list[Verdict] = []
    if fp32 is not None and fp32.case != record.case:
        found = _judge(record, fp32, against="FP32")
        verdicts += [with_expected_loss(verdict) if record.expects_loss else verdict for verdict in found]
    if reference is not None and reference.case not in (record.case, fp32.case if fp32 else None):
        source = "FP32" if reference.case.precision is Precision.FP32 else "its file"
        found = _judge(record, reference, against=f"{source} on {REFERENCE_BACKEND}")
        verdicts += [excused(verdict) if record.expects_loss else verdict for verdict in found]
    return tuple(verdicts)


def _judge(record: Record, other: Record, *, against: str) -> tuple[Verdict, ...]:
    ours, theirs, tolerance = record.samples, other.samples, record.tolerance
    if ours is None or theirs is None:
        return ()
    accepted, alpha = tolerance.max_drop, tolerance.alpha
    return (judge_samples(GATE.name, ours, theirs, accepted=accepted, alpha=alpha, against=against),)


GATE = Gate(
    name="metric",
    summary="a task's metric loses no more than is accepted against FP32, on the same backend and on the reference",
    needs=("samples", "samples_fp32", "samples_reference"),
    applies=applies,
    judge=judge,
    order=55,
    in_family=True,
    judges_outputs=True,
)
