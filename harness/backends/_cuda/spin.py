"""A kernel that only waits: what slows an engine down on purpose, inside the timed region and on the device."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from harness.backends._cuda.device import CudaError, Gpu, checked
from harness.backends._cuda.launcher import Launcher

# One thread that reads the SM's cycle counter until enough have passed. The driver compiles it for the card at hand.
PTX = b"""
.version 6.0
.target sm_50
.address_size 64
.visible .entry spin(.param .u64 cycles)
{
    .reg .u64 %begin, %now, %wait;
    .reg .pred %p;
    ld.param.u64 %wait, [cycles];
    mov.u64 %begin, %clock64;
again:
    mov.u64 %now, %clock64;
    sub.u64 %now, %now, %begin;
    setp.lt.u64 %p, %now, %wait;
    @%p bra again;
    ret;
}
\0"""


SAMPLES = 50  # that a time is the median of while an engine is slowed down
CALIBRATION_CYCLES = 200_000  # about 0.1 ms: so long that its time tells how long a cycle is


def slow_down(gpu: Gpu, launcher: Launcher, time_ns: Callable[[], float], fraction: float) -> None:
    """Let every call of a launcher be followed by a wait of a fraction of its present time.

    `time_ns`: times one call, the wait in it. Raises: CudaError, MeasurementError.
    """
    base_ns, spin = time_ns(), Spin(gpu)
    launcher.append(lambda: spin.enqueue(launcher.stream))
    ends = []
    for spin.cycles in (0, CALIBRATION_CYCLES):
        launcher.recapture()
        ends.append(time_ns())
    spin.cycles = round(fraction * base_ns * CALIBRATION_CYCLES / (ends[1] - ends[0]))
    launcher.recapture()


class Spin:
    """The kernel on one GPU. `cycles`: of the SM's clock, how long it waits; read at each enqueue."""

    def __init__(self, gpu: Gpu) -> None:
        """Load it. Raises: CudaError, also without cuda-bindings."""
        if gpu.api is None:
            raise CudaError("a kernel needs cuda-bindings: pip install cuda-bindings")
        self.cycles = 0
        self._api = gpu.api
        module = gpu.own(_Module(gpu.api))
        self._function = checked("cuModuleGetFunction", gpu.api.cuModuleGetFunction(module.handle, b"spin"))

    def enqueue(self, stream: Any) -> None:
        """Put one wait on a stream. Raises: CudaError."""
        parameters = ((self.cycles,), (ctypes.c_uint64,))
        one, stream_handle = (1, 1, 1), self._api.CUstream(stream.handle)
        launch = self._api.cuLaunchKernel
        checked("cuLaunchKernel", launch(self._function, *one, *one, 0, stream_handle, parameters, 0))


class _Module:
    """A loaded module, unloaded with its GPU."""

    def __init__(self, api: Any) -> None:
        self._api, self.handle = api, checked("cuModuleLoadData", api.cuModuleLoadData(PTX))

    def free(self) -> None:
        checked("cuModuleUnload", self._api.cuModuleUnload(self.handle))
