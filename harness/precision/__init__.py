"""Model -> artifact in one precision. One file per family of recipes; a file joins by listing RECIPES."""

from harness.precision.artifacts import prepare_artifact
from harness.precision.calibration import CheckedCalibration, check_calibration
from harness.precision.catalog import ROOM, find_recipe, list_recipes, recipe_names

__all__ = [
    "ROOM",
    "CheckedCalibration",
    "check_calibration",
    "find_recipe",
    "list_recipes",
    "prepare_artifact",
    "recipe_names",
]
