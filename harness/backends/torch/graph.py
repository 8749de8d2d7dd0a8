"""ONNX file -> a PyTorch module, for the operators of classifiers; Q/DQ nodes become fake quantization."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.backends._cpu import import_runtime
from harness.backends._host.graph import float_values
from harness.errors import Unsupported
from harness.models.onnx_graph import constants_to_initializers, node_id

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

QMIN, QMAX = {"int8": -128, "uint8": 0}, {"int8": 127, "uint8": 255}
Observe = Callable[[str, str, Any], None]  # node, operator, what it made


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One node: what a call needs of it, worked out once."""

    torch: Any
    name: str
    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]
    constants: Mapping[str, NDArray[np.generic]]  # all initializers

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute."""
        return self.attributes.get(name, default)

    def constant(self, place: int, default: Any = None) -> Any:
        """Return an input that is a weight, as NumPy's. Raises: Unsupported where it is computed."""
        if len(self.inputs) <= place or not self.inputs[place]:
            return default
        if self.inputs[place] not in self.constants:
            raise Unsupported(f"{self.name}: input {self.inputs[place]} of {self.kind} is not a constant")
        return self.constants[self.inputs[place]]

    def refuse(self, why: str) -> Unsupported:
        """Return the error that refuses this node."""
        return Unsupported(f"{self.name}: PyTorch's {self.kind} {why}")


def check_operators(model: ModelProto, label: str) -> None:
    """Refuse a model with operators that are not written here. Raises: Unsupported, which lists them by name."""
    counts = Counter(node.op_type for node in model.graph.node if node.op_type not in {*OPERATORS, "Constant"})
    if counts:
        listed = ", ".join(f"{kind} ({count})" for kind, count in sorted(counts.items()))
        raise Unsupported(f"{label}: the conversion to PyTorch has no operator {listed}")


def module_of(torch: Any, model: ModelProto) -> Any:
    """Return a torch.nn.Module of a model; its `observe` is called after each node. Raises: Unsupported."""
    onnx = import_runtime("onnx")
    constants_to_initializers(model)
    tensors = {tensor.name: tensor_of(torch, tensor) for tensor in model.graph.initializer}
    arrays = {tensor.name: _array(onnx, tensor) for tensor in model.graph.initializer}
    source = next(value.name for value in model.graph.input if value.name not in tensors)
    target = model.graph.output[0].name
    steps = []
    for node in model.graph.node:
        step = _step(torch, onnx, node, arrays)
        if node.input and all(name in tensors for name in node.input if name):  # of weights alone: computed once
            tensors[step.output] = _values(step, tensors)
        else:
            steps.append(step)
    used = {name for step in steps for name in step.inputs}

    class Graph(torch.nn.Module):  # type: ignore[misc]
        """The nodes that depend on the input."""

        def __init__(self) -> None:
            super().__init__()
            self.observe: Observe | None = None
            self.places = {name: f"w{index}" for index, name in enumerate(sorted(used & tensors.keys()))}
            for name, place in self.places.items():
                self.register_buffer(place, tensors[name])

        def forward(self, images: Any) -> Any:
            known = {name: getattr(self, place) for name, place in self.places.items()}
            known[source] = images
            for step in steps:
                known[step.output] = _values(step, known)
                if self.observe is not None:
                    self.observe(step.name, step.kind, known[step.output])
            return known[target]

    return Graph().eval()


def tensor_of(torch: Any, tensor: TensorProto) -> Any:
    """Return an initializer as PyTorch's, bfloat16 by its bits."""
    onnx = import_runtime("onnx")
    if tensor.data_type != onnx.TensorProto.BFLOAT16:
        return torch.from_numpy(np.array(onnx.numpy_helper.to_array(tensor)))
    raw = tensor.raw_data or np.array(tensor.int32_data, "<u2").tobytes()
    bits = np.frombuffer(raw, "<i2").reshape(tuple(tensor.dims))
    return torch.from_numpy(bits.copy()).view(torch.bfloat16)


def _step(torch: Any, onnx: Any, node: NodeProto, arrays: Mapping[str, NDArray[np.generic]]) -> Step:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return Step(
        torch=torch,
        name=node_id(node),
        kind=node.op_type,
        inputs=tuple(node.input),
        output=node.output[0],
        attributes={key: value.decode() if isinstance(value, bytes) else value for key, value in attributes.items()},
        constants=arrays,
    )


def _array(onnx: Any, tensor: TensorProto) -> NDArray[np.generic]:
    if tensor.data_type == onnx.TensorProto.BFLOAT16:
        return float_values(tensor)
    array: NDArray[np.generic] = onnx.numpy_helper.to_array(tensor)
    return array


