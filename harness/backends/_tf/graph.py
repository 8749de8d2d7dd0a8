"""ONNX file -> a Python function over TensorFlow, for the operators of classifiers.

Images are NCHW at the border and NHWC within, as TensorFlow's kernels for CPUs want them. Nodes stand in name scopes
`onnx<place>`, which come back in the names of a converted model's tensors.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.backends._cpu import import_runtime
from harness.backends._tf.shapes import SHAPE_OPERATORS, HwcRows
from harness.backends._tf.step import TO_NHWC, Array, Step, rank_of, to_nchw, to_nhwc
from harness.errors import Unsupported
from harness.models.onnx_graph import constants_to_initializers

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

SCOPE = re.compile(r"onnx(\d+)(?:_\d+)?/")


def scope_of(place: int) -> str:
    """Return the name scope of the node at a place of the graph."""
    return f"onnx{place}"


def nodes_of_name(name: str, nodes: list[str]) -> tuple[str, ...]:
    """Return the ONNX nodes that a tensor's name tells of, in order."""
    places = sorted({int(place) for place in SCOPE.findall(name)})
    return tuple(nodes[place] for place in places if place < len(nodes))


def check_operators(model: ModelProto, label: str) -> None:
    """Refuse a model with operators that are not written here. Raises: Unsupported, which lists them by name."""
    counts = Counter(node.op_type for node in model.graph.node if node.op_type not in {*OPERATORS, "Constant"})
    if counts:
        listed = ", ".join(f"{kind} ({count})" for kind, count in sorted(counts.items()))
        raise Unsupported(f"{label}: the conversion to TensorFlow has no operator {listed}")


def function_of(tf: Any, model: ModelProto) -> Callable[[Any], Any]:
    """Return f(float32[N, C, H, W] or [N, K]) -> the output; traceable by tf.function. Raises: Unsupported."""
    onnx = import_runtime("onnx")
    constants_to_initializers(model)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    source = next(value.name for value in model.graph.input if value.name not in weights)
    target = model.graph.output[0].name
    consumers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)

    def run(images: Any) -> Any:
        known: dict[str, Any] = {**weights, source: to_nhwc(tf, images)}
        for place, node in enumerate(model.graph.node):
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            after = consumers.get(node.output[0], [])
            feeds = bool(after) and all(_multiplies(other, node.output[0], weights) for other in after)
            step = Step(
                tf=tf,
                node=node,
                attributes=attributes,
                values=[known[name] if name else None for name in node.input],
                is_last_of_images=feeds,
            )
            with tf.name_scope(scope_of(place)):
                known[node.output[0]] = OPERATORS[node.op_type](step)
        with tf.name_scope("output"):
            return tf.identity(to_nchw(tf, known[target]), name=target)

    return run


def _multiplies(node: NodeProto, name: str, weights: Mapping[str, Array]) -> bool:
    """Tell whether a tensor is the first factor of a product with constant weights."""
    return node.op_type in ("Gemm", "MatMul") and node.input[0] == name and node.input[1] in weights


