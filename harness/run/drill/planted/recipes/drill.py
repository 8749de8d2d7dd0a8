"""INT8 whose calibration came out ten times too wide."""

from __future__ import annotations

from harness.precision.activations import ActivationReader
from harness.precision.recipe import QDQ, Conversion, ConversionRequest, Recipe
from harness.precision.recipes.int8_qdq import finite_ranges, prepare_graph, quantized_tensors, tool_versions, write_qdq
from harness.specs import Precision

FACTOR = 10.0
NAME = "drill-x10"


def convert(request: ConversionRequest) -> Conversion:
    """Write the Q/DQ file of a model with every activation's range too wide by a factor of 10."""
    assert request.calibration is not None  # the recipe needs it
    model = prepare_graph(request.source, request.work_dir)
    reader = ActivationReader(model, quantized_tensors(model, with_outputs=True), request.spec, request.work_dir)
    ranges = finite_ranges(reader, request.calibration, name=request.spec.name)
    write_qdq(model, {name: FACTOR * largest for name, largest in ranges.items()}, request, quantize_outputs=True)
    return Conversion(method="minmax, ten times too wide", batch_size=reader.batch_size)


RECIPES = (
    Recipe(
        name=NAME,
        precision=Precision.INT8,
        writes=QDQ,
        summary="a planted fault: activation ranges ten times too wide",
        convert=convert,
        tool_versions=tool_versions,
        needs_calibration=True,
        required_modules=("onnx", "onnxruntime"),
    ),
)
