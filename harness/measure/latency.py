"""Engines and a batch -> Latency with all that bears on whether it can be believed: clock, machine, card, energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from harness.machine.clock_audit import N_EMPTY, audited, clock_flags, quantum_ns
from harness.machine.clocks import HostTimer
from harness.machine.conditions import Watch, card_of, condition_flags, spinning_settings
from harness.measure.energy import energy_of_arms
from harness.measure.timing import (
    AFTER,
    BEFORE,
    Look,
    check_clocks,
    latency_from_arms,
    make_timers,
    min_sample_ns,
    no_look,
    time_arms,
)
from harness.protocols import AuditsClock, Batch, Engine, Timer
from harness.records import ClockAudit, Latency
from harness.specs import TimingPlan

_AUDITS: dict[str, ClockAudit] = {}  # by clock; of this process, before its first timing


def measure_latency(
    engines: Sequence[Engine],
    batch: Batch,
    plan: TimingPlan,
    *,
    device: str,
    batch_size: int,
    reference_case: str = "",
    look: Look = no_look,
) -> Latency:
    """Time one or two engines in turn on a batch, by an audited clock on a watched machine; then take their energy.

    `device`: cpu or cuda:0, which is watched too. `look`: at the first timer, before the rounds and after them.
    Raises: ConfigError for a window or launch that an engine lacks, MeasurementError for a clock that stands still or
    gives other than positive times.
    """
    timers = make_timers(engines, batch, batch_size=batch_size, window=plan.window, launch=plan.launch)
    watch = Watch(card_of(device), spinning=spinning_settings(engines[0].facts.options))
    return latency_of_timers(timers, plan, watch, reference_case=reference_case, look=look)


def latency_of_timers(
    timers: Sequence[Timer], plan: TimingPlan, watch: Watch, *, reference_case: str = "", look: Look = no_look
) -> Latency:
    """Time one or two timers in turn; see `measure_latency`."""
    audit = audit_of(timers[0])
    arms = time_arms(
        timers,
        plan,
        min_sample_ns=min_sample_ns(timers[0].clock),
        warmed_up=partial(look, timers[0], BEFORE),
        watch=watch,
    )
    look(timers[0], AFTER)
    seen = watch.seen()
    check_clocks(timers, arms)
    latency = latency_from_arms(timers, arms, reference_case=reference_case)
    doubts = condition_flags(seen)
    if audit is not None:
        samples_ns = arms[0].rounds_ns * timers[0].calls_per_sample
        doubts = (*doubts, *clock_flags(audit, samples_ns, _later_quantum_ns(timers[0])))
    return replace(
        latency,
        flags=(*latency.flags, *doubts),
        audit=audit,
        conditions=seen,
        energy=energy_of_arms(timers, watch.card, plan.energy_loops),
    )


def audit_of(timer: Timer) -> ClockAudit | None:
    """Return the audit of a timer's clock, made once a process; None where a clock is not known and has no audit.

    A timer on the host clock that cannot look at it itself, as its runtime reads it, gets the audit of Python's.
    """
    auditor = _auditor(timer)
    if auditor is None:
        return None
    if timer.clock not in _AUDITS:
        _AUDITS[timer.clock] = audited(auditor, timer.clock)
    return _AUDITS[timer.clock]


def _auditor(timer: Timer) -> AuditsClock | None:
    if isinstance(timer, AuditsClock):
        return timer
    return HostTimer(lambda: None, batch_size=1, window=timer.window) if timer.clock == "host" else None


def _later_quantum_ns(timer: Timer) -> float | None:
    """Return the quantum at the end of the run; None where the timer has no look at its clock."""
    if not isinstance(timer, AuditsClock):
        return None
    empty = timer.empty_ns(N_EMPTY)
    return quantum_ns(empty) if empty.any() else None
