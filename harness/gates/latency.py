"""Gate: an engine is not slower than its accepted baseline by more than is accepted."""

from __future__ import annotations

from harness.gates._gate import Evidence, Gate
from harness.gates._stored import judge_latencies, no_baseline
from harness.gates._void import void_verdicts
from harness.records import Verdict


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge the time of every batch size; one verdict each."""
    record = evidence.record
    void = void_verdicts(record, gate=GATE.name)
    if not record.valid_latencies:
        return void
    stored = evidence.stored
    if stored is None or (stored.is_baseline and not stored.latencies):
        what = f"times on this type of device ({record.environment.device_type})"
        return (*void, no_baseline(record.case, stored_in=evidence.stored_in, gate=GATE.name, what=what))
    return (*void, *judge_latencies(record, stored, gate=GATE.name))


GATE = Gate(
    name="latency",
    summary="no batch size is slower than the accepted baseline by more than --max-slowdown",
    needs=("latency",),
    applies=lambda candidate: True,
    judge=judge,
    order=70,
    in_family=True,
    family="times",
    reads_baseline=True,
    judges_times=True,
)
