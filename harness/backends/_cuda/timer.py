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

from harness.backends._cuda.device import GATE_TIMEOUT_S, CudaError, EventPool, Gate, Gpu, Graph, NotCapturable
from harness.backends._cuda.ring import Slot
from harness.errors import ConfigError, MeasurementError

WINDOWS = ("compute", "h2d", "d2h", "end_to_end")
LAUNCHES = ("auto", "enqueue", "graph", "gated", "gated_graph")
# A stream's queue holds about 1000 entries; an enqueue into a full queue blocks, and a gate would then never open.
GATED_QUEUE_ENTRIES = 256
N_ENQUEUES = 32  # calls whose host time is taken
TRIAL_TIMEOUT_S = 2.0  # work that waits for the stream would hang behind the gate; the trial finds that out


def work_of_window(window: str, run: Callable[[], object], *, gpu: Gpu, slot: Slot, label: str) -> Callable[[], object]:
    """Return what a window times, on the slot's compute stream: `run`, a copy, or copy in, run and copy out in turn.

    Raises: ConfigError for a window that is none.
    """

    def copy_in() -> None:
        gpu.copy_in(slot.device_in, slot.host_in, slot.compute)

    def copy_out() -> None:
        gpu.copy_out(slot.host_out, slot.device_out, slot.compute)

    def end_to_end() -> None:
        copy_in()
        run()
        copy_out()

    works = dict(zip(WINDOWS, (run, copy_in, copy_out, end_to_end), strict=True))
    if window not in works:
        raise ConfigError(f"{label}: window {window!r} is none of {', '.join(works)}")
    return works[window]


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
    ) -> None:
        if window not in WINDOWS:
            raise ConfigError(f"window {window!r} is none of {', '.join(WINDOWS)}")
        if launch not in LAUNCHES:
            raise ConfigError(f"launch {launch!r} is none of {', '.join(LAUNCHES)}")
        self._gpu = gpu
        self._stream: Any = stream
        self._work: Callable[[], object] = work
        self._bind: Callable[[], int] = bind
        self.batch_size, self.window = batch_size, window
        self._calls = 1
        self.notes: tuple[str, ...] = ()
        self._note = note
        self._entries_per_call = max(1, entries_per_call)
        self._pool = EventPool(gpu)
        self._graph: Graph | None = None
        self._gate: Gate | None = None
        self._generation = -1
        self._wants_graph = launch in ("auto", "graph", "gated_graph")
        self._must = launch != "auto"
        if self._wants_graph and not can_capture:
            self._do_without_graph("the engine's work cannot be captured")
        try:
            self._ready()
            if launch in ("auto", "gated", "gated_graph"):
                self._try_gate()
        except BaseException:
            self.close()
            raise

    @property
    def launch(self) -> str:
        """Return graph or enqueue."""
        return "graph" if self._graph else "enqueue"

    @property
    def gated(self) -> bool:
        """Tell whether the stream is held while calls are enqueued."""
        return self._gate is not None

    @property
    def calls_per_sample(self) -> int:
        """Return how many calls one sample spans; set it to as many as are wanted.

        Behind a gate they are no more than its queue holds: calls on an open stream would hold the host's gaps.
        """
        if self._gate is None:
            return self._calls
        entries = 1 if self._graph else self._entries_per_call
        return min(self._calls, max(1, GATED_QUEUE_ENTRIES // entries))

    @calls_per_sample.setter
    def calls_per_sample(self, calls: int) -> None:
        self._calls = calls

    def lower(self, *, graph: bool, gate: bool) -> None:
        """Go without the graph or the gate that this timer has; see `protocols.LowersLaunch`."""
        if self._graph and not graph:
            self._wants_graph = False
            self._stream.synchronize()
            self._drop_graph()
            self._say("timed without a CUDA graph: the engine timed in turn with it has none")
            if self._gate and gate:
                self._gate = None
                self._try_gate()  # unlike the graph, the plain work may wait for the stream
        if self._gate and not gate:
            self._gate = None
            self._say("timed without a gate: the engine timed in turn with it has none")

    def sample(self, n_samples: int) -> NDArray[np.float64]:
        """Return float64[n_samples]: ns per call. Raises: MeasurementError when the device fails."""
        try:
            self._ready()
            pairs = self._pool.pairs(n_samples)
            calls, launch, stream = self.calls_per_sample, self._launch_once(), self._stream
            with self._gate.watched() if self._gate else contextlib.nullcontext():
                for start, end in pairs:
                    if self._gate:
                        self._gate.shut()
                    start.record(stream)
                    for _ in range(calls):
                        launch()
                    end.record(stream)
                    if self._gate:
                        self._gate.open()
                stream.synchronize()
            spans = [end.time_since(start) for start, end in pairs]
        except self._gpu.errors as error:
            raise MeasurementError(f"timing batch {self.batch_size} failed on the device: {error}") from error
        return np.asarray(spans, np.float64) * (1e6 / calls)

    def enqueue_ns(self) -> float | None:
        """Return the median host time of enqueueing one call plainly [ns], however this timer launches.

        A graph's launch takes the host the same few us for every engine; what it hides is told here. The stream is
        empty and open each time, so the call never waits for room in its queue.
        """
        spans = []
        try:
            self._ready()
            for _ in range(N_ENQUEUES):
                self._stream.synchronize()
                start = time.perf_counter_ns()
                self._work()
                spans.append(time.perf_counter_ns() - start)
            self._stream.synchronize()
        except self._gpu.errors as error:
            raise MeasurementError(f"enqueueing batch {self.batch_size} failed on the device: {error}") from error
        return float(np.median(spans))

    def close(self) -> None:
        """Destroy the graph and let go of events and stream; a second call does nothing."""
        self._drop_graph()
        self._gate = self._stream = None
        self._pool = EventPool(self._gpu)
        self._work = self._bind = _closed

    def _say(self, text: str) -> None:
        self.notes += (text,)
        self._note(text)

    def _drop_graph(self) -> None:
        if self._graph:
            self._graph.close()
        self._graph = None

    def _do_without_graph(self, reason: str, cause: NotCapturable | None = None) -> None:
        if self._must:
            raise ConfigError(f"this engine cannot be timed as a graph ({reason}); use the launch 'enqueue'") from cause
        self._wants_graph = False
        self._say(f"timed without a CUDA graph: {reason}")

    def _launch_once(self) -> Callable[[], object]:
        return self._graph.launch if self._graph else self._work

    def _ready(self) -> None:
        """Bind the batch; after a change of shape run it once and capture it anew."""
        generation = self._bind()
        if generation == self._generation:
            return
        self._work()
        self._stream.synchronize()
        self._generation = generation
        if not self._wants_graph:
            return
        self._drop_graph()
        try:
            self._graph = Graph(self._gpu, self._stream, self._work)
        except NotCapturable as error:
            self._do_without_graph(str(error), error)

    def _try_gate(self) -> None:
        failures: tuple[type[BaseException], ...] = (CudaError, MeasurementError, *self._gpu.errors)
        try:
            gate = Gate(self._gpu, self._stream, timeout_s=TRIAL_TIMEOUT_S)
            with gate.watched():
                gate.shut()
                self._launch_once()()
                gate.open()
                self._stream.synchronize()
        except failures as error:
            if self._must:
                raise ConfigError(f"this engine cannot be timed behind a gate ({error})") from error
            self._say(f"timed without a gate: {error}")
            return
        gate.timeout_s = GATE_TIMEOUT_S
        self._gate = gate


def _closed() -> int:
    raise MeasurementError("the engine of this timer is closed; build it again")
