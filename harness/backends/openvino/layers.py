"""OpenVINO's runtime model -> the layers that ran."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.backends._cpu import n_profile_runs
from harness.backends.openvino.binding import set_inputs
from harness.backends.openvino.compiled import NS_PER_MS, CompiledModels
from harness.models.onnx_graph import NodeIndex
from harness.precision.effective import is_multiplying, median_times, onnx_nodes_of
from harness.protocols import Tensors
from harness.records import Layer

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
    # A product that writes the graph's output bears the name of the cast behind it: it is a product all the same.
    only_casts = bool(onnx_nodes) and nodes.casts.issuperset(onnx_nodes) and not is_multiplying(kind)
    return Layer(
        name=name,
        kind=kind,
        kernel=kernel,
        precision=PRECISION_OF_TYPE.get(suffix[1], suffix[1]) if suffix else "",
        is_compute=kind not in MOVING_LAYERS and not only_casts,
        onnx_nodes=onnx_nodes,
        time_ns=times.get(name),
    )


def rt_info_texts(info: Any) -> dict[str, str]:
    """Return what of a runtime node's information is read, as text."""
    return {key: info[key].astype(str) for key in ("layerType", "primitiveType", "originalLayersNames") if key in info}


def layer_times_ns(models: CompiledModels, size: int, feeds: Tensors) -> dict[str, float]:
    """Return the median time per layer name [ns] of a separate engine with performance counters."""
    request = models.compile(size, PERF_COUNT=True).create_infer_request()
    _kept = set_inputs(models, request, feeds)
    request.infer()
    request.infer()  # the first one is 10-60 times slower
    runs = []
    for _ in range(n_profile_runs(request.latency * NS_PER_MS)):
        request.infer()
        runs.append(
            {
                part.node_name: part.real_time.total_seconds() * 1e9
                for part in request.get_profiling_info()
                if part.status == models.ov.ProfilingInfo.Status.EXECUTED
            }
        )
    return median_times(runs)
