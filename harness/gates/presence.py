"""Gate: a case that has a baseline still runs; what was there and is gone is not a pass."""

from __future__ import annotations

from harness.gates._gate import Evidence, Gate
from harness.records import Outcome, Verdict


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge a case that did not run though a baseline of it is stored; one that ran gets no verdict."""
    record = evidence.record
    reason = record.absent or record.unsupported
    if not reason or not record.baseline_parts:
        return ()
    return (
        Verdict(
            gate=GATE.name,
            outcome=Outcome.INCOMPARABLE,
            code="did_not_run",
            message=f"expected, did not run: {reason}; its baseline holds {' and '.join(record.baseline_parts)}",
            advice=f"bring it back, or give it up: harness baseline prune --case {record.case.id}",
            # Times are accepted of one type of device: it ran here. Predictions may be another machine's.
            is_failure="times" in record.baseline_parts,
        ),
    )


GATE = Gate(
    name="presence",
    summary="a case that has a baseline still runs",
    needs=(),
    applies=lambda candidate: True,
    judge=judge,
    order=1,
    reads_baseline=True,
    judges_absent=True,
)