def _padded(step: Step, fill: float) -> tuple[Any, list[int]]:
    """Return the image padded as the node says, and the kernel's step sizes. Raises: Unsupported."""
    value, strides = step.values[0], list(step.attribute("strides", [1, 1]))
    if step.attribute("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise step.refuse(f"padding {step.attributes['auto_pad'].decode()}")
    if rank_of(value) != 4:
        raise step.refuse(f"{step.node.op_type} of {rank_of(value) - 2} dimensions; expected 2")
    top, left, bottom, right = step.attribute("pads", [0, 0, 0, 0])
    if top or left or bottom or right:
        value = step.tf.pad(value, [[0, 0], [top, bottom], [left, right], [0, 0]], constant_values=fill)
    return value, strides


def _conv(step: Step) -> Any:
    tf, kernel, groups = step.tf, step.values[1], step.attribute("group", 1)
    image, strides = _padded(step, 0.0)
    dilations = list(step.attribute("dilations", [1, 1]))
    if groups > 1 and groups == kernel.shape[0] and kernel.shape[1] == 1:
        steps = [1, *strides, 1]
        made = tf.nn.depthwise_conv2d(image, kernel.transpose(2, 3, 0, 1), steps, "VALID", dilations=dilations)
    else:  # TensorFlow tells the number of groups by the kernel's shape
        made = tf.nn.conv2d(image, kernel.transpose(2, 3, 1, 0), strides, "VALID", dilations=dilations)
    bias = step.values[2] if len(step.values) > 2 else None
    return made if bias is None else tf.nn.bias_add(made, bias)


def _max_pool(step: Step) -> Any:
    _check_pool(step)
    image, strides = _padded(step, -math.inf)
    return step.tf.nn.max_pool2d(image, step.attributes["kernel_shape"], strides, "VALID")


def _average_pool(step: Step) -> Any:
    _check_pool(step)
    if any(step.attribute("pads", [0])) and not step.attribute("count_include_pad", 0):
        raise step.refuse("AveragePool that leaves its padding out")
    image, strides = _padded(step, 0.0)
    return step.tf.nn.avg_pool2d(image, step.attributes["kernel_shape"], strides, "VALID")


def _check_pool(step: Step) -> None:
    if step.attribute("ceil_mode", 0) or any(size != 1 for size in step.attribute("dilations", [1])):
        raise step.refuse(f"{step.node.op_type} that rounds up or has holes")


def _product(step: Step, matrix: Any) -> Any:
    value = step.values[0]
    if isinstance(value, HwcRows):
        return step.tf.matmul(value.rows, value.weights(matrix))
    if rank_of(value) != 2:
        raise step.refuse(f"{step.node.op_type} of rank {rank_of(value)}; expected 2")
    return step.tf.matmul(value, matrix)


def _gemm(step: Step) -> Any:
    if step.attribute("transA", 0):
        raise step.refuse("Gemm of a transposed first factor")
    weights = step.values[1].T if step.attribute("transB", 0) else step.values[1]
    made = _product(step, weights * np.float32(step.attribute("alpha", 1.0)))
    bias = step.values[2] if len(step.values) > 2 else None
    if bias is None:
        return made
    scaled = bias * np.float32(step.attribute("beta", 1.0))
    return step.tf.nn.bias_add(made, scaled) if rank_of(scaled) == 1 else made + scaled


def _clip(step: Step) -> Any:
    low, high = (_bound(step, place, name) for place, name in ((1, "min"), (2, "max")))
    if (low, high) == (0.0, 6.0):
        return step.tf.nn.relu6(step.values[0])  # the converter fuses this form into the layer before it
    return step.tf.clip_by_value(step.values[0], low, high)


def _bound(step: Step, place: int, name: str) -> float:
    value = step.values[place] if len(step.values) > place else step.attribute(name, None)
    if value is None:
        return -math.inf if name == "min" else math.inf
    return float(value)


def _batch_norm(step: Step) -> Any:
    value, scale, bias, mean, variance = step.values[:5]
    factor = scale / np.sqrt(variance + step.attribute("epsilon", 1e-5))
    return value * factor + (bias - mean * factor)  # channels are last here, so both broadcast


def _softmax(step: Step) -> Any:
    value = step.values[0]
    if rank_of(value) != 2 or step.attribute("axis", -1) not in (-1, 1):
        raise step.refuse(f"Softmax of rank {rank_of(value)}; expected rows")
    return step.tf.nn.softmax(value)


def _reduce_mean(step: Step) -> Any:
    axes, keeps, value = step.constant(1, "axes"), bool(step.attribute("keepdims", 1)), step.values[0]
    rank = rank_of(value)
    reduced = sorted(int(axis) % rank for axis in np.ravel(axes)) if axes is not None else []
    if not reduced or 0 in reduced:
        raise step.refuse("ReduceMean over all axes, the batch included")
    if rank == 4 and (keeps or reduced == [2, 3]):
        return step.tf.reduce_mean(value, [TO_NHWC.index(axis) for axis in reduced], keepdims=keeps)
    return step.tf.reduce_mean(to_nchw(step.tf, value), reduced, keepdims=keeps)


def _local_response(step: Step) -> Any:
    size, tf = step.attributes["size"], step.tf
    if size % 2 == 0 or rank_of(step.values[0]) != 4:
        raise step.refuse(f"LRN over {size} channels of rank {rank_of(step.values[0])}")
    alpha, beta = step.attribute("alpha", 1e-4) / size, step.attribute("beta", 0.75)
    return tf.nn.local_response_normalization(step.values[0], size // 2, step.attribute("bias", 1.0), alpha, beta)


def _hard_sigmoid(step: Step) -> Any:
    slope, offset = step.attribute("alpha", 0.2), step.attribute("beta", 0.5)
    return step.tf.clip_by_value(step.values[0] * np.float32(slope) + np.float32(offset), 0.0, 1.0)


def _elu(step: Step) -> Any:
    if step.attribute("alpha", 1.0) != 1.0:
        raise step.refuse(f"Elu with alpha {step.attributes['alpha']:g}")
    return step.tf.nn.elu(step.values[0])


def _elementwise(name: str) -> Callable[[Step], Any]:
    def run(step: Step) -> Any:
        rank = max(rank_of(value) for value in step.values)
        computed = {rank_of(value) for value in step.values if not isinstance(value, np.ndarray)}
        if rank == 4 and computed != {4}:
            raise step.refuse(f"{step.node.op_type} of an image and of rank {min(computed)}")
        sides = [_broadcast(value, rank) if isinstance(value, np.ndarray) else value for value in step.values]
        return getattr(step.tf, name)(*sides)

    return run


def _broadcast(value: Array, rank: int) -> Array:
    """Return a constant that ONNX would broadcast to an image, with its channels last."""
    if rank != 4 or value.ndim == 0:
        return value
    broadcast: Array = value.reshape((1,) * (4 - value.ndim) + value.shape).transpose(0, 2, 3, 1)
    return broadcast


OPERATORS: dict[str, Callable[[Step], Any]] = {
    "Add": _elementwise("add"),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Conv": _conv,
    "Div": _elementwise("divide"),
    "Dropout": lambda step: step.values[0],
    "Elu": _elu,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda step: step.tf.reduce_mean(step.values[0], [1, 2], keepdims=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda step: step.values[0] * step.tf.nn.relu6(step.values[0] + np.float32(3)) * np.float32(1 / 6),
    "Identity": lambda step: step.values[0],
    "LRN": _local_response,
    "LeakyRelu": lambda step: step.tf.nn.leaky_relu(step.values[0], step.attribute("alpha", 0.01)),
    "MatMul": lambda step: _product(step, step.values[1]),
    "MaxPool": _max_pool,
    "Mul": _elementwise("multiply"),
    "ReduceMean": _reduce_mean,
    "Relu": lambda step: step.tf.nn.relu(step.values[0]),
    "Sigmoid": lambda step: step.tf.sigmoid(step.values[0]),
    "Softmax": _softmax,
    "Sub": _elementwise("subtract"),
    "Tanh": lambda step: step.tf.tanh(step.values[0]),
    **SHAPE_OPERATORS,
}
