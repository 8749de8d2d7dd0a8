"""Gate: the kernels of an INT8 engine lose nothing against the float emulation of its own Q/DQ file."""

from __future__ import annotations

from harness.gates._accuracy import judge_kernel_loss
from harness.gates._gate import Evidence, Gate
from harness.records import Verdict


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge what the engine's kernels lose, quantization apart."""
    record = evidence.record
    if record.accuracy is None or record.emulation is None:
        return ()
    return (judge_kernel_loss(record.accuracy, record.emulation, tolerance=record.tolerance),)


GATE = Gate(
    name="kernel",
    summary="the kernels lose nothing against the float emulation of the same Q/DQ file",
    needs=("accuracy", "emulation", "fp32"),
    applies=lambda candidate: candidate.writes == "qdq" and not candidate.timing_only,
    judge=judge,
    order=50,
    in_family=True,
    judges_outputs=True,
)
