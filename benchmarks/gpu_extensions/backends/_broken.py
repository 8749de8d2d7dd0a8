"""TensorRT backends that break on the device, each in its way, for the check `containment` of gpu_checks.py."""

import ctypes
from collections.abc import Callable

from harness.backends._cuda.device import Gate, Gpu
from harness.backends.trt.adapter import BACKEND, TrtBackend

LARGEST_BLOCK, SMALLEST_BLOCK = 1 << 33, 1 << 22  # [bytes]


class BrokenBackend(TrtBackend):
    """Builds an ordinary engine and breaks it with `spoil(engine)`; `before` runs first, on the GPU to be used."""

    def __init__(self, name: str, *, spoil: Callable | None = None, before: Callable | None = None) -> None:
        super().__init__(name, BACKEND.required_modules[0], BACKEND.install_hint)
        self._spoil, self._before = spoil, before

    def build(self, artifact, *, device, **more):
        """Build the engine that will break. Raises: BuildError."""
        kept = Gpu() if self._before else None
        try:
            if kept is not None:
                self._before(kept)
            engine = super().build(artifact, device=device, **more)
        finally:
            if kept is not None:
                kept.close()
        if self._spoil is not None:
            self._spoil(engine)
        return engine


def die(engine):
    """End the process by reading address 0, with an engine and a CUDA context open."""
    ctypes.string_at(0)


def hang(engine):
    """Let the next inference wait on the device for what never comes."""
    gate = Gate(engine._gpu, engine._ring.slots[0].compute)
    engine._gate_kept_open = gate
    gate.shut()


def point_nowhere(engine):
    """Give the engine addresses that are no memory."""
    lane = engine._lanes.main[0]
    point = lane.point
    lane.point = lambda tensors, source, target: point(tensors, 1 << 45, 1 << 45)


def fill_memory(gpu):
    """Take all device memory but a few MiB."""
    size = LARGEST_BLOCK
    while size >= SMALLEST_BLOCK:
        try:
            gpu.device_memory(size)
        except gpu.errors:
            size //= 2
