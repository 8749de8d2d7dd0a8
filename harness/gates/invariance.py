"""Gate: an image's result depends neither on its slot, nor on its neighbours, nor on the size of its batch."""

from __future__ import annotations

from harness.gates._gate import Evidence, Gate
from harness.records import InvarianceCheck, Outcome, Verdict


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge every arrangement that was tried; one verdict each."""
    return tuple(_judge(check) for check in evidence.record.invariance)


def _judge(check: InvarianceCheck) -> Verdict:
    is_kept = check.largest_gap <= check.accepted_gap
    near_ties = ", all between classes nearer than the tolerance" if is_kept and check.n_changed else ""
    changes = "prediction changes" if check.n_changed == 1 else "predictions change"
    return Verdict(
        gate=GATE.name,
        outcome=Outcome.SAME if is_kept else Outcome.REGRESSED,
        code=check.name if is_kept else f"{check.name}_leak",
        message=f"{check.name.replace('_', ' ')}: outputs of {check.n_rows} rows in {check.n_arrangements} "
        f"arrangements differ by up to {check.largest_gap:.2g} (accepted {check.accepted_gap:.2g}; "
        f"worst: {check.worst}), {check.n_changed} {changes}{near_ties}",
        advice="" if is_kept else "a result depends on the rest of its batch: deploy at batch 1 until that is fixed",
        is_failure=not is_kept,
        value=check.largest_gap,
    )


GATE = Gate(
    name="invariance",
    summary="an image's result depends neither on its slot, nor on its neighbours, nor on the batch size",
    needs=("invariance",),
    applies=lambda candidate: True,
    judge=judge,
    order=20,
)