def _values(step: Step, known: Mapping[str, Any]) -> Any:
    return OPERATORS[step.kind](step, *(known[name] if name else None for name in step.inputs))


def _padding(step: Step) -> list[int]:
    """Return the padding at both ends of height and width. Raises: Unsupported."""
    if step.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise step.refuse(f"with padding {step.attributes['auto_pad']}")
    pads = list(step.attribute("pads", [0, 0, 0, 0]))
    if len(pads) != 4:
        raise step.refuse(f"of {len(pads) // 2} dimensions; expected 2")
    return pads


def _conv(step: Step, image: Any, weights: Any, bias: Any = None) -> Any:
    functional = step.torch.nn.functional
    top, left, bottom, right = _padding(step)
    if (top, left) != (bottom, right):
        image, top, left = functional.pad(image, (left, right, top, bottom)), 0, 0
    strides, dilations = step.attribute("strides", [1, 1]), step.attribute("dilations", [1, 1])
    return functional.conv2d(image, weights, bias, strides, [top, left], dilations, step.attribute("group", 1))


def _max_pool(step: Step, image: Any) -> Any:
    functional = step.torch.nn.functional
    top, left, bottom, right = _padding(step)
    if (top, left) != (bottom, right):
        image, top, left = functional.pad(image, (left, right, top, bottom), value=-math.inf), 0, 0
    strides, dilations = step.attribute("strides", [1, 1]), step.attribute("dilations", [1, 1])
    ceil = bool(step.attribute("ceil_mode", 0))
    return functional.max_pool2d(image, step.attributes["kernel_shape"], strides, [top, left], dilations, ceil)


def _average_pool(step: Step, image: Any) -> Any:
    top, left, bottom, right = _padding(step)
    if (top, left) != (bottom, right) or step.attribute("ceil_mode", 0):
        raise step.refuse("with uneven padding or rounding up")
    strides, counts = step.attribute("strides", [1, 1]), bool(step.attribute("count_include_pad", 0))
    kernel = step.attributes["kernel_shape"]
    return step.torch.nn.functional.avg_pool2d(image, kernel, strides, [top, left], count_include_pad=counts)


def _gemm(step: Step, left: Any, right: Any, bias: Any = None) -> Any:
    left = left.t() if step.attribute("transA", 0) else left
    alpha, beta = step.attribute("alpha", 1.0), step.attribute("beta", 1.0)
    if alpha == beta == 1.0 and (bias is None or bias.dim() == 1):
        return step.torch.nn.functional.linear(left, right if step.attribute("transB", 0) else right.t(), bias)
    made = alpha * step.torch.matmul(left, right.t() if step.attribute("transB", 0) else right)
    return made if bias is None else made + beta * bias


def _clip(step: Step, value: Any, *bounds: Any) -> Any:
    if bounds:
        low, high = (float(bound) if bound is not None else None for bound in (step.constant(1), step.constant(2)))
    else:
        low, high = step.attribute("min", None), step.attribute("max", None)
    return step.torch.clamp(value, low, high)


def _batch_norm(step: Step, value: Any, *weights: Any) -> Any:
    scale, bias, mean, variance = weights
    epsilon = step.attribute("epsilon", 1e-5)
    return step.torch.nn.functional.batch_norm(value, mean, variance, scale, bias, False, 0.0, epsilon)


def _reduce_mean(step: Step, value: Any, *_axes: Any) -> Any:
    axes = step.attribute("axes", None) or (step.constant(1).tolist() if step.constant(1) is not None else None)
    if axes is None:
        raise step.refuse("over all axes, the batch included")
    return value.mean(axes, keepdim=bool(step.attribute("keepdims", 1)))


def _cast(step: Step, value: Any) -> Any:
    onnx, torch = import_runtime("onnx"), step.torch
    kinds = {
        onnx.TensorProto.FLOAT: torch.float32,
        onnx.TensorProto.FLOAT16: torch.float16,
        onnx.TensorProto.BFLOAT16: torch.bfloat16,
    }
    if step.attributes["to"] not in kinds:
        raise step.refuse(f"to type {step.attributes['to']}")
    return value.to(kinds[step.attributes["to"]])


def _quantize(step: Step, value: Any, scale: Any, zeros: Any = None) -> Any:
    """Return the value rounded to its 8-bit numbers, in FP32: the DequantizeLinear behind it has no more to do."""
    torch, zero = step.torch, step.constant(2, np.zeros((), np.uint8))
    low, high = QMIN.get(zero.dtype.name), QMAX.get(zero.dtype.name)
    if low is None or high is None:
        raise step.refuse(f"to {zero.dtype.name}")
    scales = step.constant(1)
    if scales.size == 1:
        number, place = float(scales.ravel()[0]), int(zero.ravel()[0])
        if torch.compiler.is_exporting():  # PyTorch 2.13 cannot export its fake quantization
            return (torch.clamp(torch.round(value / number) + place, low, high) - place) * number
        return torch.fake_quantize_per_tensor_affine(value, number, place, low, high)
    places = torch.zeros_like(scale, dtype=torch.int32) if zeros is None else zeros.to(torch.int32)
    return torch.fake_quantize_per_channel_affine(value, scale, places, step.attribute("axis", 1), low, high)


