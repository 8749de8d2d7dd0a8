"""The two sides of an upgrade: one plan under two interpreters, each with the runtimes of its own environment."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import ConfigError
from harness.options.discovery import add_extension_dir
from harness.options.values import HarnessOptions
from harness.precision import find_recipe
from harness.run.plan import Plan, chosen_recipes, plan_run
from harness.run.probing import chosen_names, needs_of_backends
from harness.worker.interpreter import Interpreter, check_interpreters, environment_of, python_of
from harness.worker.process import Worker
from harness.worker.requests import ModuleOrigin

LETTERS = ("a", "b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side: an interpreter, and what a run under it would measure."""

    letter: str  # a is what was accepted, b what is to follow it
    label: str  # as the user calls it; "" where only versions name it
    interpreter: Interpreter
    options: HarnessOptions  # of a run whose workers are this interpreter's
    plan: Plan

    def versions_of(self, backend: str) -> dict[str, str]:
        """Return the versions of a backend's libraries on this side, {} where it cannot run."""
        return next((found.versions for found in self.plan.backends if found.backend == backend), {})


def sides_of(
    options: HarnessOptions, places: tuple[str, str], labels: tuple[str, str], *, models_dir: Path
) -> tuple[Side, Side]:
    """Plan one run under two interpreters; `places`: each a Python, or the folder of a venv or tox environment.

    Models are prepared by side A, so that it must hold what the recipes need.
    Raises: ConfigError for an environment that lacks something (all of it in one line) or whose runtimes are another's;
    what `plan_run` raises.
    """
    for folder in options.extension_dirs:
        add_extension_dir(folder)
    named = () if options.backends == ("auto",) else chosen_names(options.backends)
    runtimes = _modules_of(named, options)
    recipes = [find_recipe(p, name) for p in options.precisions for name in chosen_recipes(options, p)]
    tools = tuple(module for recipe in recipes for module in recipe.required_modules)
    pythons = [python_of(place) for place in places]
    found = (
        environment_of(pythons[0], dict.fromkeys((*runtimes, *tools))),
        environment_of(pythons[1], dict.fromkeys(runtimes)),
    )
    check_interpreters({f"--{letter}": one for letter, one in zip(LETTERS, found, strict=True)})
    sides = []
    for letter, label, interpreter in zip(LETTERS, labels, found, strict=True):
        own = replace(options, worker_python=interpreter.python)
        plan = plan_run(own, models_dir=models_dir)
        _check_origins(plan, own, where=f"--{letter}")
        sides.append(Side(letter=letter, label=label, interpreter=interpreter, options=own, plan=plan))
    first, second = sides
    return first, replace(second, plan=replace(second.plan, models={**second.plan.models, **first.plan.models}))


def _modules_of(backends: Sequence[str], options: HarnessOptions) -> tuple[str, ...]:
    needs = needs_of_backends(backends, options).values()
    return tuple(dict.fromkeys(module for one in needs for module in one.required_modules))


def _check_origins(plan: Plan, options: HarnessOptions, *, where: str) -> None:
    """Refuse an environment whose workers load a runtime that is not its own. Raises: ConfigError."""
    modules = _modules_of([found.backend for found in plan.backends], options)
    with closing(Worker(python=options.worker_python, label=where, limits=options.limits)) as worker:
        for origin in worker.call("origins", modules, tuple[ModuleOrigin, ...]):
            if not origin.is_own:
                raise ConfigError(
                    f"{where}: {options.worker_python} loads {origin.module} from {origin.path}, which is not in its "
                    "own site-packages; install it there, and unset PYTHONPATH"
                )
