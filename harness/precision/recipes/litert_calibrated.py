"""INT8 of LiteRT, made by its own converter: the artifact is the FP32 file."""

from __future__ import annotations

from harness.precision.recipe import LITERT, NOTHING, Recipe
from harness.specs import Precision


def _recipe(name: str, summary: str) -> Recipe:
    return Recipe(name=name, precision=Precision.INT8, summary=summary, writes=NOTHING, quantizes_in=LITERT)


RECIPES = (
    _recipe("litert-int8", "LiteRT's converter: weights and activations, range up to the largest activation"),
    _recipe("litert-dynamic", "LiteRT's converter: weights only; activations are quantized at every call"),
)
