"""Write a recognizer of digits and pictures of numbers: ocr.onnx, pictures/*.png, pictures/labels.csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

GLYPHS = (  # rows of five pixels, as bits
    (14, 17, 19, 21, 25, 17, 14),
    (4, 12, 4, 4, 4, 4, 14),
    (14, 17, 1, 2, 4, 8, 31),
    (31, 2, 4, 2, 1, 17, 14),
    (2, 6, 10, 18, 31, 2, 2),
    (31, 16, 30, 1, 1, 17, 14),
    (6, 8, 16, 30, 17, 17, 14),
    (31, 1, 2, 4, 8, 8, 8),
    (14, 17, 17, 14, 17, 17, 14),
    (14, 17, 17, 15, 1, 2, 12),
)
CELL, N_CELLS, N_PICTURES, NOISE, THRESHOLD = 8, 8, 120, 0.3, 1.9


def cells() -> np.ndarray:
    """Return float64[10, 8, 8]: every digit in its cell, ink 1."""
    found = np.zeros((len(GLYPHS), CELL, CELL))
    for digit, rows in enumerate(GLYPHS):
        for row, bits in enumerate(rows):
            found[digit, row, 1:6] = [bits >> place & 1 for place in reversed(range(5))]
    return found


def net() -> onnx.ModelProto:
    """Return matched filters that step by half a cell: scores of the blank and of ten digits at each step."""
    templates = cells() - cells().mean(axis=(1, 2), keepdims=True)
    templates /= np.linalg.norm(templates, axis=(1, 2), keepdims=True)
    weights = np.concatenate([np.zeros((1, CELL, CELL)), templates])[:, None].astype(np.float32)
    bias = np.array([THRESHOLD, *[0.0] * len(GLYPHS)], np.float32)  # the blank: no digit fits
    nodes = [
        helper.make_node(
            "Conv", ["image", "w", "b"], ["c"], "match", kernel_shape=[CELL, CELL], strides=[CELL, CELL // 2]
        ),
        helper.make_node("Squeeze", ["c", "two"], ["s"], "squeeze"),
        helper.make_node("Transpose", ["s"], ["steps"], "steps_first", perm=[0, 2, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "ocr",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, CELL, CELL * N_CELLS])],
        [helper.make_tensor_value_info("steps", TensorProto.FLOAT, ["n", 2 * N_CELLS - 1, len(GLYPHS) + 1])],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(bias, "b"),
            numpy_helper.from_array(np.array([2]), "two"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    """Write all files into the current folder."""
    onnx.save(net(), "ocr.onnx")
    random, digits, folder = np.random.default_rng(0), cells(), Path("pictures")
    folder.mkdir(exist_ok=True)
    lines = ["file,text"]
    for index in range(N_PICTURES):
        number = random.integers(0, len(GLYPHS), random.integers(3, N_CELLS + 1))
        ink = np.zeros((CELL, CELL * N_CELLS))
        ink[:, : CELL * len(number)] = np.concatenate(digits[number], axis=1)
        pixels = 255 * np.clip(ink + random.normal(0, NOISE, ink.shape), 0, 1)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{''.join(map(str, number))}")
    (folder / "labels.csv").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
