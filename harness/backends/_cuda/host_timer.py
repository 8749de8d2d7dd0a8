"""Timing with the host's clock on a GPU: one synchronous call with its copies, as a caller without streams sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.backends._cuda.device import Gpu
from harness.backends._cuda.launcher import Launcher
from harness.backends._cuda.moves import Moves
from harness.errors import ConfigError, MeasurementError
from harness.machine.clocks import HostTimer

WINDOW = "host"
LAUNCHES = ("auto", "enqueue", "graph")  # a gate would hold the very call that is waited for


class CudaHostTimer(HostTimer):
    """Times copy to page-locked memory, copy in, compute, copy out, wait, and a fresh copy of the outputs.

    `work` enqueues copy in, compute and copy out, as `moves` has them; the other arguments are those of
    `CudaTimer`. Raises: ConfigError for a launch that cannot be had.
    """

    def __init__(
        self,
        gpu: Gpu,
        stream: Any,
        *,
        moves: Moves,
        work: Callable[[], object],
        bind: Callable[[], int],
        batch_size: int,
        launch: str,
        can_capture: bool = True,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        if launch not in LAUNCHES:
            raise ConfigError(f"launch {launch!r} with the window {WINDOW} is none of {', '.join(LAUNCHES)}")
        super().__init__(self._call_and_wait, batch_size=batch_size, window=WINDOW, outputs=moves.read_outputs)
        self._gpu, self._moves = gpu, moves
        self._launcher = Launcher(gpu, stream, work=work, bind=bind, note=note)
        try:
            self._launcher.prepare(launch, can_capture=can_capture, can_gate=False)
        except BaseException:
            self.close()
            raise
        self.launch = self._launch()

    def lower(self, *, graph: bool, gate: bool) -> None:
        """Go without the graph that this timer has; see `protocols.LowersLaunch`."""
        self._launcher.lower(graph=graph, gate=gate)
        self.launch = self._launch()

    def sample(self, n_samples: int) -> NDArray[np.float64]:
        """Return float64[n_samples]: ns per call. Raises: MeasurementError when the device fails."""
        try:
            self._launcher.ready()
            self.launch = self._launch()
            return super().sample(n_samples)
        except self._gpu.errors as error:
            raise MeasurementError(f"timing batch {self.batch_size} failed on the device: {error}") from error

    def close(self) -> None:
        """Destroy the graph and let go of the stream; a second call does nothing."""
        self._launcher.close()

    def _launch(self) -> str:
        return "graph" if self._launcher.graph else "enqueue"

    def _call_and_wait(self) -> object:
        self._moves.stage()
        self._launcher.launch_once()()
        self._launcher.stream.synchronize()
        return self._moves.collect()
