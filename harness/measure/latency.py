"""Arms -> Latency with all that bears on whether it can be believed: clock, machine, card, energy, outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

from harness.machine.clock_audit import clock_flags
from harness.machine.conditions import condition_flags
from harness.measure.arms import TimedArm
from harness.measure.energy import energy_of_arms
from harness.measure.timing import check_clocks, latency_from_arms, make_alike, time_arms
from harness.protocols import Progress
from harness.records import Latency
from harness.specs import TimingPlan

Turn = Callable[[Callable[[], None]], AbstractContextManager[None]]  # on the device; is told what to call while waiting


def measure_latencies(
    arms_of: Callable[[int], Sequence[TimedArm]],
    plan: TimingPlan,
    *,
    reference_case: str,
    turn: Turn,
    progress: Progress,
) -> tuple[Latency, ...]:
    """Time every batch size of a plan, then say which times do not count.

    `arms_of`: makes the arms of a batch size: the engine's and, unless it is FP32 itself, that of FP32, whose case is
    `reference_case`. Raises: as `measure_latency`.
    """
    latencies, timed = [], []
    for index, batch_size in enumerate(plan.batch_sizes):
        with turn(partial(progress, index, len(plan.batch_sizes))):
            arms = arms_of(batch_size)
            latencies.append(measure_latency(arms, plan, reference_case=reference_case))
        timed.append(arms[0])
        progress(index + 1, len(plan.batch_sizes))
    # After the clock: what `infer` leaves would be timed too.
    return tuple(replace(latency, void=arm.void()) for latency, arm in zip(latencies, timed, strict=True))


def measure_latency(arms: Sequence[TimedArm], plan: TimingPlan, *, reference_case: str = "") -> Latency:
    """Time one or two arms in turn, by an audited clock on a watched machine; then take their energy.

    Raises: MeasurementError for a clock that stands still or gives other than positive times.
    """
    make_alike(arms, plan.launch)
    rounds, seen = time_arms(arms, plan)
    facts = [arm.facts for arm in arms]
    check_clocks(facts, rounds)
    latency = latency_from_arms(facts, rounds, enqueue_ns=seen.enqueue_ns, reference_case=reference_case)
    doubts = condition_flags(seen.conditions)
    if seen.audit is not None:
        samples_ns = rounds[0].rounds_ns * facts[0].calls_per_sample
        doubts = (*doubts, *clock_flags(seen.audit, samples_ns, seen.later_quantum_ns))
    return replace(
        latency,
        flags=(*latency.flags, *doubts),
        audit=seen.audit,
        conditions=seen.conditions,
        energy=energy_of_arms(arms, plan.energy_loops),
    )
