"""The host clock: timers around a call that is already bound to its buffers. Nothing here sleeps."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.protocols import Kept, Timer

RESOLUTION_READINGS = 2_000
SPINS = 200  # empty waits that tell what a wait itself costs
CALLS_BEFORE_SLOWING = 15
# Source: CUDA Runtime API, Event Management, cudaEventElapsedTime: "a resolution of approximately 0.5 microseconds".
CUDA_EVENT_RESOLUTION_NS = 500.0
MAX_CALLS_PER_SAMPLE = 1_000_000
NowNs = Callable[[], int]


def clock_resolution_ns(clock: str = "host", *, now_ns: NowNs = time.perf_counter_ns) -> float:
    """Return the smallest time that a clock tells apart [ns].

    `clock` is host (measured: the smallest step between two readings, so their cost is inside) or cuda_event.
    Raises: MeasurementError for another clock, or a host clock that stands still.
    """
    if clock == "cuda_event":
        return CUDA_EVENT_RESOLUTION_NS
    if clock != "host":
        raise MeasurementError(f"no resolution is known of the clock {clock!r}; expected host or cuda_event")
    readings = np.fromiter((now_ns() for _ in range(RESOLUTION_READINGS)), np.int64, RESOLUTION_READINGS)
    steps = np.diff(readings)
    steps = steps[steps > 0]
    if not steps.size:
        raise MeasurementError(f"the host clock did not move during {RESOLUTION_READINGS} readings")
    return float(steps.min())


class Spin:
    """A busy wait of a set time on the host: what slows a call down on purpose."""

    def __init__(self, wait_ns: float, now_ns: NowNs = time.perf_counter_ns) -> None:
        """`wait_ns`: how long; what reading the clock costs is part of it."""
        self._now_ns, self._wait_ns = now_ns, 0.0
        costs = []
        for _ in range(SPINS):
            started = now_ns()
            self()
            costs.append(now_ns() - started)
        self._wait_ns = max(0.0, wait_ns - statistics.median(costs))

    def __call__(self) -> None:
        """Wait."""
        now_ns = self._now_ns
        until = now_ns() + self._wait_ns
        while now_ns() < until:
            pass


def no_outputs() -> None:
    """Keep nothing: what a timer's calls compute is not known."""


def outputs_of(buffer: NDArray[Any]) -> Callable[[], NDArray[Any]]:
    """Return how the outputs in a timer's buffer are read: copied, and the buffer spoiled with NaN."""

    def outputs() -> NDArray[Any]:
        found: NDArray[Any] = buffer.copy()
        buffer.fill(np.nan)
        return found

    return outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundContext:
    """A call on buffers of its own, and what it writes there. Implements `protocols.Context`."""

    run: Callable[[], object]
    outputs: Callable[[], Kept]


def raw_ns() -> int:
    """Return the monotonic time that nothing disciplines [ns]; the plain one where the system has no other."""
    clock = getattr(time, "CLOCK_MONOTONIC_RAW", None)
    return time.monotonic_ns() if clock is None else time.clock_gettime_ns(clock)


def host_drift(span_ns: int, *, now_ns: NowNs = time.perf_counter_ns, other_ns: NowNs = raw_ns) -> float:
    """Return the rate of a host clock over that of another, less one; both are read for `span_ns` [ns].

    The other is read before and after each reading of the first, and the closest of a few such readings counts.
    """
    start, other_start = _together(now_ns, other_ns)
    while other_ns() - other_start < span_ns:
        pass
    end, other_end = _together(now_ns, other_ns)
    return (end - start) / (other_end - other_start) - 1


