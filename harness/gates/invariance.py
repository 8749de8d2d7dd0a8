"""Gate: an image's result depends neither on its slot, nor on its neighbours, nor on the size of its batch."""

from __future__ import annotations

from collections.abc import Sequence

from harness.gates._gate import Evidence, Gate
from harness.records import InvarianceCheck, Latency, Outcome, SizeCheck, Verdict


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge every arrangement that was tried, and every timed batch whose outputs were not those that were scored."""
    record = evidence.record
    advice = _advice(record.sizes)
    return (
        *(_judge(check, advice) for check in record.invariance),
        *(_timed_otherwise(latency) for latency in record.latencies if latency.void),
    )


def _judge(check: InvarianceCheck, advice: str) -> Verdict:
    near_ties = ", all between classes nearer than the tolerance" if check.is_kept and check.n_changed else ""
    changes = "prediction changes" if check.n_changed == 1 else "predictions change"
    return Verdict(
        gate=GATE.name,
        outcome=Outcome.SAME if check.is_kept else Outcome.REGRESSED,
        code=check.name if check.is_kept else f"{check.name}_leak",
        message=f"{check.name.replace('_', ' ')}: outputs of {check.n_rows} rows in {check.n_arrangements} "
        f"arrangements differ by up to {check.largest_gap:.2g} (accepted {check.accepted_gap:.2g}; "
        f"worst: {check.worst}), {check.n_changed} {changes}{near_ties}",
        advice="" if check.is_kept else advice,
        is_failure=not check.is_kept,
        value=check.largest_gap,
    )


def _advice(sizes: Sequence[SizeCheck]) -> str:
    """Name batch sizes only where they were held against what the outputs should be."""
    told = "a result depends on the rest of its batch"
    if not sizes:
        return f"{told}; no batch size is known to be right: compare with another backend before any is deployed"
    right, wrong = ([str(size.batch_size) for size in sizes if size.is_right is is_right] for is_right in (True, False))
    against = sizes[0].against
    if not right:
        return f"{told}; no batch size agrees with {against}: do not deploy this engine"
    if not wrong:
        return f"{told}; in full batches, batch {', '.join(right)} agrees with {against}: deploy no others"
    return f"{told}; batch {', '.join(right)} agrees with {against}, batch {', '.join(wrong)} does not"


def _timed_otherwise(latency: Latency) -> Verdict:
    return Verdict(
        gate=GATE.name,
        outcome=Outcome.REGRESSED,
        code="not_as_scored",
        message=f"batch {latency.batch_size}: {latency.void}",
        advice="its time is that of a wrong result",
        is_failure=True,
    )


GATE = Gate(
    name="invariance",
    summary="an image's result depends neither on its slot, nor on its neighbours, nor on the batch size",
    needs=("invariance",),
    applies=lambda candidate: True,
    judge=judge,
    order=20,
)
