"""Magnitudes of a model's tensors, in a process of its own: measured on calibration images, or read from Q/DQ nodes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import msgspec

from harness.errors import HarnessError
from harness.models import find_model, inspect_onnx
from harness.models.onnx_graph import activation_scales
from harness.precision.activations import ActivationReader
from harness.precision.calibration import CheckedCalibration
from harness.precision.recipes.int8_qdq import THRESHOLDS, activation_ranges, float_tensors, prepare_graph
from harness.precision.tables import INT8_MAX, CalibrationTable
from harness.specs import DatasetRequest, ModelSpec
from harness.worker.images import calibration_set

METHODS = tuple(THRESHOLDS)
CODE = "from harness.worker.ranges import main; main(sys.argv[1])"


class Measured(msgspec.Struct, kw_only=True):
    """What is asked for: a model, a method of `THRESHOLDS`, and images."""

    model: str
    models_dir: str
    method: str
    data: DatasetRequest


def main(asked: str) -> None:
    """Print one line of JSON: {"step": "done", "ranges": tensor -> magnitude} or {"step": "error", ...}."""
    try:
        answer: dict[str, object] = {
            "step": "done",
            "ranges": dict(ranges_of(msgspec.json.decode(asked, type=Measured)).ranges),
        }
    except HarnessError as error:
        answer = {"step": "error", "kind": type(error).__name__, "message": str(error)}
    print(f"\n{json.dumps(answer)}", flush=True)


def ranges_of(asked: Measured) -> CalibrationTable:
    """Return the magnitudes of all FP32 tensors of a model; a file with Q/DQ nodes gives the ranges that it holds.

    Raises: DataError, BuildError.
    """
    found = find_model(asked.model, asked.models_dir)
    spec = found if isinstance(found, ModelSpec) else inspect_onnx(found)
    stored = {name: scale * INT8_MAX for name, scale in activation_scales(spec.onnx_path).items()}
    return CalibrationTable(ranges=stored or _measured(spec, asked))


def _measured(spec: ModelSpec, asked: Measured) -> dict[str, float]:
    images = CheckedCalibration(calibration_set(spec, asked.data), spec)
    with tempfile.TemporaryDirectory(prefix="harness-ranges-") as folder:
        # Batch norm stays: a table names the tensors of the file that a runtime reads.
        model = prepare_graph(Path(spec.onnx_path), Path(folder), fold=False)
        reader = ActivationReader(model, float_tensors(model), spec, Path(folder))
        return activation_ranges(reader, images, THRESHOLDS[asked.method], name=spec.name)


def asked_text(asked: Measured) -> str:
    """Return what is asked for as JSON, for `main`."""
    return msgspec.json.encode(asked).decode()
