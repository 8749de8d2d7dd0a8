"""As given: an engine that was built before it came, or a file that was quantized before it came, runs as it is."""

from __future__ import annotations

from harness.precision.recipe import NOTHING, Recipe
from harness.specs import GIVEN_RECIPE, Precision

RECIPES = tuple(
    Recipe(
        name=GIVEN_RECIPE,
        precision=precision,
        summary="the file as it is: quantized, or built, before it came"
        if precision is Precision.INT8
        else "the engine as it is, built before it came",
        writes=NOTHING,
    )
    for precision in Precision
)
