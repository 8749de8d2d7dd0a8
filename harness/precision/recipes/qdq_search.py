"""INT8 as Q/DQ nodes whose clipping is searched: a grid of quantiles and cutoffs, judged on images held out.

The idea is the grid search of TensorRT's sampleINT8 over its legacy calibrator's two numbers. Here both are plain: a
tensor's range is its quantile, but never less than `cutoff` of its largest magnitude; one pair serves all tensors. The
last fifth of the calibration images measures nothing and judges the pairs, and calibration images are never scored, so
that the choice is made on images that are neither calibrated nor tested on. Labels are not used: a pair is judged by
how the outputs of the file's float emulation differ from FP32's, which no kernel can blur.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.models.onnx_graph import INSTALL_HINT, activation_scales, load_model
from harness.precision.activations import ActivationReader
from harness.precision.grid import Judged, best_in_words, best_of, grid_text, held_apart, judged
from harness.precision.ranges import MagnitudeHistogram, percentile_threshold
from harness.precision.recipe import QDQ, Conversion, ConversionRequest, Recipe
from harness.precision.recipes.int8_qdq import (
    finite_ranges,
    prepare_graph,
    tensors_to_quantize,
    tool_versions,
    write_qdq,
)
from harness.precision.view import calibration_view
from harness.protocols import CalibrationSet
from harness.specs import ModelSpec, Precision

if TYPE_CHECKING:
    import onnx

QUANTILES = (0.95, 0.99, 0.999, 0.9999, 0.99999)
CUTOFFS = (0.0, 0.25, 0.5, 0.75)
ALL = (1.0, 1.0)  # the largest magnitude, whatever the other number
GRID = (*product(QUANTILES, CUTOFFS), ALL)
GRID_KEY = "harness.search"  # in the file's metadata: the whole grid, JSON


def convert(request: ConversionRequest) -> Conversion:
    """Write the Q/DQ file of the best pair of the grid.

    Raises: BuildError for fewer than 10 images or a model without anything to quantize; DataError for bad images.
    """
    import onnx

    spec = request.spec
    measured, held_out = held_apart(request.calibration, f"model {spec.name}: qdq-search")
    model = prepare_graph(request.source, request.work_dir)
    reader = ActivationReader(model, tensors_to_quantize(model, request), spec, request.work_dir)
    histograms = reader.histograms(measured, finite_ranges(reader, measured, name=spec.name))
    write_qdq(model, _ranges(histograms, *ALL), request)
    search = _Search(load_model(request.target), model, spec, request, held_out)
    grid = [search.judge(quantile, cutoff, _ranges(histograms, quantile, cutoff)) for quantile, cutoff in GRID]
    best = best_of(grid)
    ranges = _ranges(histograms, best.quantile, best.cutoff)
    write_qdq(model, ranges, request)
    written = load_model(request.target)
    onnx.helper.set_model_props(written, {GRID_KEY: grid_text(grid)})
    onnx.save(written, str(request.target))
    return Conversion(
        method=f"search: {best_in_words(best, len(GRID), held_out.n_images)}",
        batch_size=reader.batch_size,
        tensors=calibration_view(ranges, histograms),
    )


def _ranges(histograms: Mapping[str, MagnitudeHistogram], quantile: float, cutoff: float) -> dict[str, float]:
    return {
        name: max(percentile_threshold(histogram, quantile * 100), cutoff * histogram.largest)
        for name, histogram in histograms.items()
    }


class _Search:
    """Runs candidates of one file, which differ by their scales only, on the images held out."""

    def __init__(
        self,
        quantized: onnx.ModelProto,
        model: onnx.ModelProto,
        spec: ModelSpec,
        request: ConversionRequest,
        held_out: CalibrationSet,
    ) -> None:
        self._quantized, self._spec, self._held_out, self._work_dir = quantized, spec, held_out, request.work_dir
        self._places = _scale_places(quantized, activation_scales(request.target))
        self._fp32 = self._outputs(model)

    def judge(self, quantile: float, cutoff: float, ranges: Mapping[str, float]) -> Judged:
        """Return how one pair does."""
        from onnx import numpy_helper

        for name, places in self._places.items():
            if ranges[name] > 0:  # a tensor that is always 0 keeps its scale
                for place in places:
                    tensor = self._quantized.graph.initializer[place]
                    scale = np.full(tuple(tensor.dims), ranges[name] / 127, np.float32)
                    tensor.CopyFrom(numpy_helper.from_array(scale, tensor.name))
        found = self._outputs(self._quantized)
        return judged(quantile, cutoff, found, self._fp32)

    def _outputs(self, model: onnx.ModelProto) -> NDArray[np.float64]:
        name = self._spec.output_name
        reader = ActivationReader(model, (name,), self._spec, self._work_dir, is_emulated=True)
        outputs = [values[name].reshape(len(values[name]), -1) for values in reader.read(self._held_out)]
        return np.concatenate(outputs).astype(np.float64)


def _scale_places(model: onnx.ModelProto, scales: Mapping[str, float]) -> dict[str, list[int]]:
    """Return tensor -> where the initializers lie that hold its scale."""
    places = {tensor.name: index for index, tensor in enumerate(model.graph.initializer)}
    found: dict[str, list[int]] = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in scales:
            found.setdefault(node.input[0], []).append(places[node.input[1]])
    return found


RECIPES = (
    Recipe(
        name="qdq-search",
        precision=Precision.INT8,
        writes=QDQ,
        summary="Q/DQ, range by the best quantile and cutoff of a grid, on a fifth of the calibration images",
        convert=convert,
        tool_versions=tool_versions,
        needs_calibration=True,
        required_modules=("onnx", "onnxruntime"),
        install_hint=INSTALL_HINT,
    ),
)
