"""INT8 of MNN, made by its own quantizer: the artifact is the FP32 file."""

from __future__ import annotations

from harness.precision.recipe import MNN, NOTHING, Recipe
from harness.specs import Precision


def _recipe(name: str, summary: str) -> Recipe:
    return Recipe(name=name, precision=Precision.INT8, summary=summary, writes=NOTHING, quantizes_in=MNN)


RECIPES = (
    _recipe("mnn-kl", "MNN's quantizer, range by least information loss"),
    _recipe("mnn-ema", "MNN's quantizer, range by a moving average of the largest activation"),
)
