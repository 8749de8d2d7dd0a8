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
AGAIN = "again"
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
    "rows": np.array([-1, 8 * 8 * CHANNELS], np.int64),
    "rows of the batch": np.array([0, -1], np.int64),
    "pooled rows": np.array([0, CHANNELS], np.int64),
    "halves": np.array([0, CHANNELS, 4, 16], np.int64),
    "any halves": np.array([0, 2, CHANNELS * 4, -1], np.int64),
    "planes of rows": np.array([-1, CHANNELS, 64], np.int64),
    "border": np.array([0, 0, 1, 0, 0, 0, 1, 2], np.int64),
    "bordered.w": weights(10 * 10 * CHANNELS, 10),
    "doubled.w": weights(2 * 8 * 8 * CHANNELS, 10),
    "sides": np.array([2, 3], np.int64),
    "last": np.array([-1], np.int64),
    "first": np.array([1], np.int64),
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
IMAGES |= {
    "more activations": ([node("LeakyRelu", alpha=0.1), node("HardSwish"), node("HardSigmoid"), node("Elu")], "row.w"),
    "responses": ([node("LRN", size=3, alpha=0.3, beta=0.6, bias=1.5)], "row.w"),
    "padding": ([node("Pad", "border")], "bordered.w"),
    "padding with a number": ([node("Pad", "border", "low")], "bordered.w"),
    "channels last": ([node("Transpose", perm=[0, 2, 3, 1])], "row.w"),
    "channels last, then first": (
        [node("Transpose", perm=[0, 2, 3, 1]), node("Transpose", perm=[0, 3, 1, 2])],
        "row.w",
    ),
    "sides swapped": ([node("Transpose", perm=[0, 1, 3, 2]), node("Relu")], "row.w"),
    "another image": ([node("Reshape", "halves"), node("Tanh")], "row.w"),
    "another image, its last side free": ([node("Reshape", "any halves"), node("Tanh")], "row.w"),
    "of three axes": ([node("Reshape", "planes of rows"), node("Relu"), node("Unsqueeze", "last")], "row.w"),
    "an axis more": (
        [node("Reshape", "planes of rows"), node("Unsqueeze", "first"), node("Tanh")],
        "row.w",
    ),
    "mean of channels": ([node("ReduceMean", axes=[1], keepdims=1), node("Add", "planes")], "row.w"),
    "joined": ([node("Concat", AGAIN, axis=1), node("Relu")], "doubled.w"),
    "joined by height": ([node("Concat", AGAIN, axis=-2), node("Relu")], "doubled.w"),
    "mean of rows": ([node("ReduceMean", axes=[2], keepdims=0), node("ReduceMean", axes=[2], keepdims=0)], "pooled.w"),
}
# What stands behind the flattened image.
ENDS = {
    "transposed": [node("Gemm", "row.t", "row.b", transB=1, alpha=0.5, beta=2.0), node("Softmax", axis=1)],
    "no bias": [node("Gemm", "row.w")],
    "matrix": [node("MatMul", "row.w"), node("Add", "row.b")],
    "an activation before the product": [node("Relu"), node("Gemm", "row.w", "row.b")],
}


# What flattens it.
ROWS = {
    "rows": [node("Reshape", "rows"), node("Gemm", "row.w", "row.b")],
    "rows, no size 0": [node("Reshape", "rows", allowzero=1), node("MatMul", "row.w")],
    "rows of any width": [node("Reshape", "rows of the batch"), node("MatMul", "row.w")],
    "rows that no product takes": [node("Reshape", "rows"), node("Sigmoid"), node("MatMul", "row.w")],
    "rows of a transposed image": [
        node("Transpose", perm=[0, 2, 3, 1]),
        node("Reshape", "rows"),
        node("Relu"),
        node("MatMul", "row.w"),
    ],
    "squeezed": [node("GlobalAveragePool"), node("Squeeze", "sides"), node("MatMul", "pooled.w")],
    "pooled rows": [node("GlobalAveragePool"), node("Reshape", "pooled rows"), node("MatMul", "pooled.w")],
}


def net(path, steps):
    """Write a chain: each step's first input is what the last one made; "again" is that once more."""
    last, nodes = "image", []
    for place, (kind, inputs, attributes) in enumerate(steps):
        made = "probabilities" if place == len(steps) - 1 else f"t{place}"
        given = [last if name == AGAIN else name for name in inputs]
        nodes.append(helper.make_node(kind, [last, *given], [made], name=f"/{place}/{kind}", **attributes))
        last = made
    used = {name: WEIGHTS[name] for _, inputs, _ in steps for name in inputs if name != AGAIN}
    return onnx_nets.save_net(path, nodes, used)


def chains():
    for name, (steps, matrix) in IMAGES.items():
        yield name, [STEM, *steps, node("Flatten"), node("Gemm", matrix, "row.b")]
    for name, steps in ENDS.items():
        yield name, [STEM, node("Flatten"), *steps]
    for name, steps in ROWS.items():
        yield name, [STEM, *steps]


CHAINS = dict(chains())
