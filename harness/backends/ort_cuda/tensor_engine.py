"""An ONNX Runtime session of any graph on device buffers and on a stream of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from harness.backends._cuda.base import TimedWork
from harness.backends._cuda.device import Gpu
from harness.backends._cuda.tensors import CudaTensorEngine, Place
from harness.backends.ort_cuda.opened import OpenCudaSession
from harness.backends.ort_cuda.session import CudaSession
from harness.errors import ConfigError
from harness.models.onnx_graph import NodeIndex
from harness.protocols import Tensors
from harness.records import Layer
from harness.specs import ModelTensors


class OrtCudaTensorEngine(CudaTensorEngine):
    """One session of any graph on one GPU. Implements `protocols.Engine` and `RunsTensors`.

    A single run leaves the outputs to ONNX Runtime, as their sizes may depend on values; a timer binds them.
    """

    def __init__(
        self,
        make_session: Callable[[Any], CudaSession],
        gpu: Gpu,
        tensors: ModelTensors,
        *,
        label: str,
        index: int,
        batch_sizes: tuple[int, ...],
        nodes: NodeIndex,
        engine_bytes: int,
    ) -> None:
        """`make_session`: of a stream, not opened yet; `index`: of the GPU."""
        super().__init__(gpu, label=label)
        self._index = index
        session = make_session(self._compute)
        self._session = OpenCudaSession(session, label=label, nodes=nodes, largest=max(batch_sizes), tensors=tensors)
        self._take(self._session.inputs, self._session.outputs, {})
        self.facts = self._session.facts(engine_bytes)
        self._opened()

    @property
    def on_cpu(self) -> tuple[str, ...]:
        """Return the nodes that run on the CPU."""
        return self._session.on_cpu

    def layers(self) -> tuple[Layer, ...]:
        """Return the kernels that ran; see `CudaSession.layers`."""
        self._check_open()
        return self._session.layers()

    def _free(self) -> None:
        del self._session

    def _run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        found = self._session.outputs_of(feeds, "a run")
        return {tensor.name: array for tensor, array in zip(self.outputs, found, strict=True)}

    def _timed_work(self, places: Mapping[str, Place], launch: str) -> TimedWork:
        """Return what a timer repeats; see `OrtCudaEngine`. Raises: ConfigError."""
        why = self._session.only_enqueued
        if why and launch not in ("auto", "enqueue"):
            raise ConfigError(f"{self._label}: {why}; use the launch 'enqueue'")
        binding = self._session.binding()
        inputs = {tensor.name for tensor in self.inputs}
        for name, place in places.items():
            bind = binding.bind_input if name in inputs else binding.bind_output
            bind(name, "cuda", self._index, place.host.dtype.type, list(place.host.shape), int(place.device))

        def ready() -> int:
            self._check_open()
            return 0  # every timer has a binding of its own, so no graph becomes invalid

        return TimedWork(
            bind=ready,
            run=lambda: self._session.enqueue(binding, "a timed run"),
            entries_per_call=self._session.entries_per_call,
            launch="enqueue" if why else launch,
        )
