"""The recipes there are, found as files."""

from __future__ import annotations

from difflib import get_close_matches

from harness.errors import ConfigError
from harness.options.discovery import Room
from harness.precision import recipes
from harness.precision.recipe import Recipe
from harness.specs import Precision

ROOM = Room("recipes", noun="recipe file", package=recipes.__name__, path=recipes.__path__, offers="RECIPES")


def list_recipes() -> tuple[Recipe, ...]:
    """Return the recipes of all files; their tools are not imported. Raises: ConfigError for a file that is broken."""
    found: dict[tuple[Precision, str], Recipe] = {}
    for offered in ROOM.load_all().values():
        for recipe in offered:
            if (recipe.precision, recipe.name) in found:
                raise ConfigError(f"two {recipe.precision} recipes are called {recipe.name}")
            found[recipe.precision, recipe.name] = recipe
    return tuple(found.values())


def recipe_names(precision: Precision) -> tuple[str, ...]:
    """Return the names of all recipes of a precision."""
    return tuple(recipe.name for recipe in list_recipes() if recipe.precision is precision)


def find_recipe(precision: Precision, name: str) -> Recipe:
    """Return a recipe. Raises: ConfigError for an unknown name, with near ones."""
    known = {recipe.name: recipe for recipe in list_recipes() if recipe.precision is precision}
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"no {precision} recipe is called {name!r}; {hint}there are: {', '.join(sorted(known))}")
    return known[name]
