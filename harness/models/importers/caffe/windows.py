"""Layers that move a window over an image: convolution, its transpose, pooling with Caffe's rounding up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.models.importers.caffe.graph import Shape, Site
from harness.models.importers.caffe.weights import Blob

GEOMETRY = ("pad", "pad_h", "pad_w", "kernel_size", "kernel_h", "kernel_w", "stride", "stride_h", "stride_w")
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """The geometry of a convolution."""

    kernel: Pair
    stride: Pair
    pad: Pair
    dilation: Pair
    group: int
    n_outputs: int
    has_bias: bool

    def extent(self, axis: int) -> int:
        """Return how many cells the kernel spans."""
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1


def convolution(site: Site) -> None:
    """Add a convolution. Source: conv_layer.cpp."""
    window, (batch, n_inputs, *size) = _window_of(site), site.images
    out = [(size[i] + 2 * window.pad[i] - window.extent(i)) // window.stride[i] + 1 for i in (0, 1)]
    weight = site.blob(0, (window.n_outputs, n_inputs // window.group, *window.kernel))
    _emit_convolution(site, "Conv", window, weight, (batch, window.n_outputs, *out))


def deconvolution(site: Site) -> None:
    """Add a transposed convolution. Source: deconv_layer.cpp."""
    window, (batch, n_inputs, *size) = _window_of(site), site.images
    out = [window.stride[i] * (size[i] - 1) + window.extent(i) - 2 * window.pad[i] for i in (0, 1)]
    weight = site.blob(0, (n_inputs, window.n_outputs // window.group, *window.kernel))
    _emit_convolution(site, "ConvTranspose", window, weight, (batch, window.n_outputs, *out))


def pooling(site: Site) -> None:
    """Add a pooling layer whose last window may hang over the edge. Source: pooling_layer.cpp.

    ONNX' ceil_mode is not used: runtimes differ in what an average over the edge is divided by. The padding is written
    out, and where Caffe divides by fewer cells than the kernel has, the quotient is corrected.
    """
    fields = site.layer.fields("pooling_param", "pool", "global_pooling", "round_mode", *GEOMETRY)
    method = fields.choice("pool", ("MAX", "AVE", "STOCHASTIC"), "MAX")
    if method == "STOCHASTIC":
        raise site.error("pools at random (STOCHASTIC); expected MAX or AVE")
    batch, channels, *size = site.images
    if fields.switch("global_pooling", False):
        op = "GlobalMaxPool" if method == "MAX" else "GlobalAveragePool"
        site.emit(op, site.inputs[:1], (batch, channels, 1, 1))
        return
    kernel, stride, pad = (
        fields.pair("kernel_size", "kernel"),
        fields.pair("stride", "stride", 1),
        fields.pair("pad", "pad", 0),
    )
    _check_window(site, kernel, stride)
    is_floor = fields.choice("round_mode", ("CEIL", "FLOOR"), "CEIL") == "FLOOR"
    out = [_pooled(size[i], kernel[i], stride[i], pad[i], is_floor=is_floor) for i in (0, 1)]
    is_outside = any((out[i] - 1) * stride[i] - pad[i] >= size[i] for i in (0, 1))
    if min(out) < 1 or is_outside or any(pad[i] >= kernel[i] for i in (0, 1)):
        window = f"window {kernel}, stride {stride} and padding {pad}"
        raise site.error(f"has {window} on an image of {tuple(size)}: one window would lie outside")
    ends = [max((out[i] - 1) * stride[i] + kernel[i] - size[i] - pad[i], 0) for i in (0, 1)]
    geometry = {"kernel_shape": kernel, "strides": stride, "pads": [*pad, *ends]}
    shape = (batch, channels, *out)
    if method == "MAX":
        site.emit("MaxPool", site.inputs[:1], shape, **geometry)
        return
    # Caffe counts the cells of its own padding, and none beyond it.
    counts_padding = int(any(pad))
    fewer = [counts_padding and ends[i] > pad[i] for i in (0, 1)]
    if not any(fewer):
        site.emit("AveragePool", site.inputs[:1], shape, count_include_pad=counts_padding, **geometry)
        return
    cells = [
        np.minimum(np.arange(out[i]) * stride[i] - pad[i] + kernel[i], size[i] + pad[i])
        - (np.arange(out[i]) * stride[i] - pad[i])
        for i in (0, 1)
    ]
    correction = kernel[0] * kernel[1] / np.outer(cells[0], cells[1])
    value = site.step("AveragePool", site.inputs[:1], shape, "average", count_include_pad=1, **geometry)
    site.emit("Mul", [value, site.weight("cells", correction.astype(np.float32))], shape)


def _pooled(size: int, kernel: int, stride: int, pad: int, *, is_floor: bool) -> int:
    """Return how many windows there are; the last one starts inside the image or its padding before it."""
    span = size + 2 * pad - kernel
    n_windows = span // stride + 1 if is_floor else -(-span // stride) + 1
    return n_windows - 1 if pad and (n_windows - 1) * stride >= size + pad else n_windows


def _window_of(site: Site) -> _Window:
    known = ("num_output", "bias_term", "group", "dilation", "axis", *GEOMETRY)
    fields = site.layer.fields("convolution_param", *known)
    if fields.whole("axis", 1) != 1:
        raise site.error(f"has axis {fields.whole('axis')}; expected 1, the channels")
    window = _Window(
        kernel=fields.pair("kernel_size", "kernel"),
        stride=fields.pair("stride", "stride", 1),
        pad=fields.pair("pad", "pad", 0),
        dilation=fields.pair("dilation", "dilation", 1),
        group=fields.whole("group", 1),
        n_outputs=fields.whole("num_output"),
        has_bias=fields.switch("bias_term", True),
    )
    _check_window(site, window.kernel, window.stride)
    n_inputs = site.images[1]
    if window.group < 1 or n_inputs % window.group or window.n_outputs % window.group:
        raise site.error(f"has {window.group} groups for {n_inputs} channels in and {window.n_outputs} out")
    return window


def _check_window(site: Site, kernel: Pair, stride: Pair) -> None:
    if min(*kernel, *stride) < 1:
        raise site.error(f"has kernel {kernel} and stride {stride}; expected 1 or more")


def _emit_convolution(site: Site, op: str, window: _Window, weight: Blob, shape: Shape) -> None:
    if min(shape[2:]) < 1:
        raise site.error(f"has a window larger than its image of {site.shape[2:]}")
    inputs = [site.inputs[0], site.weight("weight", weight)]
    if window.has_bias:
        inputs.append(site.weight("bias", site.blob(1, (shape[1],))))
    site.emit(
        op,
        inputs,
        shape,
        kernel_shape=window.kernel,
        strides=window.stride,
        pads=[*window.pad, *window.pad],
        dilations=window.dilation,
        group=window.group,
    )
