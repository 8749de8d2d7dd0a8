"""Outputs of the source against those of the imported file, on random images: what a conversion changed."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.models.onnx_graph import one_line

N_IMAGES, SEED = 8, 0
# Of the largest output: kernels round differently, a wrong operator is off by far more.
MAX_DIFFERENCE = 1e-4
TINY = 1e-3  # outputs below it are compared absolutely


def random_images(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return float32[8, *shape] in [0, 1), the same in every process."""
    return np.random.default_rng(SEED).random((N_IMAGES, *shape), np.float32)


def difference_of(expected: NDArray[np.float32], path: Path, images: NDArray[np.float32], source: str) -> float | None:
    """Return the largest difference of the file's outputs on ONNX Runtime to the expected ones.

    None where ONNX Runtime cannot run the file, as with an operator of the user's own.
    Raises: DataError when they differ by more than rounding does, or are NaN.
    """
    ort = importlib.import_module("onnxruntime")
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (state.Fail, state.InvalidGraph, state.NotImplemented, state.RuntimeException):
        return None
    found = session.run(None, {session.get_inputs()[0].name: images})[0]
    if found.shape != expected.shape:
        shapes = f"{list(found.shape)} for {len(images)} images; the source gives {list(expected.shape)}"
        raise DataError(f"{source}: imported, it gives {shapes}")
    difference = float(np.abs(found.astype(np.float64) - expected).max())
    if not difference <= MAX_DIFFERENCE * max(float(np.abs(expected).max()), TINY):
        what = f"its outputs differ by {difference:.3g} from the source's on random images"
        raise DataError(f"{source}: imported, {what}; the converter has changed the net")
    return difference


def why_not_run(path: Path) -> str:
    """Return in one line why ONNX Runtime cannot run a file."""
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own kinds
        return one_line(error)
    return ""
