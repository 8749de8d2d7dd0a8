"""Gate: a case does not need more memory than its accepted baseline by more than is accepted, on host and device."""

from __future__ import annotations

from harness.gates._gate import Evidence, Gate
from harness.gates._growth import Sides, no_number, not_gated, sides_of
from harness.records import CPU, Verdict

CODES = ("memory_kept", "less_memory", "more_memory")
HOST, DEVICE = "peak host memory", "device memory of a context"


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge the peak of the worker's resident memory, and on an accelerator what one execution context takes."""
    record = evidence.record
    margin = record.tolerance.max_memory_growth
    if margin is None:
        return ()
    sides = sides_of(evidence, gate=GATE.name, margin=margin, what="memory")
    if sides is None or isinstance(sides, Verdict):
        return () if sides is None else (sides,)
    on_device = (_on_device(sides),) if record.case.device != CPU else ()
    return (_on_host(sides), *on_device)


def _on_host(sides: Sides) -> Verdict:
    ours, theirs = sides.ours, sides.theirs
    if ours.host_peak_bytes is not None and theirs.host_peak_bytes is not None and ours.peak_over != theirs.peak_over:
        here, there = (", ".join(costs.peak_over) or "nothing" for costs in (ours, theirs))
        why = f"{HOST} was taken over other work ({here}) than in {sides.against} ({there})"
        return not_gated(GATE.name, "other_work", why, advice="run the same suites with the same images")
    return _judge(sides, HOST, ours.host_peak_bytes, theirs.host_peak_bytes)


def _on_device(sides: Sides) -> Verdict:
    return _judge(sides, DEVICE, sides.ours.device_memory_bytes, sides.theirs.device_memory_bytes)


def _judge(sides: Sides, what: str, ours: int | None, theirs: int | None) -> Verdict:
    if ours is None:
        return not_gated(GATE.name, "no_memory", f"nothing told the {what}")
    if theirs is None:
        return no_number(GATE.name, f"{sides.against} has no {what}", advice=sides.accept)
    advice = "look at the engine's options, batch sizes and layers in the case's details"
    return sides.plain(what, ours, theirs, codes=CODES, advice=advice)


GATE = Gate(
    name="memory",
    summary="peak host memory and a context's device memory have not grown by more than --max-memory-growth",
    needs=("engine",),
    applies=lambda candidate: True,
    judge=judge,
    order=84,
    in_family=True,
    reads_baseline=True,
    tolerance="max_memory_growth",
)
