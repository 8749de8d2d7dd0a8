"""OpenVINO on the CPU. `import openvino` happens in `probe` and `build`, in worker processes only.

Engines have static shapes, one per batch size asked (up to 23 % faster at batch 1); any other batch runs on one
dynamic engine, built when first needed. ENABLE_CPU_RESERVATION is never set: it cuts every later model to one thread.
"""

from __future__ import annotations

import importlib
import io
import re
import time
from collections.abc import Iterable, Iterator, Mapping
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
from harness.errors import BuildError, MeasurementError
from harness.machine.clocks import HostTimer, ReportedTimer
from harness.models.onnx_graph import NodeIndex, check_scales, index_nodes, load_model
from harness.precision.effective import median_times, onnx_nodes_of
from harness.protocols import CalibrationSet, Images, Outputs, Timer
from harness.records import Artifact, Availability, EngineFacts, Layer, Support, TensorSpec
from harness.specs import BuildOptions, Case, Precision

NAME = "openvino"
DEVICE = "CPU"
HINTS = {
    Precision.FP32: "f32",
    Precision.FP16: "f16",
    Precision.BF16: "bf16",
    Precision.INT8: "f32",  # what is not quantized
}
READ_BACK = (
    "INFERENCE_PRECISION_HINT",
    "PERFORMANCE_HINT",
    "NUM_STREAMS",
    "INFERENCE_NUM_THREADS",
    "ENABLE_CPU_PINNING",
    "ENABLE_HYPER_THREADING",
)
NS_PER_MS = 1e6
# A primitive is named <implementation>_<type of its arithmetic>. Source: OpenVINO 2026.4, intel_cpu/src/node.cpp,
# Node::getPrimitiveDescriptorType; runtimePrecision alone names the type of compressed weights.
PRIMITIVE_TYPE = re.compile(r"_(f64|f32|f16|bf16|I8|i8|u8|i32|i64)$")
PRECISION_OF_TYPE = {
    "f64": "fp64",
    "f32": "fp32",
    "f16": "fp16",
    "bf16": "bf16",
    "I8": "int8",
    "i8": "int8",
    "u8": "int8",
}
SKIPPED_LAYERS = frozenset({"Const", "Input", "Output"})
MOVING_LAYERS = frozenset(
    {
        "Broadcast",
        "Concatenation",
        "Convert",
        "FakeQuantize",
        "Gather",
        "Pad",
        "Reorder",
        "Reshape",
        "ShapeOf",
        "Split",
        "Squeeze",
        "StridedSlice",
        "Transpose",
        "Unsqueeze",
    }
)
ADDED_PARTS = re.compile(r"(?:/WithoutBiases|/DequantizationMultiply|/DequantizationSubtract)+$")


class OpenvinoBackend:
    """Builds OpenVINO engines on the CPU. Implements `protocols.Backend`."""

    name = NAME
    install_hint = INSTALL_HINT
    required_modules = ("openvino", "onnx")

    def probe(self) -> Availability:
        """Say whether OpenVINO is installed and finds a CPU."""
        versions = {}
        for module in self.required_modules:
            try:
                versions[module] = str(importlib.import_module(module).__version__).partition("-")[0]
            except ImportError as error:
                return unusable(NAME, import_reason(module, error))
        core = importlib.import_module("openvino").Core()
        if DEVICE not in core.available_devices:
            return unusable(NAME, f"OpenVINO finds no CPU device, only {', '.join(core.available_devices) or 'none'}")
        return Availability(
            backend=NAME,
            usable=True,
            versions=versions,
            devices=("cpu",),
            device_names=(str(core.get_property(DEVICE, "FULL_DEVICE_NAME")),),
        )

    def supports(self, case: Case) -> Support:
        """Say whether the case can run on a CPU."""
        return support_on_cpu(case, NAME)

    def build(
        self,
        artifact: Artifact,
        *,
        device: str,
        batch_sizes: tuple[int, ...],
        options: BuildOptions,
        calibration: CalibrationSet | None = None,
    ) -> OpenvinoEngine:
        """Build a static engine for every batch size. Raises: BuildError, BackendUnavailable."""
        del calibration  # the artifact holds its scales
        if device != "cpu":
            raise BuildError(f"{NAME} was asked for device {device}; it runs on cpu")
        if not Path(artifact.onnx_path).is_file():
            raise BuildError(f"{artifact.onnx_path} does not exist; prepare {artifact.model} again")
        model = load_model(artifact.onnx_path)
        check_scales(model, artifact.onnx_path)
        return OpenvinoEngine(
            artifact, batch_sizes=batch_sizes, num_threads=options.num_threads, nodes=index_nodes(model)
        )


