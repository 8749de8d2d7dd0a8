"""ONNX file -> .tflite by TensorFlow's converter. Run in a child: `python -m` this module, in a folder of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.backends._cpu import import_runtime
from harness.backends._tf.graph import function_of
from harness.models.onnx_graph import load_model

MODEL, IMAGES, RESULT = "m.onnx", "calibration.npy", "m.tflite"  # in the folder
FP32, FP16, DYNAMIC, INT8 = "fp32", "fp16", "dynamic", "int8"  # what is made


def main(kind: str) -> None:
    """Write RESULT from MODEL, and from IMAGES for INT8."""
    tf = import_runtime("tensorflow")
    model = load_model(MODEL)
    value = model.graph.input[0]
    sizes = [size.dim_value if size.HasField("dim_value") else None for size in value.type.tensor_type.shape.dim]
    module = tf.Module()
    signature = [tf.TensorSpec(sizes, tf.float32, name="image")]
    module.run = tf.function(function_of(tf, model), input_signature=signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.run.get_concrete_function()], module)
    _set_up(tf, converter, kind)
    Path(RESULT).write_bytes(converter.convert())


def _set_up(tf: Any, converter: Any, kind: str) -> None:
    if kind == FP32:
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == FP16:
        converter.target_spec.supported_types = [tf.float16]
    if kind == INT8:
        converter.representative_dataset = _images
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]


def _images() -> Iterator[list[Any]]:
    for image in np.load(IMAGES, mmap_mode="r"):
        yield [np.ascontiguousarray(image[None])]


if __name__ == "__main__":
    main(sys.argv[1])
