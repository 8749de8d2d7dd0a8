"""Caffe's layers as ONNX nodes, one function a type. What a layer cannot say in ONNX is an error that names it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from harness.models.importers.caffe.graph import Shape, Site
from harness.models.importers.caffe.windows import convolution, deconvolution, pooling

Converter = Callable[[Site], None]


def inner_product(site: Site) -> None:
    """Add a product with a matrix. Source: inner_product_layer.cpp."""
    fields = site.layer.fields("inner_product_param", "num_output", "bias_term", "axis", "transpose")
    n_outputs, axis = fields.whole("num_output"), site.axis(fields.whole("axis", 1))
    kept, n_inputs = site.shape[:axis], math.prod(site.shape[axis:])
    is_transposed = fields.switch("transpose", False)
    weight = site.blob(0, (n_inputs, n_outputs) if is_transposed else (n_outputs, n_inputs))
    value = site.inputs[0]
    if axis == 1:
        if len(site.shape) > 2:
            value = site.step("Flatten", [value], (site.shape[0], n_inputs), "flatten", axis=1)
        inputs = [value, site.weight("weight", weight)]
        if fields.switch("bias_term", True):
            inputs.append(site.weight("bias", site.blob(1, (n_outputs,))))
        site.emit("Gemm", inputs, (site.shape[0], n_outputs), transB=int(not is_transposed))
        return
    if axis != len(site.shape) - 1:
        raise site.error(f"multiplies from axis {axis} of {len(site.shape)} on; expected 1 or the last")
    product = [value, site.weight("weight", weight if is_transposed else weight.T)]
    if not fields.switch("bias_term", True):
        site.emit("MatMul", product, (*kept, n_outputs))
        return
    value = site.step("MatMul", product, (*kept, n_outputs), "product")
    site.emit("Add", [value, site.weight("bias", site.blob(1, (n_outputs,)))], (*kept, n_outputs))


def relu(site: Site) -> None:
    """Add a ReLU, leaky where it has a slope."""
    slope = site.layer.fields("relu_param", "negative_slope").number("negative_slope", 0.0)
    if slope:
        site.emit("LeakyRelu", site.inputs[:1], site.shape, alpha=slope)
    else:
        site.emit("Relu", site.inputs[:1], site.shape)


def prelu(site: Site) -> None:
    """Add a ReLU with learnt slopes, one for all or one a channel."""
    is_shared = site.layer.fields("prelu_param", "channel_shared").switch("channel_shared", False)
    n_slopes = 1 if is_shared else site.shape[1]
    slope = site.blob(0, (n_slopes,)).reshape(n_slopes, *(1,) * (len(site.shape) - 2))
    site.emit("PRelu", [site.inputs[0], site.weight("slope", slope)], site.shape)


def elu(site: Site) -> None:
    """Add an ELU."""
    alpha = site.layer.fields("elu_param", "alpha").number("alpha", 1.0)
    site.emit("Elu", site.inputs[:1], site.shape, alpha=alpha)


def elementwise(op: str, parameter: str) -> Converter:
    """Return the converter of a function without parameters."""

    def convert(site: Site) -> None:
        site.layer.fields(parameter)
        site.emit(op, site.inputs[:1], site.shape)

    return convert


def power(site: Site) -> None:
    """Add (shift + scale * x) ^ power, without the steps that do nothing."""
    fields = site.layer.fields("power_param", "power", "scale", "shift")
    steps = [
        (op, what, number)
        for op, what, number, neutral in (
            ("Mul", "scale", fields.number("scale", 1.0), 1.0),
            ("Add", "shift", fields.number("shift", 0.0), 0.0),
            ("Pow", "power", fields.number("power", 1.0), 1.0),
        )
        if number != neutral
    ]
    value = site.inputs[0]
    for op, what, number in steps[:-1]:
        value = site.step(op, [value, site.weight(what, np.float32(number))], site.shape, what)
    if steps:
        op, what, number = steps[-1]
        site.emit(op, [value, site.weight(what, np.float32(number))], site.shape)
    else:
        site.emit("Identity", [value], site.shape)


def softmax(site: Site) -> None:
    """Add a softmax over one axis."""
    axis = site.axis(site.layer.fields("softmax_param", "axis").whole("axis", 1))
    site.emit("Softmax", site.inputs[:1], site.shape, axis=axis)


def lrn(site: Site) -> None:
    """Add a normalization across channels. Source: lrn_layer.cpp; alpha is divided by the size in both."""
    fields = site.layer.fields("lrn_param", "local_size", "alpha", "beta", "k", "norm_region")
    if fields.choice("norm_region", ("ACROSS_CHANNELS", "WITHIN_CHANNEL"), "ACROSS_CHANNELS") != "ACROSS_CHANNELS":
        raise site.error("normalizes WITHIN_CHANNEL, which ONNX has no operator for")
    size = fields.whole("local_size", 5)
    if size % 2 == 0:
        raise site.error(f"has local_size {size}; Caffe takes odd ones only")
    alpha, beta, bias = fields.number("alpha", 1.0), fields.number("beta", 0.75), fields.number("k", 1.0)
    site.emit("LRN", site.inputs[:1], site.images, size=size, alpha=alpha, beta=beta, bias=bias)


def batch_norm(site: Site) -> None:
    """Add a normalization by the stored mean and variance. Source: batch_norm_layer.cpp."""
    fields = site.layer.fields("batch_norm_param", "use_global_stats", "eps")
    if not fields.switch("use_global_stats", True):
        raise site.error("has use_global_stats: false, so that a result depends on its batch; set it to true")
    channels = (site.shape[1],)
    total = float(site.blob(2, (1,))[0])
    factor = np.float32(1 / total if total else 0.0)
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    weights = (
        site.weight("scale", ones),
        site.weight("shift", zeros),
        site.weight("mean", site.blob(0, channels) * factor),
        site.weight("variance", site.blob(1, channels) * factor),
    )
    epsilon = fields.number("eps", 1e-5)
    site.emit("BatchNormalization", [site.inputs[0], *weights], site.shape, epsilon=epsilon)


def scale(site: Site) -> None:
    """Add a learnt factor and shift along some axes. Source: scale_layer.cpp."""
    fields = site.layer.fields("scale_param", "axis", "num_axes", "bias_term")
    if len(site.inputs) != 1:
        raise site.error("multiplies two blobs; only a learnt factor is supported")
    first, n_axes = site.axis(fields.whole("axis", 1)), fields.whole("num_axes", 1)
    stop = len(site.shape) if n_axes == -1 else first + n_axes
    if first == 0 or stop > len(site.shape):
        raise site.error(f"covers axes {first} to {stop - 1} of {len(site.shape)}; expected axes of one image")
    covered = site.shape[first:stop]
    spread = (*covered, *(1,) * (len(site.shape) - stop))
    product = [site.inputs[0], site.weight("factor", site.blob(0, covered).reshape(spread))]
    if not fields.switch("bias_term", False):
        site.emit("Mul", product, site.shape)
        return
    value = site.step("Mul", product, site.shape, "product")
    site.emit("Add", [value, site.weight("shift", site.blob(1, covered).reshape(spread))], site.shape)


def concat(site: Site) -> None:
    """Join blobs along an axis."""
    fields = site.layer.fields("concat_param", "axis", "concat_dim")
    axis = site.axis(fields.whole("axis", fields.whole("concat_dim", 1)))
    shapes = [site.graph.shapes[value] for value in site.inputs]
    others = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    if axis == 0 or len(others) != 1:
        raise site.error(f"joins blobs of shapes {', '.join(map(str, shapes))} along axis {axis}")
    joined = sum(shape[axis] for shape in shapes)
    site.emit("Concat", site.inputs, (*site.shape[:axis], joined, *site.shape[axis + 1 :]), axis=axis)


def eltwise(site: Site) -> None:
    """Add, multiply or take the largest of blobs of one shape. Source: eltwise_layer.cpp."""
    fields = site.layer.fields("eltwise_param", "operation", "coeff", "stable_prod_grad")
    operation = fields.choice("operation", ("PROD", "SUM", "MAX"), "SUM")
    inputs, factors = list(site.inputs), fields.numbers("coeff")
    if len({site.graph.shapes[value] for value in inputs}) != 1 or len(inputs) < 2:
        raise site.error("takes two or more blobs of one shape")
    if factors and (operation != "SUM" or len(factors) != len(inputs)):
        raise site.error(f"has {len(factors)} coefficients for {operation} of {len(inputs)} blobs")
    for index, factor in enumerate(factors):
        if factor != 1:
            weight = site.weight(f"coeff{index}", np.float32(factor))
            inputs[index] = site.step("Mul", [inputs[index], weight], site.shape, f"coeff{index}")
    op = {"PROD": "Mul", "SUM": "Add", "MAX": "Max"}[operation]
    value = inputs[0]
    for index, other in enumerate(inputs[1:-1], start=1):
        value = site.step(op, [value, other], site.shape, f"part{index}")
    site.emit(op, [value, inputs[-1]], site.shape)


def flatten(site: Site) -> None:
    """Join axes into one. Source: flatten_layer.cpp."""
    fields = site.layer.fields("flatten_param", "axis", "end_axis")
    first, last = site.axis(fields.whole("axis", 1)), site.axis(fields.whole("end_axis", -1))
    if first == 0 or last < first:
        raise site.error(f"joins axes {first} to {last}; expected axes of one image")
    joined = math.prod(site.shape[first : last + 1])
    _reshape(site, (*site.shape[:first], joined, *site.shape[last + 1 :]))


def reshape(site: Site) -> None:
    """Give a blob another shape; the batch stays free. Source: reshape_layer.cpp."""
    fields = site.layer.fields("reshape_param", "shape", "axis", "num_axes")
    shapes = fields.messages("shape", "dim")
    asked = shapes[-1].wholes("dim") if shapes else ()
    rank = len(site.shape)
    first, n_axes = fields.whole("axis", 0), fields.whole("num_axes", -1)
    first = first if first >= 0 else rank + first + 1
    stop = rank if n_axes == -1 else first + n_axes
    if not 0 <= first <= stop <= rank:
        raise site.error(f"reshapes axes {first} to {stop - 1} of {rank}")
    kept = (*site.shape[first:], *asked)  # 0 copies the size that stands there
    sizes = [size or kept[place] for place, size in enumerate(asked)]
    shape = [*site.shape[:first], *sizes, *site.shape[stop:]]
    total = math.prod(site.shape)
    if shape.count(-1) == 1:
        known = math.prod(size for size in shape if size != -1)
        shape[shape.index(-1)] = total // known if known > 0 else 0
    if math.prod(shape) != total or min(shape) < 1:
        raise site.error(f"reshapes {site.shape} to {tuple(asked)}; the sizes do not agree")
    if shape[0] != site.shape[0]:
        raise site.error(f"reshapes {site.shape} to {tuple(shape)}, which mixes the images of a batch")
    _reshape(site, tuple(shape))


def _reshape(site: Site, shape: Shape) -> None:
    if len(shape) == 2:
        site.emit("Flatten", site.inputs[:1], shape, axis=1)
        return
    sizes = np.array([0, *shape[1:]], np.int64)  # 0 keeps the batch as it comes
    site.emit("Reshape", [site.inputs[0], site.weight("shape", sizes)], shape)


CONVERTERS: dict[str, Converter] = {
    "Convolution": convolution,
    "Deconvolution": deconvolution,
    "Pooling": pooling,
    "InnerProduct": inner_product,
    "ReLU": relu,
    "PReLU": prelu,
    "ELU": elu,
    "Sigmoid": elementwise("Sigmoid", "sigmoid_param"),
    "TanH": elementwise("Tanh", "tanh_param"),
    "AbsVal": elementwise("Abs", "absval_param"),
    "Power": power,
    "Softmax": softmax,
    "LRN": lrn,
    "BatchNorm": batch_norm,
    "Scale": scale,
    "Concat": concat,
    "Eltwise": eltwise,
    "Flatten": flatten,
    "Reshape": reshape,
    "Dropout": Site.alias,
    "Split": Site.alias,
}
