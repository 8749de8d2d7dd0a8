"""Gate: predictions are those of the accepted baseline, or no worse than chance explains."""

from __future__ import annotations

from harness.gates._gate import Evidence, Gate
from harness.gates._stored import judge_predictions, no_baseline
from harness.records import Verdict


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge the predictions against what was stored."""
    record = evidence.record
    if record.accuracy is None:
        return ()
    if evidence.stored is None:
        return (no_baseline(record.case, stored_in=evidence.stored_in, gate=GATE.name),)
    return (judge_predictions(record, evidence.stored, gate=GATE.name),)


GATE = Gate(
    name="baseline",
    summary="predictions are no worse than those of the accepted baseline",
    needs=("accuracy",),
    applies=lambda candidate: not candidate.timing_only,
    judge=judge,
    order=60,
    in_family=True,
    is_exact=True,
    reads_baseline=True,
    judges_outputs=True,
)
