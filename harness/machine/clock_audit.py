"""A clock's own audit: its quantum, what it says of nothing, and its rate against another clock.

A clock may be fine when a run starts and coarse when it ends: times kept as 32-bit floats since the start (trtexec's
trace is one) lose a digit with every tenfold length. So the quantum is looked at again in what was measured.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.machine.clocks import CUDA_EVENT_RESOLUTION_NS
from harness.protocols import AuditsClock
from harness.records import ClockAudit

N_EMPTY = 500
SPANS_NS = {"host": 20_000_000, "cuda_event": 100_000_000}  # how long two clocks are compared
AGAINST = {"host": "monotonic_raw", "cuda_event": "host"}
ROUNDING_NS = 1.5  # a step of a third of 125 ns comes as 41 or 42
EQUAL_NS = 0.05  # two times closer than this are one: a float of milliseconds has lost more
COARSER = 4.0  # a quantum that has grown by more than this has not been seen badly: it has grown
MAX_DRIFT = 1e-3  # a clock that is disciplined by NTP is off by 5e-4 at most (Linux, adjtimex)
MAX_QUANTUM_SHARE = 0.01  # of a sample
MIN_REPEATS = 0.25  # of samples that are equal to others, before their gaps say anything of the clock
COARSE_CLOCK, CLOCK_DRIFT, CLOCK_COARSENS = CLOCK_FLAGS = ("coarse_clock", "clock_drift", "clock_coarsens")


def audited(timer: AuditsClock, clock: str) -> ClockAudit:
    """Audit the clock of a timer, by name host or cuda_event. Raises: MeasurementError where it stands still."""
    empty = timer.empty_ns(N_EMPTY)
    span_ns = SPANS_NS[clock]
    # Events that are recorded one after the other may all have one time: then the vendor's word stands.
    known_ns = CUDA_EVENT_RESOLUTION_NS if clock == "cuda_event" and not empty.any() else None
    drift = timer.drift(span_ns)
    return ClockAudit(
        clock=clock,
        quantum_ns=known_ns or quantum_ns(empty),
        empty_ns=float(np.median(empty)),
        drift=drift,
        against=AGAINST[clock],
        span_ns=span_ns,
    )


def quantum_ns(times_ns: NDArray[np.float64]) -> float:
    """Return the smallest step of a clock, from what it says of nothing [ns]. Raises: MeasurementError.

    Where some are 0 the clock is coarser than a reading takes, and its step is the smallest other one. Else steps are
    what lies between two times: three in a row, one ns apart, are a fine clock; two are one time, rounded both ways.
    """
    times = np.unique(np.round(np.ravel(times_ns) / EQUAL_NS) * EQUAL_NS)
    if times[0] <= 0:
        positive = times[times > 0]
        if not positive.size:
            raise MeasurementError(f"the clock gave 0 ns in each of {np.size(times_ns)} empty measurements")
        return float(positive[0])
    gaps = np.diff(times)
    is_close = gaps <= ROUNDING_NS
    if (is_close[1:] & is_close[:-1]).any():
        return float(gaps.min())
    return float(min([times[0], *gaps[~is_close]]))


def quantum_of_samples(samples_ns: NDArray[np.float64]) -> float | None:
    """Return the step that samples keep to; None where too few are equal to tell a step from chance.

    samples_ns: whole samples [ns], not divided by their calls.
    """
    flat = np.round(np.ravel(samples_ns) / EQUAL_NS) * EQUAL_NS
    distinct = np.unique(flat)
    if distinct.size < 2 or distinct.size > (1 - MIN_REPEATS) * flat.size:
        return None
    return float(np.diff(distinct).min())


def clock_flags(audit: ClockAudit, samples_ns: NDArray[np.float64], later_quantum_ns: float | None) -> tuple[str, ...]:
    """Return what is doubtful of a clock.

    samples_ns: float64[rounds, samples] of whole samples, not divided by their calls; later_quantum_ns: found by the
    timer when all was measured, None where it has no look at its clock.
    """
    flags = []
    if audit.quantum_ns > MAX_QUANTUM_SHARE * float(np.median(samples_ns)):
        flags.append(COARSE_CLOCK)
    if audit.drift is not None and abs(audit.drift) > MAX_DRIFT:
        flags.append(CLOCK_DRIFT)
    third = max(1, len(samples_ns) // 3)
    later = (later_quantum_ns, quantum_of_samples(samples_ns[-third:]))
    if any(found is not None and found > COARSER * audit.quantum_ns for found in later):
        flags.append(CLOCK_COARSENS)
    return tuple(flags)
