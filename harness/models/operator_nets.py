"""Seeded nets of one operator each, at every operator set that changed it. Imports onnx: in workers only.

A row of the table is one way to use an operator; its inputs and attributes may hold for some operator sets only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.specs import Precision

if TYPE_CHECKING:
    import onnx

FIRST_SET, NO_END = 7, 1 << 30
QDQ_SET = 13  # that recipes raise files to
INT8_MAX, REDUCED_MAX = 127, 63  # of activations; of weights, so that 8-bit kernels do not saturate
# Operators that recipes put Q/DQ pairs in front of.
QUANTIZED_OPS = frozenset(
    {"Add", "AveragePool", "Concat", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool", "Mul"}
    | {"Resize"}
)
WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
BROADCASTING_SET = 8  # of Max, Mean, Min and Sum
Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Usage:
    """One way to use an operator."""

    operator: str
    variant: str
    data: tuple[Array | None, ...] = ()  # inputs of the net; None: left out
    constants: tuple[Array | None, ...] = ()  # further inputs, as initializers
    attributes: Mapping[str, Any] = field(default_factory=dict)
    n_outputs: int = 1
    expected: Array | None = None  # where ONNX's reference evaluator is known to be wrong, or has no such operator
    first_set: int = FIRST_SET
    last_set: int = NO_END


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OperatorNet:
    """A net of one operator in one operator set, and what it is fed."""

    name: str  # operator/variant@set
    operator: str
    model: onnx.ModelProto
    feeds: Mapping[str, Array]
    expected: Array | None = None  # instead of the reference evaluator's
    plain: tuple[onnx.ModelProto, Mapping[str, Array]] | None = None  # INT8: on what pairs leave


def operator_nets(precision: Precision) -> Iterator[OperatorNet]:
    """Yield every net in a precision; those of FP16 are FP32's, to be cast; those of INT8 hold Q/DQ pairs."""
    for usage in usages():
        has_floats = any(array is not None and array.dtype == np.float32 for array in usage.data)
        if precision is not Precision.FP32 and not has_floats:
            continue
        if precision is Precision.INT8 and usage.operator not in QUANTIZED_OPS:
            continue
        sets = _sets_of(usage, FIRST_SET if precision is not Precision.INT8 else QDQ_SET)
        for opset in sets[-1:] if precision is Precision.FP16 else sets:  # older ones differ in form, not in arithmetic
            model = _model(usage, opset, with_pairs=precision is Precision.INT8)
            feeds = {f"x{k}": array for k, array in enumerate(usage.data) if array is not None}
            name = f"{usage.operator}/{usage.variant}@{opset}"
            net = OperatorNet(name=name, operator=usage.operator, model=model, feeds=feeds, expected=usage.expected)
            yield net if precision is not Precision.INT8 else replace(net, plain=_plain(usage, opset))


