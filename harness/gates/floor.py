"""Gate: top-1 is not below the lowest acceptable rate."""

from __future__ import annotations

from harness.gates._accuracy import judge_floor
from harness.gates._gate import Evidence, Gate
from harness.records import Verdict


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge top-1 against the case's floor; without one the verdict only states the rate."""
    record = evidence.record
    if record.accuracy is None:
        return ()
    floor = 0.0 if record.tolerance.floor is None else record.tolerance.floor
    return (judge_floor(record.accuracy, floor, alpha=record.tolerance.alpha),)


GATE = Gate(
    name="floor",
    summary="top-1 is not below the lowest acceptable rate",
    needs=("accuracy",),
    applies=lambda candidate: not candidate.timing_only,
    judge=judge,
    order=10,
    judges_outputs=True,
)
