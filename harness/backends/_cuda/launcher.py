"""How a timer launches its work: plainly or as a CUDA graph, on an open stream or behind a gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.backends._cuda.device import GATE_TIMEOUT_S, CudaError, Gate, Gpu, Graph, NotCapturable
from harness.errors import ConfigError, MeasurementError

TRIAL_TIMEOUT_S = 2.0  # work that waits for the stream would hang behind the gate; the trial finds that out


class Launcher:
    """One call on one stream, launched in the quietest way that was asked and works."""

    def __init__(
        self,
        gpu: Gpu,
        stream: Any,
        *,
        work: Callable[[], object],
        bind: Callable[[], int],
        note: Callable[[str], None],
    ) -> None:
        """See `CudaTimer`, whose arguments these are."""
        self._gpu, self._note = gpu, note
        self.stream: Any = stream
        self.work: Callable[[], object] = work
        self._bind: Callable[[], int] = bind
        self.notes: tuple[str, ...] = ()
        self.graph: Graph | None = None
        self.gate: Gate | None = None
        self._generation = -1
        self._wants_graph = self._must = False

    def prepare(self, launch: str, *, can_capture: bool, can_gate: bool = True) -> None:
        """Try what a launch asks for; `auto` goes without what does not work. Raises: ConfigError."""
        self._wants_graph = launch in ("auto", "graph", "gated_graph")
        self._must = launch != "auto"
        if self._wants_graph and not can_capture:
            self._do_without_graph("the engine's work cannot be captured")
        self.ready()
        if can_gate and launch in ("auto", "gated", "gated_graph"):
            self._try_gate()

    def lower(self, *, graph: bool, gate: bool) -> None:
        """Go without the graph or the gate that there is, where the engine timed in turn with it has none."""
        if self.graph and not graph:
            self._wants_graph = False
            self.stream.synchronize()
            self._drop_graph()
            self._say("timed without a CUDA graph: the engine timed in turn with it has none")
            if self.gate and gate:
                self.gate = None
                self._try_gate()  # unlike the graph, the plain work may wait for the stream
        if self.gate and not gate:
            self.gate = None
            self._say("timed without a gate: the engine timed in turn with it has none")

    def append(self, more: Callable[[], object]) -> None:
        """Put more work behind each call; a graph is captured anew."""
        call = self.work

        def both() -> None:
            call()
            more()

        self.work, self._generation = both, -1
        self.ready()

    def recapture(self) -> None:
        """Capture the work anew: what it puts on the stream has changed."""
        self._generation = -1
        self.ready()

    def launch_once(self) -> Callable[[], object]:
        return self.graph.launch if self.graph else self.work

    def ready(self) -> None:
        """Bind the batch; after a change of shape run it once and capture it anew."""
        generation = self._bind()
        if generation == self._generation:
            return
        self.work()
        self.stream.synchronize()
        self._generation = generation
        if not self._wants_graph:
            return
        self._drop_graph()
        try:
            self.graph = Graph(self._gpu, self.stream, self.work)
        except NotCapturable as error:
            self._do_without_graph(str(error), error)

    def close(self) -> None:
        """Destroy the graph and let go of the stream; a second call does nothing."""
        self._drop_graph()
        self.gate = self.stream = None
        self.work = self._bind = _closed

    def _say(self, text: str) -> None:
        self.notes += (text,)
        self._note(text)

    def _drop_graph(self) -> None:
        if self.graph:
            self.graph.close()
        self.graph = None

    def _do_without_graph(self, reason: str, cause: NotCapturable | None = None) -> None:
        if self._must:
            raise ConfigError(f"this engine cannot be timed as a graph ({reason}); use the launch 'enqueue'") from cause
        self._wants_graph = False
        self._say(f"timed without a CUDA graph: {reason}")

    def _try_gate(self) -> None:
        failures: tuple[type[BaseException], ...] = (CudaError, MeasurementError, *self._gpu.errors)
        try:
            gate = Gate(self._gpu, self.stream, timeout_s=TRIAL_TIMEOUT_S)
            with gate.watched():
                gate.shut()
                self.launch_once()()
                gate.open()
                self.stream.synchronize()
        except failures as error:
            if self._must:
                raise ConfigError(f"this engine cannot be timed behind a gate ({error})") from error
            self._say(f"timed without a gate: {error}")
            return
        gate.timeout_s = GATE_TIMEOUT_S
        self.gate = gate


def _closed() -> int:
    raise MeasurementError("the engine of this timer is closed; build it again")
