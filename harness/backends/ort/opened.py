"""An open session on the CPU: run, bound to buffers, profiled. Any inputs and outputs, by name."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.backends._cpu import import_runtime, n_profile_runs
from harness.backends._inputs import check_feeds, check_same_outputs
from harness.backends.ort.profile import layers_from_profile
from harness.backends.ort.rebound import ReboundOutputs
from harness.backends.ort.runtime import (
    ORT_SUFFIX,
    PROVIDER,
    all_tensors,
    register_libraries,
    session_error,
    vendor_errors,
)
from harness.errors import BuildError, MeasurementError
from harness.models.onnx_graph import NodeIndex, load_model, one_line
from harness.protocols import Tensors
from harness.records import Artifact, Layer


class OpenSession:
    """One session of one artifact, until it is closed."""

    def __init__(
        self,
        artifact: Artifact,
        *,
        label: str,
        num_threads: int,
        config: Mapping[str, str],
        libraries: Sequence[str],
    ) -> None:
        """Open it. `libraries`: with operators. Raises: BuildError, Unsupported, BackendUnavailable."""
        self._ort = import_runtime("onnxruntime")
        self._errors = vendor_errors()
        self._artifact, self._label, self._libraries = artifact, label, tuple(libraries)
        self._threads, self._config = num_threads, dict(config)
        self._session: Any = self._open(self._options())
        self.inputs, self.outputs = all_tensors(self._session, label)
        self._names = [tensor.name for tensor in self.outputs]

    @property
    def version(self) -> str:
        """Return ONNX Runtime's version."""
        return str(self._ort.__version__)

    @property
    def session(self) -> Any:
        """Return the session itself. Raises: MeasurementError once it is closed."""
        if self._session is None:
            raise MeasurementError(f"{self._label}: the engine is closed; build it again")
        return self._session

    def run(self, feeds: Tensors) -> Tensors:
        """Run once and return every output, in fresh memory. Raises: MeasurementError."""
        check_feeds(feeds, self.inputs, self._label)
        return dict(zip(self._names, self.outputs_of(self._names, feeds), strict=True))

    def outputs_of(self, names: list[str], feeds: Tensors) -> list[NDArray[Any]]:
        """Run unchecked inputs once and return some outputs. Raises: MeasurementError."""
        try:
            found: list[NDArray[Any]] = self.session.run(names, feeds)
        except self._errors as error:
            shapes = {name: list(array.shape) for name, array in feeds.items()}
            raise MeasurementError(f"{self._label}: a run of shapes {shapes} failed: {one_line(error)}") from error
        return found

    def bound(
        self, feeds: Tensors, expected: Tensors, *, copies: bool
    ) -> tuple[Callable[[], object], Mapping[str, NDArray[Any]]]:
        """Return a call on buffers bound beforehand, and the outputs'; `copies`: inputs go in, fresh outputs out.

        `expected`: outputs of the same inputs, that the call must give. A buffer of another rank than the file names
        is refused; such an output is bound without one, anew for every call, and ONNX Runtime finds its memory.
        Raises: MeasurementError.
        """
        bound_in = {name: np.array(array, order="C") for name, array in feeds.items()}
        binding, ranks = self.session.io_binding(), {tensor.name: len(tensor.shape) for tensor in self.outputs}
        buffers = {name: np.empty_like(a, order="C") for name, a in expected.items() if a.ndim == ranks[name]}
        for bind, arrays in ((binding.bind_input, bound_in), (binding.bind_output, buffers)):
            for name, array in arrays.items():
                bind(name, "cpu", 0, array.dtype, list(array.shape), array.ctypes.data)
        bound_out: Mapping[str, NDArray[Any]] = buffers
        run: Callable[[], None] = partial(self.session.run_with_iobinding, binding)
        if others := [name for name in expected if name not in buffers]:
            bound_out = rebound = ReboundOutputs(self.session, binding, buffers, others)
            run = rebound.run
        # RuntimeError is what comes of outputs of another rank than the file names.
        failures: tuple[type[Exception], ...] = (*self._errors, RuntimeError)
        try:
            run()
        except failures as error:
            raise MeasurementError(f"{self._label}: a bound run failed: {one_line(error)}") from error
        check_same_outputs(bound_out, expected, self._label)

        def compute(_keep: object = (bound_in, bound_out)) -> None:
            run()

        pairs = tuple((bound_in[name], array) for name, array in feeds.items())

        def end_to_end() -> object:
            for target, source in pairs:
                np.copyto(target, source)
            run()
            return [array.copy() for array in bound_out.values()]

        return end_to_end if copies else compute, bound_out

    def layers(self, feeds: Tensors, nodes: NodeIndex) -> tuple[Layer, ...]:
        """Return the kernels that ran and their median times, from a profiled session of its own."""
        with tempfile.TemporaryDirectory(prefix="harness-profile-") as folder:
            options = self._options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            is_onnx = Path(self._artifact.onnx_path).suffix != ORT_SUFFIX
            if is_onnx:  # the other format cannot be written as ONNX
                options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
            session = self._open(options)
            n_runs = _run_for_profile(session, self._names, feeds)
            events = json.loads(Path(session.end_profiling()).read_text())
            optimized = load_model(Path(folder) / "optimized.onnx", with_weights=False).graph.node if is_onnx else ()
        outputs = {node.name: tuple(node.output) for node in optimized if node.name}
        return layers_from_profile(events, n_runs=n_runs, nodes=nodes, outputs=outputs)

    def read_back(self) -> dict[str, str]:
        """Return the session's options as it has them."""
        options = self.session.get_session_options()
        read = {
            "provider": self.session.get_providers()[0],
            "intra_op_num_threads": str(options.intra_op_num_threads),
            "inter_op_num_threads": str(options.inter_op_num_threads),
            "graph_optimization_level": str(options.graph_optimization_level).rpartition(".")[2],
        }
        for key in ("session.intra_op.allow_spinning", *self._config):
            read[key] = options.get_session_config_entry(key)
        return read

    def export(self, path: Path) -> None:
        """Write the optimized graph, in ONNX Runtime's own format where the name ends so. Raises: BuildError."""
        options = self._options()
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.save_model_format", "ORT" if path.suffix == ORT_SUFFIX else "ONNX")
        self._open(options)

    def close(self) -> None:
        """Free the session; a second call does nothing."""
        self._session = None

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
        register_libraries(options, self._libraries)
        return options

    def _open(self, options: Any) -> Any:
        try:
            session = self._ort.InferenceSession(self._artifact.onnx_path, options, providers=[PROVIDER])
        except self._errors as error:
            raise session_error(self._artifact, self._label, PROVIDER, error) from error
        if session.get_providers()[0] != PROVIDER:
            raise BuildError(f"{self._label}: asked for {PROVIDER}, ONNX Runtime took {session.get_providers()}")
        return session


def _run_for_profile(session: Any, names: list[str], feeds: Tensors) -> int:
    """Run for about a second and return how often."""
    feed = dict(feeds)
    started = time.perf_counter_ns()
    session.run(names, feed)
    n_more = n_profile_runs(time.perf_counter_ns() - started)
    for _ in range(n_more):
        session.run(names, feed)
    return n_more + 1
