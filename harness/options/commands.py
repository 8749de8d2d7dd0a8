"""Options of a run -> what differed from the defaults, and what a user would type to repeat one case of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from harness.options.rows import Option
from harness.options.table import all_rows, is_changed, value_of
from harness.options.values import HarnessOptions
from harness.specs import DEFAULT_RECIPES, GIVEN_RECIPE, Case, Precision, model_name

CASE_FIELDS = {"backends": "backend", "precisions": "precision", "models": "model", "recipes": "recipe"}


def words_of(**values: object) -> list[str]:
    """Return the words of a command line that set some options, by the names of their fields."""
    rows = {row.field: row for row in all_rows()}
    return [word for field, value in values.items() for word in rows[field].words(value)]


def changed_options(options: HarnessOptions) -> dict[str, str]:
    """Return the options that differ from their defaults: flag -> text."""
    return {row.flag: row.text(value_of(row, options)) for row in all_rows() if is_changed(row, options)}


def changed_selection(options: HarnessOptions) -> bool:
    """Tell whether fewer cases were asked for than there are."""
    return any(is_changed(row, options) for row in all_rows() if row.role == "selects")


def shape_of(changed: Mapping[str, str]) -> dict[str, str]:
    """Return what chose and shaped the cases of a run, of its changed options."""
    return {row.flag: changed[row.flag] for row in all_rows() if row.flag in changed and row.role != "run"}


def selection_of(changed: Mapping[str, str]) -> tuple[str, ...]:
    """Return what chose the cases of a run, of its changed options."""
    return tuple(changed.get(row.flag, "") for row in all_rows() if row.role == "selects" or row.field == "device")


def command_of(case: Case, options: HarnessOptions) -> str:
    """Return the command that repeats one case alone.

    It holds every option that shaped the case, so that it says the same where harness.toml or the defaults are others.
    """
    words = ["pytest", "suites/"]
    for row in all_rows():
        if row.role == "selects":
            words += _words_of_case(row, case, options)
        elif row.role == "shapes" and (is_changed(row, options) or row.flag in _kept_flags(options)):
            words += row.words(value_of(row, options), by_own_flag=row.flag in options.taken_flags)
    return shlex.join(words)


def _kept_flags(options: HarnessOptions) -> frozenset[str]:
    """Return the flags that are said though they may equal a default: to be named means more than the value."""
    return options.set_in_file | {row.flag for row in all_rows() if row.field in options.named}


def _words_of_case(row: Option, case: Case, options: HarnessOptions) -> list[str]:
    engines = tuple(name for name in options.engines if model_name(name) == case.model and case.recipe == GIVEN_RECIPE)
    if row.field == "engines" or (engines and row.field in ("models", "recipes")):
        return row.words(engines, by_own_flag=row.flag in options.taken_flags) if row.field == "engines" else []
    value = getattr(case, CASE_FIELDS[row.field])
    if row.field == "models":
        value = next((name for name in options.models if model_name(name) == case.model), value)
    if row.field == "recipes" and row.flag not in options.set_in_file:
        is_default = case.recipe == DEFAULT_RECIPES[case.precision.value]
        if is_default and case.precision is not Precision.INT8:
            return []
    return row.words((value,), by_own_flag=row.flag in options.taken_flags)
