"""ONNX files as other runtimes need them: one FP32 input and output, types widened to FP32, a fixed batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.backends._cpu import import_runtime
from harness.errors import BuildError
from harness.models.onnx_graph import INSTALL_HINT
from harness.records import TensorSpec

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto, ValueInfoProto

DROPPED_BITS = 16  # of float32's 32 that bfloat16 lacks


def single_tensors(model: ModelProto, label: str) -> tuple[TensorSpec, TensorSpec]:
    """Return a model's input and output. Raises: BuildError for other numbers of them, or a type other than float32."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    for noun, values in (("input", inputs), ("output", list(model.graph.output))):
        if len(values) != 1:
            names = ", ".join(value.name for value in values)
            raise BuildError(f"{label}: the model has {len(values)} {noun}s ({names}); a classifier has one")
    source, target = _tensor(inputs[0], label), _tensor(model.graph.output[0], label)
    if len(target.shape) != 2:
        raise BuildError(f"{label}: output {target.name} has shape {list(target.shape)}; expected [N, classes]")
    return source, target


def widened(model: ModelProto) -> ModelProto:
    """Return a copy whose FP16 and BF16 tensors are FP32 of the same values: the weights stay rounded, no cast is left.

    What a runtime without such files computes of them in its own way.
    """
    onnx = import_runtime("onnx", INSTALL_HINT)
    wide: ModelProto = onnx.ModelProto()
    wide.CopyFrom(model)
    for tensor in wide.graph.initializer:
        _widen_tensor(tensor)
    for node in wide.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen_tensor(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _narrow_types():
                attribute.i = onnx.TensorProto.FLOAT
    for value in (*wide.graph.input, *wide.graph.output, *wide.graph.value_info):
        if value.type.tensor_type.elem_type in _narrow_types():
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    _drop_idle_casts(wide)
    return wide


def with_batch(model: ModelProto, n_images: int) -> ModelProto:
    """Return a copy of a fixed batch, without the shapes of what lies between."""
    onnx = import_runtime("onnx", INSTALL_HINT)
    fixed: ModelProto = onnx.ModelProto()
    fixed.CopyFrom(model)
    weights = {tensor.name for tensor in fixed.graph.initializer}
    del fixed.graph.value_info[:]
    for value in (*fixed.graph.input, *fixed.graph.output):
        sizes = value.type.tensor_type.shape.dim
        if value.name not in weights and sizes:
            sizes[0].dim_value = n_images
    return fixed


def _tensor(value: ValueInfoProto, label: str) -> TensorSpec:
    onnx = import_runtime("onnx", INSTALL_HINT)
    kind = value.type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT:
        name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise BuildError(f"{label}: {value.name} is {name}; expected float")
    shape = tuple(size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim)
    return TensorSpec(name=value.name, dtype="float32", shape=shape)


def _narrow_types() -> tuple[int, int]:
    onnx = import_runtime("onnx", INSTALL_HINT)
    return onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16


def _widen_tensor(tensor: TensorProto) -> None:
    onnx = import_runtime("onnx", INSTALL_HINT)
    if tensor.data_type not in _narrow_types():
        return
    values = float_values(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def float_values(tensor: TensorProto) -> NDArray[np.float32]:
    """Return the values of an FP16 or BF16 tensor; NumPy itself has no bfloat16."""
    onnx = import_runtime("onnx", INSTALL_HINT)
    if tensor.data_type == onnx.TensorProto.BFLOAT16:
        raw = np.frombuffer(tensor.raw_data, "<u2") if tensor.raw_data else np.array(tensor.int32_data, "<u2")
        return (raw.astype(np.uint32) << DROPPED_BITS).view(np.float32).reshape(tuple(tensor.dims))
    values: NDArray[np.float32] = onnx.numpy_helper.to_array(tensor).astype(np.float32)
    return values


def _drop_idle_casts(model: ModelProto) -> None:
    """Take out the casts to FP32 of what is FP32 now; the graph's output keeps its name."""
    onnx = import_runtime("onnx", INSTALL_HINT)
    outputs, same, kept = {value.name for value in model.graph.output}, dict[str, str](), []
    for node in model.graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        to_float = [a for a in node.attribute if a.name == "to" and a.i == onnx.TensorProto.FLOAT]
        if node.op_type == "Cast" and to_float and node.output[0] not in outputs:
            same[node.output[0]] = node.input[0]
        elif node.op_type == "Cast" and to_float:
            kept.append(onnx.helper.make_node("Identity", list(node.input), list(node.output), name=node.name))
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
