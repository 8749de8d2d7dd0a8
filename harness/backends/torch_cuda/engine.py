"""A PyTorch module on device buffers and on a stream of ours, timed with CUDA events."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from harness.backends._cuda.device import Gpu
from harness.backends._cuda.engine import CudaEngine, TimedWork
from harness.backends._cuda.ring import N_SLOTS, Ring, Slot
from harness.backends._host.conversion import facts_of
from harness.backends._host.request import OpenRequest
from harness.backends._inputs import check_images
from harness.backends.torch_cuda.module import CudaModule
from harness.errors import BuildError, MeasurementError
from harness.protocols import Images
from harness.records import Layer

ENTRIES_PER_NODE = 4  # kernels that one node may put on the stream, about


class TorchCudaEngine(CudaEngine):
    """One module on one GPU, its stream and its buffers. Implements `protocols.Engine`."""

    def __init__(
        self, make_module: Callable[[Any], CudaModule], gpu: Gpu, request: OpenRequest, *, largest: int
    ) -> None:
        """`make_module`: of the stream that it runs on; `largest`: batch. Raises: BuildError, Unsupported."""
        super().__init__(gpu, label=request.label)
        self.input, self.output = request.input, request.output
        if self.output.shape[1] is None:
            raise BuildError(f"{self._label}: output {self.output.name} has a free number of classes")
        self._largest = largest
        self._entries_per_call = ENTRIES_PER_NODE * len(request.nodes.kinds)
        started = time.perf_counter_ns()
        self._module = make_module(self._compute)
        elapsed_ns = time.perf_counter_ns() - started
        self._views: dict[tuple[int, int], tuple[Any, Any]] = {}  # (device address, batch) -> input, output
        self._ring = Ring(
            gpu,
            [self._make_slot(self._largest, stream=gpu.stream()) for _ in range(N_SLOTS)],
            bind=lambda slot: 0,
            enqueue=self._enqueue,
            check=self._check,
            note=self._note,
            can_capture=True,
            is_batch_fixed=self.input.shape[0] is not None,
        )
        made = self._module.converted
        self.facts = facts_of(
            elapsed_ns,
            made,
            engine_bytes=len(made.data) if made is not None else os.path.getsize(request.artifact.onnx_path),
            options=self._module.read_back(),
            versions=self._module.versions(),
            notes=(*self._module.notes, *(() if made is not None else ("engine size is that of the ONNX file",))),
        )
        self._opened()

    def layers(self) -> tuple[Layer, ...]:
        """Return the nodes; see `CudaModule.layers`. Raises: MeasurementError."""
        self._check_idle()
        return self._module.layers((self._largest, *(size or 1 for size in self.input.shape[1:])))

    def _free(self) -> None:
        self._views.clear()
        self._module.close()
        del self._module

    def _timed_work(self, slot: Slot, n_images: int, launch: str) -> TimedWork:
        del n_images

        def bind() -> int:
            self._check_idle()
            return 0  # every batch has tensors of its own, so no graph becomes invalid

        return TimedWork(
            bind=bind, run=lambda: self._enqueue(slot), entries_per_call=self._entries_per_call, launch=launch
        )

    def _enqueue(self, slot: Slot) -> None:
        key = (int(slot.device_in), slot.n_images)
        if key not in self._views:
            sides = ((slot.device_in, slot.host_in), (slot.device_out, slot.host_out))
            source, target = (self._module.tensor(int(at), (slot.n_images, *host.shape[1:])) for at, host in sides)
            self._views[key] = source, target
        self._module.enqueue(*self._views[key])

    def _check(self, images: Images) -> None:
        check_images(images, self.input, self._label)
        if len(images) > self._largest:
            raise MeasurementError(
                f"{self._label}: batch {len(images)} is above {self._largest}, the largest asked for"
            )