class HostTimer:
    """Times a call by the wall clock around it. Implements `protocols.Timer`."""

    clock = "host"
    launch = "call"
    gated = False

    def __init__(
        self,
        call: Callable[[], object],
        *,
        batch_size: int,
        window: str,
        outputs: Callable[[], Kept] = no_outputs,
        now_ns: NowNs = time.perf_counter_ns,
    ) -> None:
        """`outputs`: as `protocols.KeepsOutputs` has it."""
        self.batch_size = batch_size
        self.window = window
        self.calls_per_sample = 1
        self.outputs = outputs
        self._call, self._now_ns = call, now_ns

    def sample(self, n_samples: int) -> NDArray[np.float64]:
        """Return float64[n_samples]: ns per call, the mean over calls_per_sample calls."""
        call, now_ns, repeats = self._call, self._now_ns, range(self.calls_per_sample)
        samples = np.empty(n_samples, np.float64)
        for index in range(n_samples):
            started = now_ns()
            for _ in repeats:
                call()
            samples[index] = now_ns() - started
        return samples / self.calls_per_sample

    def slow_down(self, fraction: float) -> None:
        """Let every call last longer by a fraction of its present time; see `protocols.SlowsDown`."""
        call, self.calls_per_sample = self._call, 1
        spin = Spin(fraction * float(np.median(self.sample(CALLS_BEFORE_SLOWING))), self._now_ns)

        def slowed() -> None:
            call()
            spin()

        self._call = slowed

    def enqueue_ns(self) -> float | None:
        """Return None: a call on the host has no queue."""
        return None

    def empty_ns(self, n: int) -> NDArray[np.float64]:
        """Return float64[n]: the time between two readings with nothing between them [ns]."""
        readings = np.fromiter((self._now_ns() for _ in range(n + 1)), np.float64, n + 1)
        return np.asarray(np.diff(readings), np.float64)

    def drift(self, span_ns: int) -> float:
        """Return the clock's rate over that of the monotonic raw clock, less one."""
        return host_drift(span_ns, now_ns=self._now_ns)


class ReportedTimer:
    """Times a call by the duration its runtime reports, so that the Python binding is outside the window."""

    clock = "host"
    launch = "call"
    gated = False

    def __init__(
        self,
        call: Callable[[], float],
        *,
        batch_size: int,
        window: str,
        outputs: Callable[[], Kept] = no_outputs,
    ) -> None:
        """`outputs`: as `protocols.KeepsOutputs` has it."""
        self.batch_size = batch_size
        self.window = window
        self.calls_per_sample = 1
        self.outputs = outputs
        self._call = call  # runs once and returns its own duration [ns]

    def sample(self, n_samples: int) -> NDArray[np.float64]:
        """Return float64[n_samples]: ns per call, the mean over calls_per_sample calls."""
        call, repeats = self._call, self.calls_per_sample
        sums = (sum(call() for _ in range(repeats)) for _ in range(n_samples))
        return np.fromiter(sums, np.float64, n_samples) / repeats

    def slow_down(self, fraction: float) -> None:
        """Let every call last longer by a fraction of its present time; see `protocols.SlowsDown`."""
        call, now_ns = self._call, time.perf_counter_ns
        spin = Spin(fraction * float(np.median([call() for _ in range(CALLS_BEFORE_SLOWING)])))

        def slowed() -> float:
            spent_ns = call()
            started = now_ns()
            spin()
            return spent_ns + now_ns() - started

        self._call = slowed

    def enqueue_ns(self) -> float | None:
        """Return None: a call on the host has no queue."""
        return None


class _Sampled(Protocol):
    calls_per_sample: int

    def sample(self, n_samples: int) -> NDArray[np.float64]: ...


def calibrate_calls(timer: Timer | _Sampled, min_ns: float, *, n_probes: int = 3) -> int:
    """Set and return the calls per sample that make a sample last at least `min_ns` [ns].

    The fastest of `n_probes` single calls decides: a slow one would make samples too short. A timer may take fewer than
    that: a gate holds only so many.
    Raises: MeasurementError for a time that is not positive, or when a million calls are too few.
    """
    timer.calls_per_sample = 1
    fastest_ns = float(timer.sample(n_probes).min())
    if not (math.isfinite(fastest_ns) and fastest_ns > 0):
        raise MeasurementError(f"a single call took {fastest_ns} ns by the clock; expected a positive time")
    calls = max(1, math.ceil(min_ns / fastest_ns))
    if calls > MAX_CALLS_PER_SAMPLE:
        raise MeasurementError(
            f"a call of {fastest_ns} ns would have to run {calls} times to last {min_ns} ns; "
            "the timer measures something other than the engine"
        )
    timer.calls_per_sample = calls
    return timer.calls_per_sample


def _together(now_ns: NowNs, other_ns: NowNs) -> tuple[int, int]:
    """Return two clocks' readings of one moment."""
    best = (float("inf"), 0, 0)
    for _ in range(5):
        before, reading, after = other_ns(), now_ns(), other_ns()
        best = min(best, (after - before, reading, (before + after) // 2))
    return best[1], best[2]