class OpenvinoEngine:
    """Compiled models of one artifact, by batch size. Implements `protocols.Engine`."""

    def __init__(self, artifact: Artifact, *, batch_sizes: tuple[int, ...], num_threads: int, nodes: NodeIndex) -> None:
        self._ov = import_runtime("openvino")
        self._label, self._artifact, self._nodes = f"{artifact.model}-{NAME}-{artifact.precision}", artifact, nodes
        self._config = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": num_threads,
            "INFERENCE_PRECISION_HINT": HINTS[artifact.precision],
        }
        self._compiled: dict[int | None, Any] = {}  # batch size -> model; None is the dynamic one
        self._requests: dict[int | None, Any] = {}
        started = time.perf_counter_ns()
        self._core: Any = self._ov.Core()
        self.input, self.output = self._read_tensors()
        self._sizes = (self.input.shape[0],) if self.input.shape[0] else tuple(sorted(set(batch_sizes)))
        for size in self._sizes:
            self._compiled[size] = self._compile(size)
        build_ns = time.perf_counter_ns() - started
        self.facts = self._facts(build_ns)

    def infer(self, images: Images) -> Outputs:
        """Run one batch and return fresh memory. Raises: MeasurementError."""
        self._opened()
        check_images(images, self.input, self._label)
        request = self._request(len(images))
        # Never `request.infer(images)`: one thread, a free batch and a wrong shape give the previous result, unsaid.
        batch = np.ascontiguousarray(images)
        try:
            request.set_input_tensor(self._ov.Tensor(batch, shared_memory=True))
            request.infer()
        except RuntimeError as error:
            raise MeasurementError(f"{self._label}: a batch of {len(images)} failed: {_reason(error)}") from error
        outputs: Outputs = np.array(request.get_output_tensor().data)  # the next call overwrites the runtime's memory
        check_output_shape(outputs.shape, len(images), self._label)
        return outputs

    def infer_stream(self, batches: Iterable[Images]) -> Iterator[Outputs]:
        """Yield the outputs of each batch in order."""
        for images in batches:
            yield self.infer(images)

    def timer(self, images: Images, *, window: str, launch: str) -> Timer:
        """Bind a batch and its output to a static engine, and return a timer. Raises: ConfigError, MeasurementError.

        `compute` is the duration that OpenVINO itself reports, as its benchmark_app does; `end_to_end` is wall time
        with the copies in and out.
        """
        check_timer_request(window, launch, self._label)
        expected = self.infer(images)
        size = len(images)
        if size not in self._compiled:
            self._compiled[size] = self._compile(size)
        request = self._compiled[size].create_infer_request()
        bound_in, bound_out = np.array(images, order="C"), np.empty_like(expected, order="C")
        request.set_input_tensor(self._ov.Tensor(bound_in, shared_memory=True))
        request.set_output_tensor(self._ov.Tensor(bound_out, shared_memory=True))
        request.infer()
        if not np.allclose(bound_out, expected, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise MeasurementError(f"{self._label}: the bound run gives other outputs than infer; timing would mislead")

        def compute(_keep: object = (bound_in, bound_out)) -> float:
            request.infer()
            return float(request.latency * NS_PER_MS)

        def end_to_end() -> object:
            np.copyto(bound_in, images)
            request.infer()
            return bound_out.copy()

        if window == "compute":
            return ReportedTimer(compute, batch_size=size, window=window)
        return HostTimer(end_to_end, batch_size=size, window=window)

    def layers(self) -> tuple[Layer, ...]:
        """Return the layers of the largest engine as they ran, with median times of a profiled engine of its own."""
        self._opened()
        size = max(self._sizes)
        images = timing_images(self.input, size)
        self.infer(images)  # before the first inference some layers name no primitive
        times = self._layer_times_ns(size, images)
        ops = self._compiled[size].get_runtime_model().get_ordered_ops()
        layers = (
            layer_from_rt_info(op.get_friendly_name(), _texts(op.get_rt_info()), self._nodes, times) for op in ops
        )
        return tuple(layer for layer in layers if layer)

    def close(self) -> None:
        """Free all engines; a second call does nothing."""
        self._requests.clear()
        self._compiled.clear()
        self._core = None

    def __enter__(self) -> OpenvinoEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> None:
        if self._core is None:
            raise MeasurementError(f"{self._label}: the engine is closed; build it again")

    def _read(self) -> Any:
        try:
            return self._core.read_model(self._artifact.onnx_path)
        except RuntimeError as error:
            raise BuildError(
                f"{self._label}: OpenVINO cannot read {self._artifact.onnx_path}: {_reason(error)}"
            ) from error

    def _read_tensors(self) -> tuple[TensorSpec, TensorSpec]:
        model = self._read()
        if len(model.inputs) != 1:
            names = ", ".join(port.get_any_name() for port in model.inputs)
            raise BuildError(f"{self._label}: the model has {len(model.inputs)} inputs ({names}); expected one")
        return self._tensor(model.inputs[0]), self._tensor(model.outputs[0])

    def _tensor(self, port: Any) -> TensorSpec:
        name, kind = port.get_any_name(), port.get_element_type().get_type_name()
        if kind != "f32":
            raise BuildError(f"{self._label}: {name} is {kind}; expected f32")
        shape = tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape())
        return TensorSpec(name=name, dtype="float32", shape=shape)

    def _compile(self, size: int | None, **extra: object) -> Any:
        """Compile for one batch size; None keeps the batch free."""
        model = self._read()
        try:
            if size is not None and self.input.shape[0] is None:
                free = [-1 if n is None else n for n in self.input.shape[1:]]
                model.reshape(self._ov.PartialShape([size, *free]))
            return self._core.compile_model(model, DEVICE, {**self._config, **extra})
        except RuntimeError as error:
            raise BuildError(
                f"{self._label}: OpenVINO cannot build it for batch {size or 'N'}: {_reason(error)}"
            ) from error

    def _request(self, size: int) -> Any:
        key = size if size in self._compiled else None
        if key not in self._requests:
            if key not in self._compiled:
                self._compiled[key] = self._compile(key)
            self._requests[key] = self._compiled[key].create_infer_request()
        return self._requests[key]

    def _facts(self, build_ns: int) -> EngineFacts:
        compiled = self._compiled[self._sizes[0]]
        found = {name: _property_text(compiled.get_property(name)) for name in READ_BACK}
        capabilities = [str(item) for item in self._core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")]
        asked = str(self._config["INFERENCE_PRECISION_HINT"])
        notes = [
            f"build time covers {len(self._sizes)} static engines (batch {', '.join(map(str, self._sizes))})",
            f"engine size is that of the exported model for batch {self._sizes[0]}",
        ]
        if found["INFERENCE_PRECISION_HINT"] != asked:
            notes.append(
                f"asked INFERENCE_PRECISION_HINT={asked}, reads back {found['INFERENCE_PRECISION_HINT']}: "
                f"this CPU does {', '.join(capabilities)}"
            )
        if int(found["INFERENCE_NUM_THREADS"]) != self._config["INFERENCE_NUM_THREADS"]:
            notes.append(f"asked {self._config['INFERENCE_NUM_THREADS']} threads, got {found['INFERENCE_NUM_THREADS']}")
        return EngineFacts(
            build_ns=build_ns,
            engine_bytes=_exported_bytes(compiled),
            options={**found, "OPTIMIZATION_CAPABILITIES": " ".join(capabilities)},
            versions={"openvino": str(self._ov.__version__).partition("-")[0]},
            notes=tuple(notes),
        )

    def _layer_times_ns(self, size: int, images: Images) -> dict[str, float]:
        """Return the median time per layer name [ns] of a separate engine with performance counters."""
        request = self._compile(size, PERF_COUNT=True).create_infer_request()
        request.set_input_tensor(self._ov.Tensor(images, shared_memory=True))
        request.infer()
        request.infer()  # the first one is 10-60 times slower
        runs = []
        for _ in range(n_profile_runs(request.latency * NS_PER_MS)):
            request.infer()
            runs.append(
                {
                    part.node_name: part.real_time.total_seconds() * 1e9
                    for part in request.get_profiling_info()
                    if part.status == self._ov.ProfilingInfo.Status.EXECUTED
                }
            )
        return median_times(runs)


def layer_from_rt_info(
    name: str, info: Mapping[str, str], nodes: NodeIndex, times: Mapping[str, float]
) -> Layer | None:
    """Return a layer from a node of the runtime model, None for constants, inputs and outputs.

    The suffix of primitiveType says what the arithmetic was done in; runtimePrecision would name the type of
    compressed weights.
    """
    kind = info.get("layerType", "")
    if kind in SKIPPED_LAYERS:
        return None
    kernel = info.get("primitiveType", "")
    suffix = PRIMITIVE_TYPE.search(kernel)
    originals = filter(None, info.get("originalLayersNames", "").split(","))
    found_nodes = [onnx_nodes_of(ADDED_PARTS.sub("", original), nodes.names) for original in originals]
    onnx_nodes = tuple(dict.fromkeys(node for found in found_nodes for node in found))
    only_casts = bool(onnx_nodes) and nodes.casts.issuperset(onnx_nodes)
    return Layer(
        name=name,
        kind=kind,
        kernel=kernel,
        precision=PRECISION_OF_TYPE.get(suffix[1], suffix[1]) if suffix else "",
        is_compute=kind not in MOVING_LAYERS and not only_casts,
        onnx_nodes=onnx_nodes,
        time_ns=times.get(name),
    )


def _texts(info: Any) -> dict[str, str]:
    return {key: info[key].astype(str) for key in ("layerType", "primitiveType", "originalLayersNames") if key in info}


def _property_text(value: Any) -> str:
    """Return a property as the text it is set by: `f32` rather than `<Type: 'float32'>`."""
    return str(value.get_type_name()) if hasattr(value, "get_type_name") else str(value).rpartition(".")[2]


def _exported_bytes(compiled: Any) -> int:
    exported = compiled.export_model()
    return len(exported.getbuffer() if isinstance(exported, io.BytesIO) else exported)


def _reason(error: RuntimeError) -> str:
    """Return the line of OpenVINO's error that says why: the last; the first ones say where it was thrown."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("-- ") if lines else type(error).__name__


BACKEND = OpenvinoBackend()
