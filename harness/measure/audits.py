"""A timer's clock looked at: once when its process first times by it, and again when all rounds are done."""

from __future__ import annotations

from harness.machine.clock_audit import N_EMPTY, audited, quantum_ns
from harness.machine.clocks import HostTimer
from harness.protocols import AuditsClock, Timer
from harness.records import ClockAudit

_AUDITS: dict[str, ClockAudit] = {}  # by clock; of this process, before its first timing


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


def later_quantum_ns(timer: Timer) -> float | None:
    """Return the quantum at the end of the run; None where the timer has no look at its clock."""
    if not isinstance(timer, AuditsClock):
        return None
    empty = timer.empty_ns(N_EMPTY)
    return quantum_ns(empty) if empty.any() else None


def _auditor(timer: Timer) -> AuditsClock | None:
    if isinstance(timer, AuditsClock):
        return timer
    return HostTimer(lambda: None, batch_size=1, window=timer.window) if timer.clock == "host" else None
