"""Cases planned for another machine: nothing is probed here."""

from __future__ import annotations

from pathlib import Path

from harness.errors import ConfigError
from harness.options.discovery import add_extension_dir
from harness.options.values import HarnessOptions
from harness.records import CPU
from harness.run.choosing import choose_models
from harness.run.plan import cases_of, check_recipes
from harness.run.probing import chosen_names
from harness.specs import Case, ModelSpec


def cases_ahead(
    options: HarnessOptions, *, models_dir: Path, where: str
) -> tuple[dict[str, ModelSpec], tuple[Case, ...]]:
    """Return the models and the cases that a machine with the asked backends will have.

    `where`: what asked for them, for messages.
    Raises: ConfigError for an unknown name, and for backends left to `auto`: what a machine can do is then not known.
    """
    for folder in options.extension_dirs:
        add_extension_dir(folder)
    if options.backends == ("auto",):
        raise ConfigError(f'{where}: name its backends: run = {{ backend = ["ort"] }}')
    check_recipes(options)
    models = choose_models(options, models_dir)
    options.check_settings(tuple(models.values()))
    # The first device of a backend is in no case's name, whatever it will be called there.
    device = CPU if options.device == "auto" else options.device
    return models, cases_of(options, models, dict.fromkeys(chosen_names(options.backends), device))
