"""Timing with CUDA events on one stream: four ways to launch, chosen by option and named in the timer.

`enqueue` records event, call, event, as sampleINT8 does; `graph` launches the call as a captured CUDA graph; `gated`
holds the stream while event, call, event are enqueued, so that no host gap falls between them; `gated_graph` is both.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.backends._cuda import event_clock
from harness.backends._cuda.device import CudaError, EventPool, Gpu
from harness.backends._cuda.launcher import Launcher
from harness.backends._cuda.moves import WINDOWS
from harness.backends._cuda.spin import SAMPLES, slow_down
from harness.errors import ConfigError, MeasurementError
from harness.machine.clocks import no_outputs
from harness.protocols import Kept

COMPUTING = ("compute", "end_to_end")
LAUNCHES = ("auto", "enqueue", "graph", "gated", "gated_graph")
# A stream's queue holds about 1000 entries; an enqueue into a full queue blocks, and a gate would then never open.
GATED_QUEUE_ENTRIES = 256
N_ENQUEUES = 32  # calls whose host time is taken


class CudaTimer:
    """Times one call on one stream with pairs of CUDA events.

    `bind` makes the engine ready for this batch and returns a number that changes whenever a captured graph of it has
    become invalid. `work` enqueues one call; without `can_capture` it is never tried as a graph. `note(text)` keeps
    what the user should know. Raises: ConfigError for a window or launch that cannot be had.
    """

    clock = "cuda_event"

    def __init__(
        self,
        gpu: Gpu,
        stream: Any,
        *,
        work: Callable[[], object],
        bind: Callable[[], int],
        batch_size: int,
        window: str,
        launch: str,
        entries_per_call: int,
        can_capture: bool = True,
        note: Callable[[str], None] = lambda text: None,
        outputs: Callable[[], Kept] = no_outputs,
    ) -> None:
        if window not in WINDOWS:
            raise ConfigError(f"window {window!r} is none of {', '.join(WINDOWS)}")
        if launch not in LAUNCHES:
            raise ConfigError(f"launch {launch!r} is none of {', '.join(LAUNCHES)}")
        self._gpu, self._pool = gpu, EventPool(gpu)
        self.batch_size, self.window = batch_size, window
        self._calls, self.outputs = 1, outputs if window in COMPUTING else no_outputs
        self._entries_per_call = max(1, entries_per_call)
        self._launcher = Launcher(gpu, stream, work=work, bind=bind, note=note)
        try:
            self._launcher.prepare(launch, can_capture=can_capture)
        except BaseException:
            self.close()
            raise

    @property
    def launch(self) -> str:
        """Return graph or enqueue."""
        return "graph" if self._launcher.graph else "enqueue"

    @property
    def gated(self) -> bool:
        """Tell whether the stream is held while calls are enqueued."""
        return self._launcher.gate is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was done without, and why."""
        return self._launcher.notes

    @property
    def calls_per_sample(self) -> int:
        """Return how many calls one sample spans; set it to as many as are wanted.

        Behind a gate they are no more than its queue holds: calls on an open stream would hold the host's gaps.
        """
        if self._launcher.gate is None:
            return self._calls
        entries = 1 if self._launcher.graph else self._entries_per_call
        return min(self._calls, max(1, GATED_QUEUE_ENTRIES // entries))

    @calls_per_sample.setter
    def calls_per_sample(self, calls: int) -> None:
        self._calls = calls

    def lower(self, *, graph: bool, gate: bool) -> None:
        """Go without the graph or the gate that this timer has; see `protocols.LowersLaunch`."""
        self._launcher.lower(graph=graph, gate=gate)

    def slow_down(self, fraction: float) -> None:
        """Let a kernel that spins follow each call; see `protocols.SlowsDown`. Raises: MeasurementError."""
        failures: tuple[type[BaseException], ...] = (CudaError, *self._gpu.errors)
        self.calls_per_sample = 1
        try:
            slow_down(self._gpu, self._launcher, lambda: float(np.median(self.sample(SAMPLES))), fraction)
        except failures as error:
            raise MeasurementError(f"batch {self.batch_size} cannot be slowed down: {error}") from error

    def sample(self, n_samples: int) -> NDArray[np.float64]:
        """Return float64[n_samples]: ns per call. Raises: MeasurementError when the device fails."""
        try:
            self._launcher.ready()
            pairs = self._pool.pairs(n_samples)
            calls, launch, stream = self.calls_per_sample, self._launcher.launch_once(), self._launcher.stream
            gate = self._launcher.gate
            with gate.watched() if gate else contextlib.nullcontext():
                for start, end in pairs:
                    if gate:
                        gate.shut()
                    start.record(stream)
                    for _ in range(calls):
                        launch()
                    end.record(stream)
                    if gate:
                        gate.open()
                stream.synchronize()
            spans = [end.time_since(start) for start, end in pairs]
        except self._gpu.errors as error:
            raise MeasurementError(f"timing batch {self.batch_size} failed on the device: {error}") from error
        return np.asarray(spans, np.float64) * (event_clock.NS_PER_MS / calls)

    def empty_ns(self, n: int) -> NDArray[np.float64]:
        """Return what the clock says of nothing; see `protocols.AuditsClock`."""
        self._launcher.ready()
        return event_clock.empty_ns(self._pool, self._launcher.stream, n)

    def drift(self, span_ns: int) -> float:
        """Return the clock's rate over the host's, less one."""
        self._launcher.ready()
        return event_clock.drift(self._pool, self._launcher.stream, self._launcher.launch_once(), span_ns)

    def enqueue_ns(self) -> float | None:
        """Return the median host time of enqueueing one call plainly [ns], however this timer launches.

        A graph's launch takes the host the same few us for every engine; what it hides is told here. The stream is
        empty and open each time, so the call never waits for room in its queue.
        """
        spans = []
        try:
            self._launcher.ready()
            for _ in range(N_ENQUEUES):
                self._launcher.stream.synchronize()
                start = time.perf_counter_ns()
                self._launcher.work()
                spans.append(time.perf_counter_ns() - start)
            self._launcher.stream.synchronize()
        except self._gpu.errors as error:
            raise MeasurementError(f"enqueueing batch {self.batch_size} failed on the device: {error}") from error
        return float(np.median(spans))

    def close(self) -> None:
        """Destroy the graph and let go of events and stream; a second call does nothing."""
        self._launcher.close()
        self._pool = EventPool(self._gpu)
