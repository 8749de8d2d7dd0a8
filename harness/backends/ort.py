"""ONNX Runtime on the CPU. `import onnxruntime` happens in `probe` and `build`, in worker processes only."""

from __future__ import annotations

import importlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from harness.backends._cpu import (
    INSTALL_HINT,
    check_timer_request,
    import_reason,
    import_runtime,
    n_profile_runs,
    support_on_cpu,
    unusable,
)
from harness.backends._inputs import check_images, check_output_shape, timing_images
from harness.errors import BuildError, HarnessError, MeasurementError, Unsupported
from harness.machine.clocks import HostTimer
from harness.models.onnx_graph import NodeIndex, check_scales, index_nodes, load_model, one_line
from harness.precision.effective import is_multiplying, median_times, onnx_nodes_of
from harness.protocols import CalibrationSet, Images, Outputs, Timer
from harness.records import Artifact, Availability, EngineFacts, Layer, Support, TensorSpec
from harness.specs import BF16_RUNTIME_RECIPE, BuildOptions, Case, Precision

PROVIDER = "CPUExecutionProvider"
ERROR_CLASSES = (
    "EPFail",
    "EngineError",
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "NoModel",
    "NoSuchFile",
    "NotImplemented",
    "RuntimeException",
)
KERNEL_EVENT = "_kernel_time"
MAX_FUSED_NODES = 4  # convolution, batch norm, addition, activation
# ONNX Runtime's names of tensor types in a profile -> ours.
PRECISION_OF_TYPE = {
    "float": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "double": "fp64",
    "int8": "int8",
    "uint8": "int8",
    "int16": "int16",
    "uint16": "int16",
    "int32": "int32",
    "int64": "int64",
}
# Kernels that change format, shape or place only.
MOVING_OPS = frozenset(
    {
        "Cast",
        "Concat",
        "Constant",
        "DequantizeLinear",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MemcpyFromHost",
        "MemcpyToHost",
        "Pad",
        "QuantizeLinear",
        "ReorderInput",
        "ReorderOutput",
        "Reshape",
        "Shape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
# Graphs of one product: what is asked is whether a kernel is there.
BF16_PROBES = {
    "Conv": "g (bfloat16[1,1,4,4] x, bfloat16[1,1,3,3] w) => (bfloat16[1,1,2,2] y) { y = Conv(x, w) }",
    "Gemm": "g (bfloat16[1,4] x, bfloat16[4,2] w) => (bfloat16[1,2] y) { y = Gemm(x, w) }",
    "MatMul": "g (bfloat16[1,4] x, bfloat16[4,2] w) => (bfloat16[1,2] y) { y = MatMul(x, w) }",
}
# What ONNX Runtime answers when no provider has a kernel: on the CPU alone, and with CUDA before it.
NO_KERNEL = (
    re.compile(r"Could not find an implementation for (?P<kind>\w+)\(\d+\) node with name '(?P<name>[^']*)'"),
    re.compile(r"Provider type for (?P<kind>\w+) node with name '(?P<name>[^']*)' is not set"),
)
COMPUTE_OPS_BY_PRECISION = {"DynamicQuantizeMatMul": "int8", "MatMulNBits": "int4"}


class OrtBackend:
    """Builds ONNX Runtime sessions on the CPU. Implements `protocols.Backend`."""

    install_hint = INSTALL_HINT
    required_modules = ("onnxruntime", "onnx")

    def __init__(self, name: str = "ort", session_config: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._session_config = dict(session_config or {})

    def probe(self) -> Availability:
        """Say whether ONNX Runtime is installed and has its CPU provider."""
        versions = {}
        for module in self.required_modules:
            try:
                versions[module] = str(importlib.import_module(module).__version__)
            except ImportError as error:
                return unusable(self.name, import_reason(module, error))
        if PROVIDER not in importlib.import_module("onnxruntime").get_available_providers():
            return unusable(self.name, f"this onnxruntime has no {PROVIDER}")
        return Availability(backend=self.name, usable=True, versions=versions, devices=("cpu",))

    def supports(self, case: Case) -> Support:
        """Say whether the case can run on a CPU."""
        if case.precision is Precision.BF16 and (reason := bf16_refusal(case.recipe, PROVIDER)):
            return Support(supported=False, reason=reason)
        return support_on_cpu(case, self.name)

    def build(
        self,
        artifact: Artifact,
        *,
        device: str,
        batch_sizes: tuple[int, ...],
        options: BuildOptions,
        calibration: CalibrationSet | None = None,
    ) -> OrtEngine:
        """Build one session for all batch sizes.

        Raises: BuildError; BackendUnavailable; Unsupported for a BF16 file with an operator that has no kernel.
        """
        del calibration  # the artifact holds its scales
        if device != "cpu":
            raise BuildError(f"{self.name} was asked for device {device}; it runs on cpu")
        if not Path(artifact.onnx_path).is_file():
            raise BuildError(f"{artifact.onnx_path} does not exist; prepare {artifact.model} again")
        model = load_model(artifact.onnx_path)
        check_scales(model, artifact.onnx_path)
        return OrtEngine(
            artifact,
            label=f"{artifact.model}-{self.name}-{artifact.precision}",
            batch_sizes=batch_sizes,
            options=options,
            session_config=self._session_config,
            nodes=index_nodes(model),
        )


class OrtEngine:
    """One session. Implements `protocols.Engine`."""

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
        self.input, self.output = _tensors(self._session, label)
        self.facts = EngineFacts(
            build_ns=build_ns,
            engine_bytes=os.path.getsize(artifact.onnx_path),
            options=self._read_back(),
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

    def infer_stream(self, batches: Iterable[Images]) -> Iterator[Outputs]:
        """Yield the outputs of each batch in order."""
        for images in batches:
            yield self.infer(images)

    def timer(self, images: Images, *, window: str, launch: str) -> Timer:
        """Bind a batch and its output, and return a timer. Raises: ConfigError, MeasurementError."""
        check_timer_request(window, launch, self._label)
        expected = self.infer(images)
        call = self._bound_call(images, expected, copies=window == "end_to_end")
        return HostTimer(call, batch_size=len(images), window=window)

    def layers(self) -> tuple[Layer, ...]:
        """Return the kernels that ran and their median times, from a profiled session of its own."""
        self._opened()
        fixed = self.input.shape[0]
        images = timing_images(self.input, fixed or self._profile_batch)
        with tempfile.TemporaryDirectory(prefix="harness-profile-") as folder:
            options = self._options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
            session = self._open_session(options)
            n_runs = self._run_for_profile(session, images)
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

    def _read_back(self) -> dict[str, str]:
        options = self._session.get_session_options()
        found = {
            "provider": self._session.get_providers()[0],
            "intra_op_num_threads": str(options.intra_op_num_threads),
            "inter_op_num_threads": str(options.inter_op_num_threads),
            "graph_optimization_level": str(options.graph_optimization_level).rpartition(".")[2],
        }
        for key in ("session.intra_op.allow_spinning", *self._config):
            found[key] = options.get_session_config_entry(key)
        return found

    def _bound_call(self, images: Images, expected: Outputs, *, copies: bool) -> Callable[[], object]:
        """Return a call on buffers bound beforehand; with `copies`, images go in and a fresh output comes out."""
        session = self._opened()
        bound_in, bound_out = np.array(images, order="C"), np.empty_like(expected, order="C")
        binding = session.io_binding()
        for bind, name, array in (
            (binding.bind_input, self.input.name, bound_in),
            (binding.bind_output, self.output.name, bound_out),
        ):
            bind(name, "cpu", 0, np.float32, list(array.shape), array.ctypes.data)
        run = session.run_with_iobinding
        run(binding)
        if not np.allclose(bound_out, expected, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise MeasurementError(f"{self._label}: the bound run gives other outputs than infer; timing would mislead")

        def compute(_keep: object = (bound_in, bound_out)) -> None:
            run(binding)

        def end_to_end() -> object:
            np.copyto(bound_in, images)
            run(binding)
            return bound_out.copy()

        return end_to_end if copies else compute

    def _run_for_profile(self, session: Any, images: Images) -> int:
        """Run for about a second and return how often."""
        feed = {self.input.name: images}
        started = time.perf_counter_ns()
        session.run([self.output.name], feed)
        n_more = n_profile_runs(time.perf_counter_ns() - started)
        for _ in range(n_more):
            session.run([self.output.name], feed)
        return n_more + 1


def layers_from_profile(
    events: Sequence[Mapping[str, Any]],
    *,
    n_runs: int,
    nodes: NodeIndex,
    outputs: Mapping[str, tuple[str, ...]],
) -> tuple[Layer, ...]:
    """Return one layer per kernel of ONNX Runtime's profile, in the order they ran.

    `nodes` is of the artifact; `outputs` gives the tensors of an optimized node.
    A kernel's precision is the type of its first input as it was fed. Times are medians over the runs.
    Raises: MeasurementError for a profile without kernels.
    """
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith(KERNEL_EVENT)]
    if not kernels or len(kernels) % n_runs:
        raise MeasurementError(f"the profile of {n_runs} runs holds {len(kernels)} kernel times; expected a multiple")
    n_kernels = len(kernels) // n_runs
    runs = [kernels[first : first + n_kernels] for first in range(0, len(kernels), n_kernels)]
    times = median_times({str(place): float(e["dur"]) for place, e in enumerate(run)} for run in runs[1:] or runs)
    layers = []
    for place, event in enumerate(runs[-1]):
        name, kind = event["name"].removesuffix(KERNEL_EVENT), event["args"]["op_name"]
        layers.append(
            Layer(
                name=name,
                kind=kind,
                kernel=f"{event['args'].get('provider', '')}:{kind}",
                precision=_kernel_precision(kind, event["args"].get("input_type_shape", [])),
                is_compute=kind not in MOVING_OPS,
                onnx_nodes=_nodes_of(name, kind, nodes, outputs),
                time_ns=times[str(place)] * 1_000,  # the profile counts microseconds
            )
        )
    return tuple(layers)


def bf16_refusal(recipe: str, provider: str) -> str:
    """Return why a provider of ONNX Runtime cannot run a BF16 recipe, "" when it can.

    ONNX Runtime adds no casts around a BF16 node without a kernel, as it does for FP16: it refuses the session. So one
    is tried for every kind of product; of other operators the build tells: see `session_error`.
    """
    if recipe == BF16_RUNTIME_RECIPE:
        return f"ONNX Runtime computes in the file's own types, and recipe {recipe} leaves them FP32"
    ort = import_runtime("onnxruntime")
    options, lacking = ort.SessionOptions(), []
    options.log_severity_level = 4  # the refusals are the answer
    for kind, graph in BF16_PROBES.items():
        try:
            ort.InferenceSession(_bf16_probe(graph), options, providers=[provider])
        except vendor_errors():
            lacking.append(kind)
    return f"ONNX Runtime {ort.__version__} has no BF16 {', '.join(lacking)} on its {provider}" if lacking else ""


def session_error(artifact: Artifact, label: str, provider: str, error: BaseException) -> HarnessError:
    """Return what a refused session is: Unsupported for a BF16 file with a node without a kernel, else BuildError."""
    lacking = next((match for match in (pattern.search(str(error)) for pattern in NO_KERNEL) if match), None)
    if artifact.precision is not Precision.BF16 or lacking is None:
        return BuildError(f"{label}: ONNX Runtime cannot build {artifact.onnx_path}: {one_line(error)}")
    version = import_runtime("onnxruntime").__version__
    node = f" ({lacking['name']})" if lacking["name"] else ""
    return Unsupported(f"ONNX Runtime {version} has no BF16 {lacking['kind']} on its {provider}{node}")


def _bf16_probe(text: str) -> bytes:
    """Return a model of one node from ONNX's text form."""
    parser = importlib.import_module("onnx.parser")
    model: bytes = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 22]> {text}').SerializeToString()
    return model


def vendor_errors() -> tuple[type[Exception], ...]:
    """Return ONNX Runtime's exception classes; each is a plain subclass of Exception."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    return tuple(getattr(state, name) for name in ERROR_CLASSES if hasattr(state, name))


def _kernel_precision(kind: str, inputs: Sequence[Mapping[str, object]]) -> str:
    if kind in COMPUTE_OPS_BY_PRECISION:
        return COMPUTE_OPS_BY_PRECISION[kind]
    first = next(iter(inputs[0])) if inputs and inputs[0] else ""
    return PRECISION_OF_TYPE.get(first, first)


def _nodes_of(name: str, kind: str, nodes: NodeIndex, outputs: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    found = onnx_nodes_of(name, nodes.names)
    for output in () if found else outputs.get(name, ()):
        found = found or onnx_nodes_of(output, nodes.names)
    if not found or not is_multiplying(kind) or is_multiplying(nodes.kinds[found[0]]):
        return found
    # A fused kernel goes by what it ends with (Relu): walk back to the product it begins with.
    chain = [found[0]]
    while chain[0] in nodes.previous and len(chain) <= MAX_FUSED_NODES:
        chain.insert(0, nodes.previous[chain[0]])
        if is_multiplying(nodes.kinds[chain[0]]):
            return tuple(chain)
    return found


def _tensors(session: Any, label: str) -> tuple[TensorSpec, TensorSpec]:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise BuildError(f"{label}: the model has {len(inputs)} inputs ({names}); a classifier with one is expected")
    return tensor_spec(inputs[0], label), tensor_spec(outputs[0], label)


def tensor_spec(value: Any, label: str) -> TensorSpec:
    """Return a session's input or output as ours. Raises: BuildError for a type other than float32."""
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    if value.type != "tensor(float)":
        raise BuildError(f"{label}: {value.name} is {value.type}; expected tensor(float)")
    return TensorSpec(name=value.name, dtype="float32", shape=shape)


BACKEND = OrtBackend()
