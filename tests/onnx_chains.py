"""Chains of ONNX operators that classifiers are made of, for what translates graphs."""

import numpy as np
import onnx_nets
from onnx import helper

RANDOM = np.random.default_rng(5)


def weights(*shape):
    return (RANDOM.standard_normal(shape) * 0.5).astype(np.float32)


def node(kind, *inputs, **attributes):
    return kind, inputs, attributes


CHANNELS = 6
STEM = node("Conv", "stem.w", "stem.b", pads=[1, 1, 1, 1])
WEIGHTS = {
    "stem.w": weights(CHANNELS, 1, 3, 3),
    "stem.b": weights(CHANNELS),
    "grouped.w": weights(CHANNELS, 2, 3, 3),
    "depth.w": weights(CHANNELS, 1, 3, 3),
    "scale": np.abs(weights(CHANNELS)) + 0.5,
    "shift": weights(CHANNELS),
    "planes": weights(CHANNELS, 1, 1),
    "number": np.array(1.5, np.float32),
    "row.w": weights(8 * 8 * CHANNELS, 10),
    "row.t": weights(10, 8 * 8 * CHANNELS),
    "row.b": weights(10),
    "half.w": weights(4 * 4 * CHANNELS, 10),
    "pooled.w": weights(CHANNELS, 10),
    "min": np.array(-0.5, np.float32),
    "six": np.array(6, np.float32),
    "zero": np.array(0, np.float32),
    "low": np.array(0.25, np.float32),
}
# What stands between the image and the rows, and the weights of the product behind it.
IMAGES = {
    "strided": ([node("Conv", "depth.w", group=CHANNELS, strides=[2, 2], pads=[1, 1, 1, 1])], "half.w"),
    "uneven padding": ([node("Conv", "grouped.w", group=3, strides=[2, 2], pads=[0, 0, 1, 1])], "half.w"),
    "max pool": ([node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])], "half.w"),
    "average pool": ([node("AveragePool", kernel_shape=[2, 2], strides=[2, 2])], "half.w"),
    "batch norm": ([node("BatchNormalization", "scale", "shift", "shift", "scale")], "row.w"),
    "planes": ([node("Add", "planes"), node("Mul", "number"), node("Sub", "planes"), node("Div", "number")], "row.w"),
    "activations": ([node("Sigmoid"), node("Tanh"), node("Relu"), node("Identity"), node("Dropout")], "row.w"),
    "relu 6": ([node("Clip", "zero", "six")], "row.w"),
    "clip": ([node("Clip", "min", "low")], "row.w"),
    "clip below": ([node("Clip", "min")], "row.w"),
    "global pool": ([node("GlobalAveragePool")], "pooled.w"),
    "mean": ([node("ReduceMean", axes=[2, 3], keepdims=1)], "pooled.w"),
}
# What stands behind the flattened image.
ENDS = {
    "transposed": [node("Gemm", "row.t", "row.b", transB=1, alpha=0.5, beta=2.0), node("Softmax", axis=1)],
    "no bias": [node("Gemm", "row.w")],
    "matrix": [node("MatMul", "row.w"), node("Add", "row.b")],
    "an activation before the product": [node("Relu"), node("Gemm", "row.w", "row.b")],
}


def net(path, steps):
    """Write a chain: each step's first input is what the last one made."""
    last, nodes = "image", []
    for place, (kind, inputs, attributes) in enumerate(steps):
        made = "probabilities" if place == len(steps) - 1 else f"t{place}"
        nodes.append(helper.make_node(kind, [last, *inputs], [made], name=f"/{place}/{kind}", **attributes))
        last = made
    used = {name: WEIGHTS[name] for _, inputs, _ in steps for name in inputs}
    return onnx_nets.save_net(path, nodes, used)


def chains():
    for name, (steps, matrix) in IMAGES.items():
        yield name, [STEM, *steps, node("Flatten"), node("Gemm", matrix, "row.b")]
    for name, steps in ENDS.items():
        yield name, [STEM, node("Flatten"), *steps]


CHAINS = dict(chains())
