"""Where the suites and the bundled models are: in the folder of the run, in a checkout, or in the installed package."""

from __future__ import annotations

from pathlib import Path

from harness.options.file import holds_settings, settings_root

PACKAGE = Path(__file__).parents[1]
SUITES, MODELS = "suites", "models"
INSTALLED_MODELS = PACKAGE / "models" / "bundled"


def bundled_suites() -> Path:
    """Return the folder of the suites: the wheel's copy, or that of the checkout."""
    installed = PACKAGE / SUITES
    return installed if installed.is_dir() else PACKAGE.parent / SUITES


def models_folder(root: Path) -> Path:
    """Return the folder whose models a run takes: `models/` below its root where that holds cards, or the bundled."""
    own = root / MODELS
    if any(own.glob("*.toml")):
        return own
    return INSTALLED_MODELS if INSTALLED_MODELS.is_dir() else PACKAGE.parent / MODELS


def suites_of(root: Path) -> Path:
    """Return the suites that `harness run` runs: `suites/` beside the settings of a folder, or the bundled."""
    own = root / SUITES
    return own if own.is_dir() and holds_settings(root) else bundled_suites()


def root_of_run(rootdir: Path, called_in: Path) -> Path:
    """Return the root of a run: pytest's rootdir, unless that only is what holds the installed suites.

    `called_in`: the folder that pytest was called in.
    """
    if PACKAGE.is_relative_to(rootdir) or rootdir.is_relative_to(PACKAGE):
        return settings_root(called_in)
    return rootdir
