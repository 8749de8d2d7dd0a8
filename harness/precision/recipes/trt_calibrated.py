"""INT8 that TensorRT makes itself while it builds: the artifact is the FP32 file."""

from __future__ import annotations

from harness.precision.recipe import Recipe
from harness.specs import Precision

RECIPES = (
    Recipe(
        name="trt-entropy2",
        precision=Precision.INT8,
        summary="TensorRT's entropy calibrator 2 (TensorRT 8.6 and 10.x)",
    ),
    Recipe(
        name="trt-minmax", precision=Precision.INT8, summary="TensorRT's min-max calibrator (TensorRT 8.6 and 10.x)"
    ),
    Recipe(
        name="trt-legacy",
        precision=Precision.INT8,
        summary="TensorRT's legacy calibrator with a quantile and a cutoff (TensorRT 8.6)",
    ),
    Recipe(
        name="trt-ranges",
        precision=Precision.INT8,
        summary="dynamic ranges of every tensor from a file (TensorRT 8.6 and 10.x)",
    ),
)