def _plain(usage: Usage, opset: int) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Return the float net of an INT8 one and its inputs: older reference evaluators know no Q/DQ of these sets."""
    data = tuple(_rounded(usage, k, array) for k, array in enumerate(usage.data))
    first = len(data)
    constants = tuple(_rounded(usage, first + k, array) for k, array in enumerate(usage.constants))
    feeds = {f"x{k}": array for k, array in enumerate(data) if array is not None}
    return _model(replace(usage, data=data, constants=constants), opset, with_pairs=False), feeds


def _rounded(usage: Usage, k: int, array: Array | None) -> Array | None:
    """Return what a Q/DQ pair leaves of an input."""
    scale = _scale(usage, k, array)
    if scale is None or array is None:
        return array
    return (np.clip(np.rint(array / scale), -INT8_MAX - 1, INT8_MAX) * scale).astype(np.float32)


def _scale(usage: Usage, k: int, array: Array | None) -> float | None:
    """Return the scale of the pair on an input, None for one that has none: whole numbers, biases, sizes."""
    is_constant = k >= len(usage.data)
    if array is None or array.dtype != np.float32 or not array.ndim:
        return None
    if is_constant and (k != 1 or usage.operator not in WITH_WEIGHTS):
        return None
    largest = float(np.abs(array).max())
    return largest / (REDUCED_MAX if is_constant else INT8_MAX)


def _sets_of(usage: Usage, lowest: int) -> list[int]:
    """Return the operator sets at which an operator changed, within those that a usage is for."""
    import onnx

    schemas = [s for s in onnx.defs.get_all_schemas_with_history() if s.name == usage.operator and s.domain == ""]
    versions = {schema.since_version: schema.deprecated for schema in schemas}
    if not versions:  # newer than this onnx
        return []
    found = []
    for opset in sorted({lowest, *versions}):
        since = max((version for version in versions if version <= opset), default=None)
        if since is None or versions[since] or not max(lowest, usage.first_set) <= opset <= usage.last_set:
            continue
        found.append(opset)
    return found


def _model(usage: Usage, opset: int, *, with_pairs: bool) -> onnx.ModelProto:
    from onnx import helper, numpy_helper

    nodes, weights, names = [], {}, []
    for k, array in enumerate((*usage.data, *usage.constants)):
        is_constant = k >= len(usage.data)
        name = "" if array is None else f"w{k}" if is_constant else f"x{k}"
        if array is not None and is_constant:
            weights[name] = array
        scale = _scale(usage, k, array) if with_pairs else None
        if scale is not None:
            weights[f"{name}_scale"] = np.array(scale, np.float32)
            weights[f"{name}_zero"] = np.array(0, np.int8)
            pair = [f"{name}_scale", f"{name}_zero"]
            nodes.append(helper.make_node("QuantizeLinear", [name, *pair], [f"{name}_q"], name=f"{name}/Q"))
            nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", *pair], [f"{name}_d"], name=f"{name}/DQ"))
            name = f"{name}_d"
        names.append(name)
    while names and not names[-1]:
        names.pop()
    outputs = [f"y{k}" for k in range(usage.n_outputs)]
    nodes.append(helper.make_node(usage.operator, names, outputs, name=usage.operator, **usage.attributes))
    graph = helper.make_graph(
        nodes,
        usage.operator,
        [_value(f"x{k}", array) for k, array in enumerate(usage.data) if array is not None],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    sets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=sets)
    model.ir_version = max(4, helper.find_min_ir_version_for(sets))
    return _typed(model)


def _typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give the outputs their types by shape inference, or where ONNX has none for an operator, that of its input."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    for value in inferred.graph.output:
        if not value.type.tensor_type.elem_type:
            value.type.CopyFrom(inferred.graph.input[0].type)
    return inferred


def _value(name: str, array: Array) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


# -- the table


def usages() -> Iterator[Usage]:
    """Yield every row of the table, in one order."""
    for part in (_elementwise, _products, _pooling, _reductions, _normalisations, _shapes, _indexing, _recurrent):
        yield from part(np.random.default_rng(20))


def _floats(generator: np.random.Generator, *shape: int) -> Array:
    return generator.uniform(-2, 2, shape).astype(np.float32)


def _apart(generator: np.random.Generator, *shape: int) -> Array:
    """Return values that differ by a quarter and more: no rounding changes their order or their whole part."""
    size = int(np.prod(shape))
    return ((generator.permutation(size) - size // 2) * 0.25 + 0.125).astype(np.float32).reshape(shape)


def _ints(*values: int) -> Array:
    return np.array(values, np.int64)


ANY: tuple[str, ...] = (
    "Abs",
    "Cos",
    "Elu",
    "Erf",
    "Exp",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Mish",
    "Neg",
    "Relu",
    "Selu",
)
ANY += (
    "Sigmoid",
    "Sin",
    "Softplus",
    "Softsign",
    "Tanh",
    "ThresholdedRelu",
    "Gelu",
    "Identity",
    "Atan",
    "Sinh",
    "Asinh",
)
ORDERED = ("Ceil", "Floor", "Round", "Sign")
POSITIVE = ("Log", "Reciprocal", "Sqrt")
WITHIN_1 = ("Acos", "Asin", "Atanh", "Tan")
PAIRS = ("Add", "Div", "Mul", "Sub", "Max", "Min", "Pow", "PRelu")
LOGICAL = ("And", "Or", "Xor")
ORDERINGS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")


def _elementwise(generator: np.random.Generator) -> Iterator[Usage]:
    x, tail = _floats(generator, 2, 3, 4, 5), _floats(generator, 2, 3, 4, 2, 2)
    for operator in ANY:
        yield Usage(operator=operator, variant="rank4", data=(x,))
        yield Usage(operator=operator, variant="rank5", data=(tail,))
    for operator in ORDERED:
        yield Usage(operator=operator, variant="rank4", data=(_apart(generator, 2, 3, 4, 5),))
    for operator in POSITIVE:
        yield Usage(operator=operator, variant="rank4", data=(np.abs(x) + 0.5,))
    for operator in WITHIN_1:
        yield Usage(operator=operator, variant="rank4", data=(x * 0.45,))
    for operator in PAIRS:
        a = np.abs(x) + 0.5 if operator in ("Div", "Pow") else x
        for variant, other in (
            ("same", x),
            ("channel", x[:1, :, :1, :1]),
            ("row", x[0, 0, 0]),
            ("scalar", x[0, 0, 0, 0]),
        ):
            b = np.abs(other) + 0.5 if operator in ("Div", "Pow") else other
            if operator != "PRelu" or variant in ("same", "channel"):
                first = BROADCASTING_SET if operator in ("Max", "Min") and variant != "same" else FIRST_SET
                yield Usage(operator=operator, variant=variant, data=(a, np.asarray(b)), first_set=first)
        if operator != "PRelu":
            wide = np.abs(_floats(generator, 4, 1, 2)) + 0.5
            first = BROADCASTING_SET if operator in ("Max", "Min") else FIRST_SET
            yield Usage(operator=operator, variant="rank5", data=(np.abs(tail) + 0.5, wide), first_set=first)
    yield from _typed_elementwise(generator, x)


def _typed_elementwise(generator: np.random.Generator, x: Array) -> Iterator[Usage]:
    whole = generator.integers(1, 9, (3, 4)).astype(np.int32)
    for operator in ("Add", "Mul", "Sub"):
        yield Usage(operator=operator, variant="int32", data=(whole, whole[:1]))
    yield Usage(operator="Mod", variant="int32", data=(whole, whole[:1] + 1), first_set=10)
    bools = generator.integers(0, 2, (3, 4)).astype(bool)
    for operator in LOGICAL:
        yield Usage(operator=operator, variant="broadcast", data=(bools, bools[:1]))
    yield Usage(operator="Not", variant="rank2", data=(bools,))
    spaced = _apart(generator, 3, 4)
    for operator in ORDERINGS:
        yield Usage(operator=operator, variant="broadcast", data=(spaced, spaced[:1]), first_set=9)
    yield Usage(operator="Where", variant="broadcast", data=(bools, spaced, spaced[:1]))
    for operator in ("Sum", "Mean"):
        yield Usage(operator=operator, variant="three", data=(x, x, x[:1]), first_set=BROADCASTING_SET)
    yield Usage(operator="Clip", variant="attributes", data=(x,), attributes={"min": -1.0, "max": 0.5}, last_set=10)
    limits = (np.float32(-1), np.float32(0.5))
    yield Usage(operator="Clip", variant="inputs", data=(x,), constants=limits, first_set=11)
    for kind, to in (("int32", 6), ("int64", 7), ("bool", 9), ("double", 11)):
        yield Usage(operator="Cast", variant=f"float-{kind}", data=(spaced,), attributes={"to": to})
    yield Usage(operator="Cast", variant="int32-float", data=(whole,), attributes={"to": 1})
    yield Usage(operator="Dropout", variant="inference", data=(x,))
    yield Usage(operator="IsNaN", variant="rank2", data=(spaced,))


def _products(generator: np.random.Generator) -> Iterator[Usage]:
    def make(*shape: int) -> Array:
        return np.asarray(_floats(generator, *shape) * np.float32(0.5))

    image, line, volume = make(2, 4, 9, 8), make(2, 4, 11), make(1, 2, 5, 6, 4)
    convolutions: tuple[tuple[str, Array, tuple[int, ...], dict[str, Any]], ...] = (
        ("valid", image, (6, 4, 3, 3), {}),
        ("pointwise", image, (6, 4, 1, 1), {}),
        ("padded", image, (6, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
        ("uneven-pads", image, (6, 4, 3, 3), {"pads": [0, 1, 2, 1]}),
        ("strided", image, (6, 4, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("dilated", image, (6, 4, 3, 3), {"dilations": [2, 2]}),
        ("grouped", image, (6, 2, 3, 3), {"group": 2}),
        ("depthwise", image, (4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
        ("same-upper", image, (6, 4, 3, 2), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ("same-lower", image, (6, 4, 2, 3), {"auto_pad": "SAME_LOWER"}),
        ("1d", line, (6, 4, 3), {"pads": [1, 1]}),
        ("3d", volume, (3, 2, 2, 3, 2), {}),
    )
    for variant, x, weights, attributes in convolutions:
        bias = make(weights[0])
        constants = (make(*weights), bias)
        yield Usage(operator="Conv", variant=variant, data=(x,), constants=constants, attributes=attributes)
    transposed: tuple[tuple[str, Array, tuple[int, ...], dict[str, Any]], ...] = (
        ("plain", image, (4, 3, 3, 3), {}),
        ("strided", image, (4, 3, 2, 2), {"strides": [2, 2]}),
        ("output-padding", image, (4, 3, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
        ("dilated", image, (4, 3, 3, 3), {"dilations": [2, 2]}),
        ("1d", line, (4, 3, 3), {"strides": [2]}),
    )
    for variant, x, weights, attributes in transposed:
        yield Usage(
            operator="ConvTranspose", variant=variant, data=(x,), constants=(make(*weights),), attributes=attributes
        )
    a, b, c = make(4, 6), make(6, 5), make(5)
    yield Usage(operator="Gemm", variant="plain", data=(a,), constants=(b, c))
    yield Usage(operator="Gemm", variant="transposed-b", data=(a,), constants=(b.T.copy(), c), attributes={"transB": 1})
    yield Usage(operator="Gemm", variant="transposed-a", data=(a.T.copy(),), constants=(b, c), attributes={"transA": 1})
    scaled = {"alpha": 0.5, "beta": 2.0}
    yield Usage(operator="Gemm", variant="scaled", data=(a,), constants=(b, make(4, 5)), attributes=scaled)
    yield Usage(operator="Gemm", variant="no-bias", data=(a, b), first_set=11)
    for variant, left, right in (
        ("rank2", (4, 6), (6, 5)),
        ("rank3", (2, 4, 6), (2, 6, 5)),
        ("rank4", (2, 3, 4, 6), (2, 3, 6, 5)),
        ("rank5", (1, 2, 3, 4, 6), (1, 2, 3, 6, 5)),
        ("broadcast", (2, 3, 4, 6), (6, 5)),
        ("vector", (4, 6), (6,)),
    ):
        yield Usage(operator="MatMul", variant=variant, data=(make(*left), make(*right)))
        yield Usage(operator="MatMul", variant=f"{variant}-weights", data=(make(*left),), constants=(make(*right),))
    for variant, equation in (("product", "bij,bjk->bik"), ("sum", "bij,bjk->bk"), ("transposed", "bij,bjk->ikb")):
        data = (make(2, 3, 4), make(2, 4, 5))
        yield Usage(operator="Einsum", variant=variant, data=data, attributes={"equation": equation})


def _pooling(generator: np.random.Generator) -> Iterator[Usage]:
    image, line, volume = (_floats(generator, *s) for s in ((2, 3, 9, 8), (2, 3, 11), (1, 2, 5, 6, 4)))
    shapes: tuple[tuple[str, Array, dict[str, Any]], ...] = (
        ("2x2", image, {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("padded", image, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("same-upper", image, {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ("1d", line, {"kernel_shape": [3], "strides": [2]}),
        ("3d", volume, {"kernel_shape": [2, 2, 2]}),
    )
    for variant, x, attributes in shapes:
        yield Usage(operator="MaxPool", variant=variant, data=(x,), attributes=attributes)
        yield Usage(operator="AveragePool", variant=variant, data=(x,), attributes=attributes)
    counted = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}
    yield Usage(operator="AveragePool", variant="count-pads", data=(image,), attributes=counted)
    ceiled = {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}
    for operator in ("MaxPool", "AveragePool"):
        yield Usage(operator=operator, variant="ceil", data=(image,), attributes=ceiled, first_set=10)
    dilated = {"kernel_shape": [2, 2], "dilations": [2, 2]}
    yield Usage(operator="MaxPool", variant="dilated", data=(image,), attributes=dilated, first_set=10)
    for operator in ("GlobalAveragePool", "GlobalMaxPool"):
        pool = np.mean if operator == "GlobalAveragePool" else np.max
        for variant, x in (("2d", image), ("1d", line), ("3d", volume)):
            pooled = np.asarray(pool(x, axis=tuple(range(2, x.ndim)), keepdims=True))
            yield Usage(operator=operator, variant=variant, data=(x,), expected=pooled)
    yield Usage(operator="LpPool", variant="2x2", data=(image,), attributes={"kernel_shape": [2, 2]})


REDUCING: tuple[str, ...] = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
)
REDUCING += ("ReduceProd", "ReduceSum", "ReduceSumSquare")


def _reductions(generator: np.random.Generator) -> Iterator[Usage]:
    x = np.abs(_floats(generator, 2, 3, 4, 2)) + np.float32(0.5)
    for operator in REDUCING:
        as_input = 13 if operator == "ReduceSum" else 18
        for variant, axes, keep in (("last", [3], 1), ("spatial", [2, 3], 0), ("negative", [-1, 1], 1)):
            first = FIRST_SET if min(axes) >= 0 else 11
            given = {"axes": axes, "keepdims": keep}
            yield Usage(
                operator=operator,
                variant=variant,
                data=(x,),
                attributes=given,
                first_set=first,
                last_set=as_input - 1,
            )
            yield Usage(
                operator=operator,
                variant=f"{variant}-input",
                data=(x,),
                constants=(_ints(*axes),),
                attributes={"keepdims": keep},
                first_set=as_input,
            )
        yield Usage(operator=operator, variant="all", data=(x,), attributes={"keepdims": 0})
    apart = _apart(generator, 2, 3, 4)
    for operator in ("ArgMax", "ArgMin"):
        for variant, attributes in (("axis0", {"axis": 0}), ("axis2", {"axis": 2, "keepdims": 0})):
            yield Usage(operator=operator, variant=variant, data=(apart,), attributes=attributes)
    yield Usage(operator="TopK", variant="largest", data=(apart,), constants=(_ints(2),), n_outputs=2, first_set=10)
    smallest = {"largest": 0, "axis": 1}
    yield Usage(
        operator="TopK",
        variant="smallest",
        data=(apart,),
        constants=(_ints(2),),
        attributes=smallest,
        n_outputs=2,
        first_set=11,
    )
    for variant, attributes in (("plain", {}), ("exclusive-reverse", {"exclusive": 1, "reverse": 1})):
        one = np.array(1, np.int32)
        yield Usage(operator="CumSum", variant=variant, data=(x,), constants=(one,), attributes=attributes)


def _normalisations(generator: np.random.Generator) -> Iterator[Usage]:
    x, scale, bias = _floats(generator, 2, 4, 5, 6), np.abs(_floats(generator, 4)) + 0.5, _floats(generator, 4)
    for operator in ("Softmax", "LogSoftmax"):
        for variant, attributes in (("axis1", {"axis": 1}), ("default", {})):
            yield Usage(operator=operator, variant=variant, data=(x,), attributes=attributes, first_set=13)
            old = _softmax_of_rows(x, is_log=operator == "LogSoftmax")
            yield Usage(
                operator=operator,
                variant=f"{variant}-rows",
                data=(x,),
                attributes=attributes,
                expected=old,
                last_set=12,
            )
        yield Usage(operator=operator, variant="last", data=(x,), attributes={"axis": -1}, first_set=11)
        yield Usage(operator=operator, variant="rank2", data=(x[0, 0],), attributes={"axis": 1})
    yield Usage(operator="Hardmax", variant="rank2", data=(_apart(generator, 4, 5),), attributes={"axis": 1})
    statistics = (scale, bias, _floats(generator, 4), np.abs(_floats(generator, 4)) + np.float32(0.5))
    for variant, y in (("2d", x), ("1d", x[:, :, 0]), ("rank2", x[:, :, 0, 0])):
        own = [part.reshape(1, -1, *(1,) * (y.ndim - 2)) for part in statistics]
        normal = (y - own[2]) / np.sqrt(own[3] + np.float32(1e-5)) * own[0] + own[1]
        yield Usage(
            operator="BatchNormalization",
            variant=variant,
            data=(np.ascontiguousarray(y),),
            constants=statistics,
            expected=normal.astype(np.float32),
        )
    yield Usage(operator="InstanceNormalization", variant="2d", data=(x,), constants=(scale, bias))
    row = (np.abs(_floats(generator, 6)) + np.float32(0.5), _floats(generator, 6))
    yield Usage(operator="LayerNormalization", variant="last", data=(x,), constants=row)
    yield Usage(
        operator="GroupNormalization",
        variant="two-groups",
        data=(x,),
        constants=(scale, bias),
        attributes={"num_groups": 2},
        first_set=21,
    )
    yield Usage(operator="RMSNormalization", variant="last", data=(x,), constants=row[:1])
    yield Usage(operator="LRN", variant="2d", data=(x,), attributes={"size": 3})
    yield Usage(operator="LpNormalization", variant="l2", data=(x,), attributes={"axis": 1, "p": 2})


def _shapes(generator: np.random.Generator) -> Iterator[Usage]:
    x, high = _floats(generator, 2, 3, 4, 5), _floats(generator, 2, 3, 2, 2, 3)
    for variant, y, order in (
        ("nchw-nhwc", x, [0, 2, 3, 1]),
        ("nhwc-nchw", x, [0, 3, 1, 2]),
        ("swap-last", x, [0, 1, 3, 2]),
        ("rank2", x[0, 0], [1, 0]),
        ("rank5", high, [0, 4, 1, 3, 2]),
    ):
        yield Usage(operator="Transpose", variant=variant, data=(np.ascontiguousarray(y),), attributes={"perm": order})
    yield Usage(operator="Transpose", variant="default", data=(x,))
    for variant, shape in (("infer", (2, -1)), ("keep", (0, 0, 20)), ("rank5", (2, 3, 2, 2, 5)), ("flat", (-1,))):
        yield Usage(operator="Reshape", variant=variant, data=(x,), constants=(_ints(*shape),))
    for axis in (0, 1, 3):
        yield Usage(operator="Flatten", variant=f"axis{axis}", data=(x,), attributes={"axis": axis})
    one = _floats(generator, 2, 1, 3, 1)
    yield Usage(operator="Squeeze", variant="attribute", data=(one,), attributes={"axes": [1, 3]}, last_set=12)
    yield Usage(operator="Squeeze", variant="input", data=(one,), constants=(_ints(1, -1),), first_set=13)
    yield Usage(operator="Unsqueeze", variant="attribute", data=(x,), attributes={"axes": [0]}, last_set=12)
    yield Usage(operator="Unsqueeze", variant="input", data=(x,), constants=(_ints(0),), first_set=13)
    for axis in (0, 1, 3):
        yield Usage(operator="Concat", variant=f"axis{axis}", data=(x, x * 2), attributes={"axis": axis})
    yield Usage(operator="Concat", variant="rank5", data=(high, high), attributes={"axis": 2})
    yield Usage(
        operator="Split",
        variant="attribute",
        data=(x,),
        attributes={"axis": 3, "split": [2, 3]},
        n_outputs=2,
        last_set=12,
    )
    parts = (_ints(2, 3),)
    yield Usage(
        operator="Split", variant="input", data=(x,), constants=parts, attributes={"axis": 3}, n_outputs=2, first_set=13
    )
    halves = {"axis": 2, "num_outputs": 2}
    yield Usage(operator="Split", variant="count", data=(x,), attributes=halves, n_outputs=2, first_set=18)
    yield from _padded(x)
    yield from _spread(generator, x)
    yield from _resizes(generator)


def _padded(x: Array) -> Iterator[Usage]:
    pads = [0, 0, 1, 2, 0, 0, 2, 1]
    for mode in ("constant", "reflect", "edge"):
        yield Usage(
            operator="Pad", variant=f"{mode}-attribute", data=(x,), attributes={"mode": mode, "pads": pads}, last_set=10
        )
        yield Usage(
            operator="Pad",
            variant=mode,
            data=(x,),
            constants=(_ints(*pads), np.float32(0.5)) if mode == "constant" else (_ints(*pads),),
            attributes={"mode": mode},
            first_set=11,
        )


def _spread(generator: np.random.Generator, x: Array) -> Iterator[Usage]:
    yield Usage(operator="Expand", variant="channel", data=(x[:, :1, :, :1],), constants=(_ints(2, 3, 4, 5),))
    yield Usage(operator="Tile", variant="rank4", data=(x,), constants=(_ints(1, 2, 1, 2),))
    for variant, attributes in (("dcr", {}), ("crd", {"mode": "CRD"})):
        first = 11 if attributes else FIRST_SET
        deep = _floats(generator, 1, 8, 3, 2)
        given = {"blocksize": 2, **attributes}
        yield Usage(operator="DepthToSpace", variant=variant, data=(deep,), attributes=given, first_set=first)
    yield Usage(
        operator="SpaceToDepth", variant="2", data=(_floats(generator, 1, 2, 4, 6),), attributes={"blocksize": 2}
    )
    yield Usage(operator="Shape", variant="rank4", data=(x,))


def _resizes(generator: np.random.Generator) -> Iterator[Usage]:
    x = _floats(generator, 1, 2, 4, 5)
    doubled = np.array([1, 1, 2, 2], np.float32)
    twice = x.repeat(2, axis=2).repeat(2, axis=3)
    for operator, first in (("Upsample", 9), ("Resize", 10)):
        yield Usage(
            operator=operator,
            variant="nearest-scales",
            data=(x,),
            constants=(doubled,),
            attributes={"mode": "nearest"},
            expected=twice,
            first_set=first,
            last_set=first,
        )
    no_region = np.zeros(0, np.float32)
    ways: tuple[tuple[str, dict[str, Any]], ...] = (
        (
            "nearest",
            {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        ),
        ("linear-half-pixel", {"mode": "linear"}),
        ("linear-corners", {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
        ("linear-pytorch", {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}),
        ("cubic", {"mode": "cubic", "cubic_coeff_a": -0.75}),
    )
    for variant, attributes in ways:
        constants = (no_region, doubled)
        yield Usage(
            operator="Resize", variant=variant, data=(x,), constants=constants, attributes=attributes, first_set=11
        )
        sized = (no_region, None, _ints(1, 2, 6, 7))
        yield Usage(
            operator="Resize",
            variant=f"{variant}-sizes",
            data=(x,),
            constants=sized,
            attributes=attributes,
            first_set=13,
        )


def _indexing(generator: np.random.Generator) -> Iterator[Usage]:
    x = _floats(generator, 4, 3, 5)
    for axis in (0, 2):
        chosen = _ints(2, 0, 1)
        yield Usage(operator="Gather", variant=f"axis{axis}", data=(x,), constants=(chosen,), attributes={"axis": axis})
    yield Usage(operator="Gather", variant="rank2-indices", data=(x, _ints(3, 0, 2, 1).reshape(2, 2)))
    places = generator.integers(0, 3, (4, 3, 2))
    yield Usage(operator="GatherElements", variant="axis2", data=(x, places), attributes={"axis": 2})
    yield Usage(operator="GatherND", variant="rank2", data=(x, _ints(0, 1, 3, 2).reshape(2, 2)))
    rows = generator.permutation(12).reshape(4, 3, 1) % 5
    updates = _floats(generator, 4, 3, 1)
    yield Usage(operator="ScatterElements", variant="axis2", data=(x, rows, updates), attributes={"axis": 2})
    yield Usage(operator="ScatterND", variant="rows", data=(x, _ints(1, 3).reshape(2, 1), _floats(generator, 2, 3, 5)))
    cut = {"axes": [0, 2], "starts": [1, 0], "ends": [4, -1]}
    yield Usage(operator="Slice", variant="attributes", data=(x,), attributes=cut, last_set=9)
    bounds = (_ints(1, 0), _ints(4, -1), _ints(0, 2))
    yield Usage(operator="Slice", variant="inputs", data=(x,), constants=bounds, first_set=10)
    stepped = (_ints(0), _ints(5), _ints(2), _ints(2))
    yield Usage(operator="Slice", variant="steps", data=(x,), constants=stepped, first_set=10)
    backwards = (_ints(-1), _ints(-6), _ints(2), _ints(-1))
    yield Usage(operator="Slice", variant="backwards", data=(x,), constants=backwards, first_set=10)
    hot = (np.array(4, np.int64), np.array([0, 1], np.float32))
    yield Usage(operator="OneHot", variant="last", data=(_ints(1, 3, 0),), constants=hot)
    yield Usage(operator="Trilu", variant="upper", data=(x,), attributes={"upper": 1})
    yield Usage(operator="ReverseSequence", variant="batch", data=(x, _ints(2, 4, 1)), first_set=10)


def _recurrent(generator: np.random.Generator) -> Iterator[Usage]:
    n_steps, n_batch, n_in, n_hidden = 4, 2, 3, 5
    x = _floats(generator, n_steps, n_batch, n_in)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}
    for operator, n_gates in gates.items():
        for variant, direction, n_ways in (("forward", "forward", 1), ("both", "bidirectional", 2)):
            shapes = ((n_ways, n_gates * n_hidden, n_in), (n_ways, n_gates * n_hidden, n_hidden))
            weights = [_floats(generator, *shape) * np.float32(0.4) for shape in shapes]
            bias = _floats(generator, n_ways, 2 * n_gates * n_hidden) * np.float32(0.4)
            given = {"hidden_size": n_hidden, "direction": direction}
            if operator == "GRU":
                given["linear_before_reset"] = 1
            yield Usage(
                operator=operator, variant=variant, data=(x,), constants=(*weights, bias), attributes=given, n_outputs=2
            )


def _softmax_of_rows(x: Array, *, is_log: bool) -> Array:
    """Return the softmax of operator sets before 13: over all axes from 1 on together."""
    rows = x.reshape(len(x), -1).astype(np.float64)
    rows = rows - np.log(np.exp(rows).sum(1, keepdims=True))
    return np.asarray((rows if is_log else np.exp(rows)).reshape(x.shape), np.float32)
