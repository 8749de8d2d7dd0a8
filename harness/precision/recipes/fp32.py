"""FP32: the model's own file, as it is."""

from __future__ import annotations

from harness.precision.recipe import NOTHING, Recipe
from harness.specs import Precision

RECIPES = (Recipe(name="none", precision=Precision.FP32, writes=NOTHING, summary="the FP32 file as it is"),)
