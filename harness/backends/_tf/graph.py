"""ONNX file -> a Python function over TensorFlow, for the operators of classifiers.

Images are NCHW at the border and NHWC within, as TensorFlow's kernels for CPUs want them. Nodes stand in name scopes
`onnx<place>`, which come back in the names of a converted model's tensors.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.backends._cpu import import_runtime
from harness.errors import Unsupported
from harness.models.onnx_graph import constants_to_initializers, node_id

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

SCOPE = re.compile(r"onnx(\d+)(?:_\d+)?/")
Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One node with what it is computed from."""

    tf: Any
    node: NodeProto
    attributes: Mapping[str, Any]
    values: list[Any]  # its inputs: TensorFlow's, or NumPy's for weights; None for one left out
    is_last_of_images: bool  # a Flatten whose consumers take its H, W, C order: their weights are permuted

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute."""
        return self.attributes.get(name, default)


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
        known: dict[str, Any] = {**weights, source: _to_nhwc(tf, images)}
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
            return tf.identity(_to_nchw(tf, known[target]), name=target)

    return run


def _multiplies(node: NodeProto, name: str, weights: Mapping[str, Array]) -> bool:
    """Tell whether a tensor is the first factor of a product with constant weights."""
    return node.op_type in ("Gemm", "MatMul") and node.input[0] == name and node.input[1] in weights


def _rank(value: Any) -> int:
    return len(value.shape)


def _to_nhwc(tf: Any, value: Any) -> Any:
    return tf.transpose(value, [0, 2, 3, 1]) if _rank(value) == 4 else value


def _to_nchw(tf: Any, value: Any) -> Any:
    return tf.transpose(value, [0, 3, 1, 2]) if _rank(value) == 4 else value


def _padded(step: Step, fill: float) -> tuple[Any, list[int]]:
    """Return the image padded as the node says, and the kernel's step sizes. Raises: Unsupported."""
    value, strides = step.values[0], list(step.attribute("strides", [1, 1]))
    if step.attribute("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise Unsupported(f"{node_id(step.node)}: padding {step.attributes['auto_pad'].decode()}")
    if _rank(value) != 4:
        raise Unsupported(f"{node_id(step.node)}: {step.node.op_type} of {_rank(value) - 2} dimensions; expected 2")
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
        raise Unsupported(f"{node_id(step.node)}: AveragePool that leaves its padding out")
    image, strides = _padded(step, 0.0)
    return step.tf.nn.avg_pool2d(image, step.attributes["kernel_shape"], strides, "VALID")


def _check_pool(step: Step) -> None:
    if step.attribute("ceil_mode", 0) or any(size != 1 for size in step.attribute("dilations", [1])):
        raise Unsupported(f"{node_id(step.node)}: {step.node.op_type} that rounds up or has holes")


def _flatten(step: Step) -> Any:
    """Flatten an image: in H, W, C order where the next product's weights can follow, else in ONNX's."""
    if step.attribute("axis", 1) != 1:
        raise Unsupported(f"{node_id(step.node)}: Flatten at axis {step.attribute('axis', 1)}")
    value = step.values[0]
    if _rank(value) == 4:
        height, width, channels = value.shape[1:]
        if not (height * width > 1 and channels > 1):
            return step.tf.reshape(value, [-1, height * width * channels])
        if step.is_last_of_images:
            return _HwcRows(step.tf.reshape(value, [-1, height * width * channels]), (height, width, channels))
        value = _to_nchw(step.tf, value)
    return step.tf.reshape(value, [-1, math.prod(value.shape[1:])])


@dataclass(frozen=True, slots=True)
class _HwcRows:
    """Flattened images whose order is not ONNX's."""

    rows: Any
    shape: tuple[int, int, int]

    def weights(self, matrix: Array) -> Array:
        """Return float32[C*H*W, K] in this order."""
        height, width, channels = self.shape
        ordered = matrix.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
        reordered: Array = ordered.reshape(matrix.shape)
        return reordered


def _product(step: Step, matrix: Any) -> Any:
    value = step.values[0]
    if isinstance(value, _HwcRows):
        return step.tf.matmul(value.rows, value.weights(matrix))
    if _rank(value) != 2:
        raise Unsupported(f"{node_id(step.node)}: {step.node.op_type} of rank {_rank(value)}; expected 2")
    return step.tf.matmul(value, matrix)


def _gemm(step: Step) -> Any:
    if step.attribute("transA", 0):
        raise Unsupported(f"{node_id(step.node)}: Gemm of a transposed first factor")
    weights = step.values[1].T if step.attribute("transB", 0) else step.values[1]
    made = _product(step, weights * np.float32(step.attribute("alpha", 1.0)))
    bias = step.values[2] if len(step.values) > 2 else None
    if bias is None:
        return made
    scaled = bias * np.float32(step.attribute("beta", 1.0))
    return step.tf.nn.bias_add(made, scaled) if _rank(scaled) == 1 else made + scaled


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
    if _rank(value) != 2 or step.attribute("axis", -1) not in (-1, 1):
        raise Unsupported(f"{node_id(step.node)}: Softmax of rank {_rank(value)}; expected rows")
    return step.tf.nn.softmax(value)


def _reduce_mean(step: Step) -> Any:
    axes = step.attribute("axes", None) or (step.values[1].tolist() if len(step.values) > 1 else None)
    keeps = bool(step.attribute("keepdims", 1))
    if _rank(step.values[0]) != 4 or axes is None or sorted(axis % 4 for axis in axes) != [2, 3]:
        raise Unsupported(f"{node_id(step.node)}: ReduceMean other than over an image")
    return step.tf.reduce_mean(step.values[0], [1, 2], keepdims=keeps)


def _elementwise(name: str) -> Callable[[Step], Any]:
    def run(step: Step) -> Any:
        rank = max(_rank(value) for value in step.values)
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
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda step: step.tf.reduce_mean(step.values[0], [1, 2], keepdims=True),
    "Identity": lambda step: step.values[0],
    "MatMul": lambda step: _product(step, step.values[1]),
    "MaxPool": _max_pool,
    "Mul": _elementwise("multiply"),
    "ReduceMean": _reduce_mean,
    "Relu": lambda step: step.tf.nn.relu(step.values[0]),
    "Sigmoid": lambda step: step.tf.sigmoid(step.values[0]),
    "Softmax": _softmax,
    "Sub": _elementwise("subtract"),
    "Tanh": lambda step: step.tf.tanh(step.values[0]),
}