def _dequantize(step: Step, value: Any, scale: Any, zero: Any = None) -> Any:
    if value.is_floating_point():  # of a QuantizeLinear, which has done both
        return value
    shape = [1] * value.dim()
    if scale.numel() > 1:
        shape[step.attribute("axis", 1)] = -1
    moved = value.float() if zero is None else value.float() - zero.float().reshape(shape if zero.numel() > 1 else [])
    return moved * scale.reshape(shape if scale.numel() > 1 else [])


def _softmax(step: Step, value: Any) -> Any:
    return step.torch.softmax(value, step.attribute("axis", -1))


def _reshape(step: Step, value: Any, *_shape: Any) -> Any:
    sizes = step.constant(1).tolist()
    if step.attribute("allowzero", 0) and 0 in sizes:
        raise step.refuse("with sizes of 0")
    return value.reshape([value.shape[place] if size == 0 else size for place, size in enumerate(sizes)])


def _axes(step: Step) -> list[int]:
    """Return the axes: an input, or an attribute of older operator sets. Raises: Unsupported for all of size 1."""
    axes = step.constant(1, step.attribute("axes", None))
    if axes is None:
        raise step.refuse("of all axes of size 1, the batch perhaps included")
    return [int(axis) for axis in np.ravel(axes)]


def _squeeze(step: Step, value: Any, *_axes_given: Any) -> Any:
    return value.squeeze(tuple(_axes(step)))


def _unsqueeze(step: Step, value: Any, *_axes_given: Any) -> Any:
    axes = _axes(step)
    for axis in sorted(axis % (value.dim() + len(axes)) for axis in axes):
        value = value.unsqueeze(axis)
    return value


def _transpose(step: Step, value: Any) -> Any:
    return value.permute(tuple(step.attribute("perm", range(value.dim())[::-1])))


def _pad(step: Step, value: Any, *_given: Any) -> Any:
    mode, rank = step.attribute("mode", "constant"), value.dim()
    pads = step.constant(1, step.attribute("pads", None))
    if mode != "constant" or pads is None or len(pads) != 2 * rank or len(step.inputs) > 3:
        raise step.refuse(f"in mode {mode} other than around the whole tensor")
    ends = [int(pads[axis + side * rank]) for axis in reversed(range(rank)) for side in (0, 1)]
    fill = step.constant(2, step.attribute("value", 0.0))
    return step.torch.nn.functional.pad(value, ends, value=float(np.ravel(fill)[0]))


def _hard_sigmoid(step: Step, value: Any) -> Any:
    return step.torch.clamp(value * step.attribute("alpha", 0.2) + step.attribute("beta", 0.5), 0.0, 1.0)


def _local_response(step: Step, value: Any) -> Any:
    alpha, beta, bias = step.attribute("alpha", 1e-4), step.attribute("beta", 0.75), step.attribute("bias", 1.0)
    if step.attributes["size"] % 2 == 0:
        raise step.refuse(f"over {step.attributes['size']} channels")
    return step.torch.nn.functional.local_response_norm(value, step.attributes["size"], alpha, beta, bias)


OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": lambda step, left, right: left + right,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda step, *values: step.torch.cat(values, step.attributes["axis"]),
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Div": lambda step, left, right: left / right,
    "Dropout": lambda step, value, *_: value,
    "Elu": lambda step, value: step.torch.nn.functional.elu(value, step.attribute("alpha", 1.0)),
    "Flatten": lambda step, value: step.torch.flatten(value, step.attribute("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda step, value: value.mean((2, 3), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda step, value: step.torch.nn.functional.hardswish(value),
    "Identity": lambda step, value: value,
    "LRN": _local_response,
    "LeakyRelu": lambda step, value: step.torch.nn.functional.leaky_relu(value, step.attribute("alpha", 0.01)),
    "MatMul": lambda step, left, right: step.torch.matmul(left, right),
    "MaxPool": _max_pool,
    "Mul": lambda step, left, right: left * right,
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "ReduceMean": _reduce_mean,
    "Relu": lambda step, value: step.torch.relu(value),
    "Reshape": _reshape,
    "Sigmoid": lambda step, value: step.torch.sigmoid(value),
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": lambda step, left, right: left - right,
    "Tanh": lambda step, value: step.torch.tanh(value),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
