"""ONNX -> .tflite in a child of the worker, kept in the content cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.backends._cpu import import_runtime
from harness.backends._host.conversion import Converted, converted, run_converter
from harness.backends._host.graph import widened
from harness.backends._host.request import OpenRequest
from harness.backends._tf.graph import check_operators
from harness.backends.litert import tflite
from harness.models.onnx_graph import constants_to_initializers, node_id

CALIBRATION_BATCH = 100  # images read at once; the converter is given one after the other
REVISION = 1  # raised when the same converter would be given another graph


def converted_model(request: OpenRequest, kind: str, versions: Mapping[str, str]) -> tuple[Converted, list[str]]:
    """Return the .tflite of a case, and the ONNX nodes in the order that it numbers them.

    Raises: BuildError; Unsupported for an operator that has no translation.
    """
    model = widened(request.model)
    constants_to_initializers(model)
    check_operators(model, request.label)
    calibration = request.images if kind == tflite.INT8 else None

    def make(folder: Path) -> tuple[bytes, dict[str, str]]:
        onnx = import_runtime("onnx")
        onnx.save(model, str(folder / tflite.MODEL))
        if calibration is not None:
            images = np.concatenate(list(calibration.batches(CALIBRATION_BATCH)))
            np.save(folder / tflite.IMAGES, images)
        # Keras and Matplotlib write into the home, TensorFlow talks.
        homes = dict.fromkeys(("KERAS_HOME", "MPLCONFIGDIR"), str(folder))
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", **homes}
        code = f"from {tflite.__name__} import main; main(sys.argv[1])"
        run_converter("TensorFlow", code, kind, subject=request.subject, folder=folder, environment=quiet)
        return (folder / tflite.RESULT).read_bytes(), {}

    key = {
        "to": "tflite",
        "kind": kind,
        "artifact": request.artifact.sha256,
        "calibration": calibration.fingerprint if calibration is not None else "",
        "revision": REVISION,
        **versions,
    }
    made = converted(request.options, key, f"{request.artifact.model}-{kind}.tflite", make)
    return made, [node_id(node) for node in model.graph.node]
