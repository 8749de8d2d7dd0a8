"""INT8 as given: a file that was quantized before it came runs as it is."""

from __future__ import annotations

from harness.precision.recipe import NOTHING, Recipe
from harness.specs import GIVEN_RECIPE, Precision

RECIPES = (
    Recipe(
        name=GIVEN_RECIPE,
        precision=Precision.INT8,
        summary="the file as it is, quantized before it came",
        writes=NOTHING,
    ),
)
