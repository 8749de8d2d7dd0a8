"""INT8 of ncnn, written while it builds from ranges of ours: the artifact is the FP32 file."""

from __future__ import annotations

from harness.precision.recipe import NCNN, NOTHING, Recipe
from harness.specs import Precision


def _recipe(name: str, summary: str) -> Recipe:
    return Recipe(name=name, precision=Precision.INT8, summary=summary, writes=NOTHING, quantizes_in=NCNN)


RECIPES = (
    _recipe("ncnn-minmax", "ncnn's 8-bit kernels, range up to the largest activation"),
    _recipe("ncnn-entropy", "ncnn's 8-bit kernels, range by least information loss over 2048 bins"),
)
