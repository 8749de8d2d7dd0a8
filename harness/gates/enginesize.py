"""Gate: an engine is not larger than its accepted baseline by more than is accepted."""

from __future__ import annotations

from harness.gates._gate import Evidence, Gate
from harness.gates._growth import no_number, not_gated, sides_of
from harness.records import Verdict

CODES = ("size_kept", "smaller_engine", "larger_engine")


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge the size of the engine's file, or of what the runtime says that it takes."""
    margin = evidence.record.tolerance.max_engine_growth
    if margin is None:
        return ()
    sides = sides_of(evidence, gate=GATE.name, margin=margin, what="engine size")
    if sides is None or isinstance(sides, Verdict):
        return () if sides is None else (sides,)
    ours, theirs = sides.ours.engine_bytes, sides.theirs.engine_bytes
    if ours is None:
        return (not_gated(GATE.name, "no_engine_size", "the runtime told no engine size"),)
    if theirs is None:
        return (no_number(GATE.name, f"{sides.against} has no engine size", advice=sides.accept),)
    advice = "see which layers kept wider weights or changed kernels in the case's details"
    return (sides.plain("engine", ours, theirs, codes=CODES, advice=advice),)


GATE = Gate(
    name="enginesize",
    summary="an engine is not larger than the accepted one by more than --max-engine-growth",
    needs=("engine",),
    applies=lambda candidate: True,
    judge=judge,
    order=82,
    in_family=True,
    reads_baseline=True,
    tolerance="max_engine_growth",
)
