"""An ONNX Runtime session on device buffers and on a stream of ours, timed with CUDA events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.backends._cuda.device import Gpu
from harness.backends._cuda.engine import CudaEngine, TimedWork
from harness.backends._cuda.ring import N_SLOTS, Ring, Slot
from harness.backends._inputs import check_images, check_output_shape
from harness.backends.ort_cuda.opened import OpenCudaSession
from harness.backends.ort_cuda.session import CudaSession
from harness.errors import ConfigError, MeasurementError
from harness.models.onnx_graph import NodeIndex, one_line
from harness.protocols import Images, Outputs
from harness.records import Layer


class OrtCudaEngine(CudaEngine):
    """One session on one GPU, its stream and its buffers. Implements `protocols.Engine`."""

    def __init__(
        self,
        make_session: Callable[[Any], CudaSession],
        gpu: Gpu,
        *,
        label: str,
        index: int,
        batch_sizes: tuple[int, ...],
        nodes: NodeIndex,
        engine_bytes: int,
    ) -> None:
        """`make_session`: of a stream, not opened yet; `index`: of the GPU."""
        super().__init__(gpu, label=label)
        self._index, self._largest = index, max(batch_sizes)
        session = make_session(self._compute)
        self._session = OpenCudaSession(session, label=label, nodes=nodes, largest=self._largest, tensors=None)
        self.input, self.output = self._session.inputs[0], self._session.outputs[0]
        self._bindings: dict[tuple[int, int], Any] = {}  # (device address, batch) -> IOBinding
        self._ring = Ring(
            gpu,
            [self._make_slot(self._largest, stream=gpu.stream()) for _ in range(N_SLOTS)],
            bind=lambda slot: 0,
            enqueue=self._enqueue,
            check=self._check,
            note=self._note,
            can_capture=not self._session.only_enqueued,
            is_batch_fixed=self.input.shape[0] is not None,
        )
        self.facts = self._session.facts(engine_bytes)
        self._opened()

    @property
    def on_cpu(self) -> tuple[str, ...]:
        """Return the nodes that run on the CPU."""
        return self._session.on_cpu

    def infer(self, images: Images) -> Outputs:
        """Run one batch and return fresh memory. Raises: MeasurementError."""
        outputs = super().infer(images)
        check_output_shape(outputs.shape, len(images), self._label)
        return outputs

    def layers(self) -> tuple[Layer, ...]:
        """Return the kernels that ran; see `CudaSession.layers`."""
        self._check_open()
        return self._session.layers()

    def _free(self) -> None:
        self._bindings.clear()
        del self._session

    def _timed_work(self, slot: Slot, n_images: int, launch: str) -> TimedWork:
        """Return what a timer repeats: a session with nodes on the CPU waits in a run, so it can only be enqueued.

        Raises: ConfigError.
        """
        if self._session.only_enqueued and launch not in ("auto", "enqueue"):
            raise ConfigError(f"{self._label}: {self._session.only_enqueued}; use the launch 'enqueue'")

        def bind() -> int:
            self._check_idle()
            return 0  # every batch has a binding of its own, so no graph becomes invalid

        return TimedWork(
            bind=bind,
            run=lambda: self._enqueue(slot),
            entries_per_call=self._session.entries_per_call,
            launch="enqueue" if self._session.only_enqueued else launch,
        )

    def _binding(self, slot: Slot) -> Any:
        key = (int(slot.device_in), slot.n_images)
        if key not in self._bindings:
            binding = self._session.binding()
            places = (
                (binding.bind_input, self.input.name, slot.device_in, slot.host_in),
                (binding.bind_output, self.output.name, slot.device_out, slot.host_out),
            )
            for bind, name, memory, host in places:
                bind(name, "cuda", self._index, np.float32, [slot.n_images, *host.shape[1:]], int(memory))
            self._bindings[key] = binding
        return self._bindings[key]

    def _enqueue(self, slot: Slot) -> None:
        try:
            self._session.session.run_with_iobinding(self._binding(slot), self._session.run_options)
        except self._session.errors as error:
            raise MeasurementError(f"{self._label}: batch {slot.n_images} failed: {one_line(error)}") from error

    def _check(self, images: Images) -> None:
        check_images(images, self.input, self._label)
        if len(images) > self._largest:
            raise MeasurementError(
                f"{self._label}: batch {len(images)} is above {self._largest}, the largest asked for"
            )
