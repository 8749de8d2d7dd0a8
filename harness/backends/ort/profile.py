"""ONNX Runtime's profile -> the layers that ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import MeasurementError
from harness.models.onnx_graph import NodeIndex
from harness.precision.effective import is_multiplying, median_times, onnx_nodes_of
from harness.records import Layer

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
COMPUTE_OPS_BY_PRECISION = {"DynamicQuantizeMatMul": "int8", "MatMulNBits": "int4"}


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
