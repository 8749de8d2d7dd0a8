"""One ONNX Runtime session on the CPU."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.backends._cpu import check_timer_request, import_runtime, n_profile_runs
from harness.backends._inputs import (
    check_feeds,
    check_images,
    check_output_shape,
    check_same_outputs,
    kept_outputs,
    profile_feeds,
)
from harness.backends.ort.profile import layers_from_profile
from harness.backends.ort.runtime import all_tensors, session_error, single_tensors, vendor_errors
from harness.errors import BuildError, MeasurementError
from harness.machine.clocks import BoundContext, HostTimer, outputs_of
from harness.models.onnx_graph import NodeIndex, load_model, one_line
from harness.protocols import Images, Outputs, Tensors, Timer
from harness.records import Artifact, EngineFacts, Layer
from harness.specs import BuildOptions

PROVIDER = "CPUExecutionProvider"


class OrtEngine:
    """One session. Implements `protocols.Engine`, `RunsTensors` and `RunsConcurrently`."""

    concurrency = "threads over one session"

    def __init__(
        self,
        artifact: Artifact,
        *,
        label: str,
        batch_sizes: tuple[int, ...],
        options: BuildOptions,
        session_config: Mapping[str, str],
        nodes: NodeIndex,
    ) -> None:
        self._ort = import_runtime("onnxruntime")
        self._errors = vendor_errors()
        self._label, self._artifact, self._nodes = label, artifact, nodes
        self._threads, self._config = options.num_threads, dict(session_config)
        self._profile_batch = max(batch_sizes)
        started = time.perf_counter_ns()
        self._session: Any = self._open_session(self._options())
        build_ns = time.perf_counter_ns() - started
        self.inputs, self.outputs = all_tensors(self._session, label)
        if options.tensors is None:
            single_tensors(self._session, label)
        self.input, self.output = self.inputs[0], self.outputs[0]
        self._tensors, self._names = options.tensors, [tensor.name for tensor in self.outputs]
        self.facts = EngineFacts(
            build_ns=build_ns,
            engine_bytes=os.path.getsize(artifact.onnx_path),
            options=_read_back(self._session, self._config),
            versions={"onnxruntime": self._ort.__version__},
            notes=("engine size is that of the ONNX file: ONNX Runtime keeps no other form on disk",),
        )

    def infer(self, images: Images) -> Outputs:
        """Run one batch and return fresh memory. Raises: MeasurementError."""
        session = self._opened()
        check_images(images, self.input, self._label)
        try:
            outputs = session.run([self.output.name], {self.input.name: images})[0]
        except self._errors as error:
            raise MeasurementError(f"{self._label}: a batch of {len(images)} failed: {one_line(error)}") from error
        check_output_shape(outputs.shape, len(images), self._label)
        result: Outputs = outputs
        return result

    def run(self, feeds: Tensors) -> Tensors:
        """Run once and return every output, in fresh memory. Raises: MeasurementError."""
        session = self._opened()
        check_feeds(feeds, self.inputs, self._label)
        try:
            return dict(zip(self._names, session.run(self._names, dict(feeds)), strict=True))
        except self._errors as error:
            raise MeasurementError(f"{self._label}: a run failed: {one_line(error)}") from error

    def infer_stream(self, batches: Iterable[Images]) -> Iterator[Outputs]:
        """Yield the outputs of each batch in order."""
        for images in batches:
            yield self.infer(images)

    def timer(self, images: Images, *, window: str, launch: str) -> Timer:
        """Bind a batch and its output, and return a timer. Raises: ConfigError, MeasurementError."""
        check_timer_request(window, launch, self._label)
        feeds, expected = {self.input.name: images}, {self.output.name: self.infer(images)}
        call, bound_out = self._bound_call(feeds, expected, copies=window == "end_to_end")
        outputs = outputs_of(bound_out[self.output.name])
        return HostTimer(call, batch_size=len(images), window=window, outputs=outputs)

    def bind(self, feeds: Tensors, *, batch_size: int, window: str, launch: str) -> Timer:
        """Bind inputs and outputs, and return a timer. Raises: ConfigError, MeasurementError."""
        check_timer_request(window, launch, self._label)
        call, bound_out = self._bound_call(feeds, self.run(feeds), copies=window == "end_to_end")
        return HostTimer(call, batch_size=batch_size, window=window, outputs=kept_outputs(bound_out))

    def contexts(self, images: Images, n_contexts: int) -> tuple[BoundContext, ...]:
        """Bind a batch to buffers of their own for every thread; the session is one. Raises: MeasurementError."""
        feeds, expected = {self.input.name: images}, {self.output.name: self.infer(images)}
        bound = [self._bound_call(feeds, expected, copies=False) for _ in range(n_contexts)]
        return tuple(BoundContext(run=call, outputs=outputs_of(buffers[self.output.name])) for call, buffers in bound)

    def layers(self) -> tuple[Layer, ...]:
        """Return the kernels that ran and their median times, from a profiled session of its own."""
        self._opened()
        feeds = profile_feeds(self.inputs, self._tensors, self._profile_batch)
        with tempfile.TemporaryDirectory(prefix="harness-profile-") as folder:
            options = self._options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
            session = self._open_session(options)
            n_runs = self._run_for_profile(session, feeds)
            events = json.loads(Path(session.end_profiling()).read_text())
            optimized = load_model(Path(folder) / "optimized.onnx", with_weights=False)
        outputs = {node.name: tuple(node.output) for node in optimized.graph.node if node.name}
        return layers_from_profile(events, n_runs=n_runs, nodes=self._nodes, outputs=outputs)

    def close(self) -> None:
        """Free the session; a second call does nothing."""
        self._session = None

    def __enter__(self) -> OrtEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> Any:
        if self._session is None:
            raise MeasurementError(f"{self._label}: the engine is closed; build it again")
        return self._session

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = self._ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3  # errors; saving an optimized graph warns
        # A spinning pool steals the cores from whatever is timed next, for example the FP32 reference.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        for key, value in self._config.items():
            options.add_session_config_entry(key, value)
        return options

    def _open_session(self, options: Any) -> Any:
        try:
            session = self._ort.InferenceSession(self._artifact.onnx_path, options, providers=[PROVIDER])
        except self._errors as error:
            raise session_error(self._artifact, self._label, PROVIDER, error) from error
        if session.get_providers()[0] != PROVIDER:
            raise BuildError(f"{self._label}: asked for {PROVIDER}, ONNX Runtime took {session.get_providers()}")
        return session

    def _bound_call(
        self, feeds: Tensors, expected: Tensors, *, copies: bool
    ) -> tuple[Callable[[], object], dict[str, NDArray[np.generic]]]:
        """Return a call on buffers bound beforehand, and the outputs'; `copies`: inputs go in, fresh outputs out."""
        session = self._opened()
        bound_in = {name: np.array(array, order="C") for name, array in feeds.items()}
        bound_out = {name: np.empty_like(array, order="C") for name, array in expected.items()}
        binding = session.io_binding()
        for bind, arrays in ((binding.bind_input, bound_in), (binding.bind_output, bound_out)):
            for name, array in arrays.items():
                bind(name, "cpu", 0, array.dtype, list(array.shape), array.ctypes.data)
        run = session.run_with_iobinding
        try:
            run(binding)
        except self._errors as error:
            raise MeasurementError(f"{self._label}: a bound run failed: {one_line(error)}") from error
        check_same_outputs(bound_out, expected, self._label)

        def compute(_keep: object = (bound_in, bound_out)) -> None:
            run(binding)

        pairs = tuple((bound_in[name], array) for name, array in feeds.items())

        def end_to_end() -> object:
            for target, source in pairs:
                np.copyto(target, source)
            run(binding)
            return [array.copy() for array in bound_out.values()]

        return end_to_end if copies else compute, bound_out

    def _run_for_profile(self, session: Any, feeds: Tensors) -> int:
        """Run for about a second and return how often."""
        feed = dict(feeds)
        started = time.perf_counter_ns()
        session.run(self._names, feed)
        n_more = n_profile_runs(time.perf_counter_ns() - started)
        for _ in range(n_more):
            session.run(self._names, feed)
        return n_more + 1


def _read_back(session: Any, config: Mapping[str, str]) -> dict[str, str]:
    options = session.get_session_options()
    read = {
        "provider": session.get_providers()[0],
        "intra_op_num_threads": str(options.intra_op_num_threads),
        "inter_op_num_threads": str(options.inter_op_num_threads),
        "graph_optimization_level": str(options.graph_optimization_level).rpartition(".")[2],
    }
    for key in ("session.intra_op.allow_spinning", *config):
        read[key] = options.get_session_config_entry(key)
    return read
