"""INT8 as Q/DQ nodes whose clipping is searched: a grid of quantiles and cutoffs, judged on images held out.

The idea is the grid search of TensorRT's sampleINT8 over its legacy calibrator's two numbers. Here both are plain: a
tensor's range is its quantile, but never less than `cutoff` of its largest magnitude; one pair serves all tensors. The
last fifth of the calibration images measures nothing and judges the pairs, and calibration images are never scored, so
that the choice is made on images that are neither calibrated nor tested on. Labels are not used: a pair is judged by
how the outputs of the file's float emulation differ from FP32's, which no kernel can blur.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.errors import BuildError
from harness.models.onnx_graph import INSTALL_HINT, activation_scales, load_model
from harness.precision.activations import ActivationReader
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
from harness.protocols import CalibrationSet, Images
from harness.specs import ModelSpec, Precision

if TYPE_CHECKING:
    import onnx

QUANTILES = (0.95, 0.99, 0.999, 0.9999, 0.99999)
CUTOFFS = (0.0, 0.25, 0.5, 0.75)
ALL = (1.0, 1.0)  # the largest magnitude, whatever the other number
GRID = (*product(QUANTILES, CUTOFFS), ALL)
HELD_OUT_SHARE = 0.2
MIN_IMAGES = 10
GRID_KEY = "harness.search"  # in the file's metadata: the whole grid, JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One pair of the grid, on the images held out."""

    quantile: float
    cutoff: float
    n_changed: int  # images whose largest output is another than FP32's
    error: float  # of the outputs: squared differences over squared outputs of FP32


class ImagesWithin:
    """Images first..stop-1 of a calibration set. Implements `protocols.CalibrationSet`."""

    def __init__(self, calibration: CalibrationSet, first: int, stop: int) -> None:
        self._calibration, self._first, self._stop = calibration, first, stop
        self.n_images = stop - first
        self.fingerprint = f"{calibration.fingerprint} {first}..{stop}"

    def batches(self, batch_size: int) -> Iterator[Images]:
        """Yield the images in batches of at most `batch_size`."""
        offset = 0
        for batch in self._calibration.batches(batch_size):
            kept = batch[max(self._first - offset, 0) : max(self._stop - offset, 0)]
            offset += len(batch)
            if len(kept):
                yield kept
            if offset >= self._stop < self._calibration.n_images:
                return  # a set that ends here is read to its end, where it is checked as a whole


def convert(request: ConversionRequest) -> Conversion:
    """Write the Q/DQ file of the best pair of the grid.

    Raises: BuildError for fewer than 10 images or a model without anything to quantize; DataError for bad images.
    """
    import onnx

    images, spec = request.calibration, request.spec
    if images is None or images.n_images < MIN_IMAGES:
        raise BuildError(f"model {spec.name}: qdq-search needs {MIN_IMAGES} calibration images or more")
    first_held_out = int(images.n_images * (1 - HELD_OUT_SHARE))
    measured = ImagesWithin(images, 0, first_held_out)
    held_out = ImagesWithin(images, first_held_out, images.n_images)
    model = prepare_graph(request.source, request.work_dir)
    reader = ActivationReader(model, tensors_to_quantize(model, request), spec, request.work_dir)
    histograms = reader.histograms(measured, finite_ranges(reader, measured, name=spec.name))
    write_qdq(model, _ranges(histograms, *ALL), request)
    search = _Search(load_model(request.target), model, spec, request, held_out)
    grid = [search.judge(quantile, cutoff, _ranges(histograms, quantile, cutoff)) for quantile, cutoff in GRID]
    best = min(grid, key=lambda pair: pair.error)  # the first of equals; a count of changes is too coarse
    ranges = _ranges(histograms, best.quantile, best.cutoff)
    write_qdq(model, ranges, request)
    written = load_model(request.target)
    onnx.helper.set_model_props(written, {GRID_KEY: _grid_text(grid)})
    onnx.save(written, str(request.target))
    return Conversion(
        method=_method(best, held_out.n_images),
        batch_size=reader.batch_size,
        tensors=calibration_view(histograms, ranges),
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
        n_changed = int((found.argmax(1) != self._fp32.argmax(1)).sum())
        error = float(np.square(found - self._fp32).sum() / max(float(np.square(self._fp32).sum()), 1e-30))
        return Judged(quantile=quantile, cutoff=cutoff, n_changed=n_changed, error=error)

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


def _grid_text(grid: list[Judged]) -> str:
    rows = [[pair.quantile, pair.cutoff, pair.n_changed, float(f"{pair.error:.4g}")] for pair in grid]
    return json.dumps({"columns": ["quantile", "cutoff", "changed", "error"], "rows": rows})


def _method(best: Judged, n_images: int) -> str:
    # Part of a baseline: no number that differs by rounding from machine to machine.
    pair = f"quantile {best.quantile:g}, cutoff {best.cutoff:g}"
    return f"search: {pair}, the best of {len(GRID)} pairs on {n_images} images held out"


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
