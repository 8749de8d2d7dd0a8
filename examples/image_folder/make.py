"""Write a classifier of shapes and its pictures, a folder a class: shapes.onnx, data/{train,test}/CLASS/*.png."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

CLASSES, SIZE, N_TRAIN, N_TEST = ("bar", "disc", "frame"), 16, 120, 40


def picture(name: str, random: np.random.Generator) -> Image.Image:
    """Return one coloured picture, larger than the model's input and of no fixed size."""
    width, height = (int(side) for side in random.integers(24, 40, 2))
    image = Image.new("RGB", (width, height), tuple(int(value) for value in random.integers(0, 60, 3)))
    colour = tuple(int(value) for value in random.integers(160, 256, 3))
    left, top = (int(value) for value in random.integers(2, 6, 2))
    box, draw = (left, top, width - left, height - top), ImageDraw.Draw(image)
    if name == "bar":
        middle = height // 2
        draw.rectangle((left, middle - 3, width - left, middle + 3), fill=colour)
    elif name == "disc":
        draw.ellipse(box, fill=colour)
    else:
        draw.rectangle(box, outline=colour, width=4)
    return image


def features(image: Image.Image) -> np.ndarray:
    """Return what the card makes of a picture: float64[3 * 16 * 16] in 0..1, channels first."""
    small = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(small, np.float64).transpose(2, 0, 1).ravel() / 255


def net(weights: np.ndarray, bias: np.ndarray) -> onnx.ModelProto:
    """Return one product with a softmax behind it."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"], "classify"),
        helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "shapes",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(CLASSES)])],
        [
            numpy_helper.from_array(weights.astype(np.float32), "w"),
            numpy_helper.from_array(bias.astype(np.float32), "b"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    """Write all files into the current folder; the weights are a ridge regression on the training pictures."""
    random, rows, labels = np.random.default_rng(0), [], []
    for split, count in (("train", N_TRAIN), ("test", N_TEST)):
        for label, name in enumerate(CLASSES):
            folder = Path("data", split, name)
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                image = picture(name, random)
                image.save(folder / f"{index}.png")
                if split == "train":
                    rows.append(np.append(features(image), 1.0))
                    labels.append(label)
    inputs, targets = np.stack(rows), 8 * np.eye(len(CLASSES))[labels]
    fitted = np.linalg.solve(inputs.T @ inputs + np.eye(inputs.shape[1]), inputs.T @ targets)
    onnx.save(net(fitted[:-1], fitted[-1]), "shapes.onnx")


if __name__ == "__main__":
    main()
