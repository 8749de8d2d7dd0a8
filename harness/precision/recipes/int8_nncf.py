"""INT8 by NNCF, OpenVINO's own quantizer (an optional extra): Q/DQ nodes in an ONNX file, overflow fix on.

Its activations are uint8 where they cannot be negative, so TensorRT, which takes symmetric INT8 only, must not be
given these files; ONNX Runtime multiplies its Gemm layers in FP32.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from harness.errors import BuildError
from harness.models.onnx_graph import one_line
from harness.precision.activations import ActivationReader
from harness.precision.keeping import name_kept
from harness.precision.recipe import QDQ, Conversion, ConversionRequest, Recipe
from harness.precision.recipes.int8_qdq import REDUCED_BITS, prepare_graph, tensors_to_quantize
from harness.protocols import CalibrationSet, Images
from harness.specs import Precision

INSTALL_HINT = "pip install 'nn-engine-harness[nncf]'"
QUIET_ENVIRONMENT = "NNCF_CI"  # read once, when nncf is imported: no usage events are sent


class _Feeds:
    """Calibration images as NNCF reads them; it goes through them more than once."""

    def __init__(self, calibration: CalibrationSet, input_name: str, batch_size: int, fixed_batch: int | None) -> None:
        self._calibration, self._input_name = calibration, input_name
        self._batch_size, self._fixed_batch = batch_size, fixed_batch

    def __iter__(self) -> Iterator[dict[str, Images]]:
        for images in self._calibration.batches(self._batch_size):
            missing = (self._fixed_batch or len(images)) - len(images)
            fillers = np.repeat(images[:1], missing, axis=0)  # of a known image: they widen no range
            yield {self._input_name: np.concatenate([images, fillers]) if missing else images}


def convert(request: ConversionRequest) -> Conversion:
    """Write NNCF's Q/DQ file of a model.

    Raises: BuildError when NNCF refuses the model or no calibration images are given; DataError for bad ones.
    """
    import onnx

    if request.calibration is None:
        raise BuildError(f"model {request.spec.name}: INT8 needs calibration images; none were given")
    model = prepare_graph(request.source, request.work_dir)
    # The same batch as the other recipes, small enough for a heavy net.
    names = tensors_to_quantize(model, request)
    batch_size = ActivationReader(model, names, request.spec, request.work_dir).batch_size
    for _ in request.calibration.batches(batch_size):
        pass  # NNCF stops reading at the last batch, before the checks of the whole set
    feeds = _Feeds(request.calibration, request.spec.input_name, batch_size, request.spec.max_batch)
    kept, n_batches = name_kept(model, request.kept_float), math.ceil(request.calibration.n_images / batch_size)
    quantized = _quantized(model, feeds, n_batches, request.spec.name, kept)
    onnx.save(quantized, str(request.target))
    return Conversion(method="nncf", batch_size=batch_size)


def _quantized(model: Any, feeds: _Feeds, n_batches: int, name: str, kept: Sequence[str]) -> Any:
    os.environ.setdefault(QUIET_ENVIRONMENT, "1")
    nncf = importlib.import_module("nncf")
    errors = importlib.import_module("nncf.errors")
    advanced = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return nncf.quantize(
                model,
                nncf.Dataset(feeds),
                subset_size=n_batches,
                preset=nncf.QuantizationPreset.PERFORMANCE,
                target_device=nncf.TargetDevice.CPU,
                ignored_scope=nncf.IgnoredScope(names=list(kept)) if kept else None,
                advanced_parameters=advanced,
            )
        except (errors.ValidationError, errors.InternalError, errors.UnsupportedModelError, RuntimeError) as error:
            raise BuildError(f"model {name}: NNCF cannot quantize it: {one_line(error)}") from error


def tool_versions() -> Mapping[str, str]:
    """Return the versions of what writes the file."""
    return {name: importlib.metadata.version(name) for name in ("nncf", "onnx", "onnxruntime")}


RECIPES = (
    Recipe(
        name="nncf",
        precision=Precision.INT8,
        writes=QDQ,
        summary="OpenVINO's quantizer, overflow fix on (weights within 7 bits); not for TensorRT",
        convert=convert,
        tool_versions=tool_versions,
        needs_calibration=True,
        weight_bits=REDUCED_BITS,
        required_modules=("nncf", "onnx", "onnxruntime"),
        install_hint=INSTALL_HINT,
    ),
)
