"""Write a small text classifier with two inputs of whole numbers, and rows to score it on: text.onnx, rows.npz."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

N_WORDS, N_CLASSES, WIDTH, LENGTH, N_ROWS = 300, 3, 32, 12, 400


def main() -> None:
    """Write both files into the current folder."""
    random = np.random.default_rng(0)
    themes = random.normal(size=(N_CLASSES, WIDTH))
    theme_of = random.integers(0, N_CLASSES, N_WORDS)
    words = themes[theme_of] + random.normal(size=(N_WORDS, WIDTH))
    weights = {"words": words, "themes": themes.T}
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["rows"], "embed"),
        helper.make_node("Cast", ["mask"], ["kept"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["kept", "last"], ["wide"], "widen"),
        helper.make_node("Mul", ["rows", "wide"], ["masked"], "mask_rows"),
        helper.make_node("ReduceMean", ["masked"], ["mean"], "pool", axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "themes"], ["scores"], "classify"),
    ]
    graph = helper.make_graph(
        nodes,
        "text",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", LENGTH]) for name in ("ids", "mask")],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", N_CLASSES])],
        [
            *(numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()),
            numpy_helper.from_array(np.array([2]), "last"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "text.onnx")

    labels = random.integers(0, N_CLASSES, N_ROWS)
    of_theme = [np.flatnonzero(theme_of == theme) for theme in range(N_CLASSES)]
    own = np.stack([random.choice(of_theme[label], LENGTH) for label in labels])
    ids = np.where(random.random((N_ROWS, LENGTH)) < 0.5, own, random.integers(0, N_WORDS, (N_ROWS, LENGTH)))
    mask = (np.arange(LENGTH) < random.integers(4, LENGTH + 1, (N_ROWS, 1))).astype(np.int64)
    np.savez("rows.npz", ids=ids, mask=mask, labels=labels)


if __name__ == "__main__":
    main()
