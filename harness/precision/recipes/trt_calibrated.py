"""INT8 that TensorRT makes itself while it builds: the artifact is the FP32 file."""

from __future__ import annotations

from harness.precision.recipe import NOTHING, TENSORRT, Recipe
from harness.specs import Precision


def _recipe(name: str, summary: str) -> Recipe:
    return Recipe(name=name, precision=Precision.INT8, summary=summary, writes=NOTHING, quantizes_in=TENSORRT)


RECIPES = (
    _recipe("trt-entropy", "TensorRT's entropy calibrator of version 1 (TensorRT 8.6 and 10.x), as sampleINT8"),
    _recipe("trt-entropy2", "TensorRT's entropy calibrator 2 (TensorRT 8.6 and 10.x)"),
    _recipe("trt-minmax", "TensorRT's min-max calibrator (TensorRT 8.6 and 10.x)"),
    _recipe("trt-legacy", "TensorRT's legacy calibrator with a quantile and a cutoff (TensorRT 8.6)"),
    _recipe("trt-search", "as trt-legacy, with the best quantile and cutoff of a grid (TensorRT 8.6 and 10.x)"),
    _recipe("trt-ranges", "dynamic ranges of every tensor from a file (TensorRT 8.6 and 10.x)"),
)
