"""An open session on a GPU: which nodes the CPU runs, how it may be launched, and its facts."""

from __future__ import annotations

import time
from typing import Any

from harness.backends._inputs import profile_feeds
from harness.backends.ort_cuda.session import CudaSession
from harness.errors import MeasurementError
from harness.models.onnx_graph import NodeIndex, one_line
from harness.protocols import Tensors
from harness.records import EngineFacts, Layer, TensorSpec
from harness.specs import ModelTensors

ENTRIES_PER_NODE = 4  # kernels that one node may put on the stream, about
N_NAMED = 5


class OpenCudaSession:
    """One session, opened; what it says of itself, and one run of it."""

    def __init__(
        self, session: CudaSession, *, label: str, nodes: NodeIndex, largest: int, tensors: ModelTensors | None
    ) -> None:
        """Open it; `largest`: batch; `tensors`: of a model of any graph. Raises: BuildError, Unsupported."""
        self._session, self._label, self._nodes = session, label, nodes
        started = time.perf_counter_ns()
        refused = session.open()
        self.build_ns = time.perf_counter_ns() - started
        if tensors is None:
            source, target = session.tensors()
            self.inputs: tuple[TensorSpec, ...] = (source,)
            self.outputs: tuple[TensorSpec, ...] = (target,)
        else:
            self.inputs, self.outputs = session.all_tensors()
        self._run_options = session.ort.RunOptions()
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._feeds = profile_feeds(self.inputs, tensors, largest)
        self._profiled = self.layers() if refused or session.captured else ()
        self.on_cpu = tuple(
            layer.name for layer in self._profiled if layer.kernel.partition(":")[0] not in session.on_device
        )
        on_cpu = f"{len(self.on_cpu)} nodes run on the CPU" if self.on_cpu else ""
        self.only_enqueued = on_cpu or session.captured  # why there is no other launch

    @property
    def entries_per_call(self) -> int:
        """Return how many entries of a stream's queue one run takes, about."""
        return ENTRIES_PER_NODE * len(self._nodes.kinds)

    def facts(self, engine_bytes: int) -> EngineFacts:
        """Return what there is to say of it."""
        notes = ["engine size is that of the ONNX file: ONNX Runtime keeps no other form on disk"]
        if self.on_cpu:
            more = ", ..." if len(self.on_cpu) > N_NAMED else ""
            notes.append(f"{len(self.on_cpu)} nodes run on the CPU: {', '.join(self.on_cpu[:N_NAMED])}{more}")
        return EngineFacts(
            build_ns=self.build_ns,
            engine_bytes=engine_bytes,
            options=self._session.read_back(),
            versions={"onnxruntime": self._session.ort.__version__},
            notes=(*notes, *self._session.notes(self._profiled)),
        )

    def layers(self) -> tuple[Layer, ...]:
        """Return the kernels that ran; see `CudaSession.layers`."""
        return self._session.layers(self._feeds, self._nodes)

    def binding(self) -> Any:
        """Return a binding of nothing yet."""
        return self._session.session.io_binding()

    def enqueue(self, binding: Any, what: str) -> None:
        """Put one run on the stream. Raises: MeasurementError that says what failed."""
        try:
            self._session.session.run_with_iobinding(binding, self._run_options)
        except self._session.errors as error:
            raise MeasurementError(f"{self._label}: {what} failed: {one_line(error)}") from error

    def outputs_of(self, feeds: Tensors, what: str) -> list[Any]:
        """Run once, with ONNX Runtime's own copies, and return the outputs. Raises: MeasurementError."""
        names = [tensor.name for tensor in self.outputs]
        try:
            found: list[Any] = self._session.session.run(names, dict(feeds))
        except self._session.errors as error:
            raise MeasurementError(f"{self._label}: {what} failed: {one_line(error)}") from error
        return found
