"""A time counts only if the outputs were right: what gates of times say of one that does not."""

from __future__ import annotations

from collections.abc import Sequence

from harness.gates._gate import VOID, Gate
from harness.records import Latency, Outcome, Record, Verdict


def void_verdicts(record: Record, *, gate: str) -> tuple[Verdict, ...]:
    """Return the failing verdict of every latency that was void when it was measured."""
    return tuple(_void_verdict(latency, latency.void, gate) for latency in record.latencies if latency.void)


def without_times(
    record: Record, verdicts: Sequence[Verdict], gates: Sequence[Gate]
) -> tuple[str, tuple[Verdict, ...]]:
    """Return why no time of a judged case counts, and its verdicts without those on times.

    Where what it scored regressed, a time says how fast the wrong result comes. That has failed already, so it fails no
    gate of times once more. Otherwise "" and the same verdicts.
    """
    of_outputs = {gate.name for gate in gates if gate.judges_outputs}
    of_times = {gate.name for gate in gates if gate.judges_times}
    regressed = (verdict for verdict in verdicts if verdict.is_failure and verdict.outcome is Outcome.REGRESSED)
    failing = next((verdict for verdict in regressed if verdict.gate in of_outputs), None)
    if failing is None or not record.latencies:
        return "", tuple(verdicts)
    why = f"what it scored is not right ({failing.gate}: {failing.message})"
    asked = dict.fromkeys(verdict.gate for verdict in verdicts if verdict.gate in of_times)
    voids = [
        _void_verdict(latency, latency.void or why, gate, is_failure=bool(latency.void))
        for gate in asked
        for latency in record.latencies
    ]
    return why, (*(verdict for verdict in verdicts if verdict.gate not in of_times), *voids)


def _void_verdict(latency: Latency, why: str, gate: str, *, is_failure: bool = True) -> Verdict:
    return Verdict(
        gate=gate,
        outcome=Outcome.INCOMPARABLE,
        code=VOID,
        batch_size=latency.batch_size,
        message=f"batch {latency.batch_size}: the time is void: {why}",
        advice="a time counts only if the outputs are right; mend them first",
        is_failure=is_failure,
    )
