"""The option groups of backends: of ours, found in their folders, and of installed packages.

All are imported without their runtimes, in every pytest session.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from functools import cache
from pathlib import Path
from typing import cast

from harness.errors import ConfigError
from harness.options.rows import OptionGroup

BACKENDS = Path(__file__).parents[1] / "backends"
ENTRY_POINTS = "harness.options"  # an object, or a module that offers GROUP


@cache
def backend_groups() -> dict[str, OptionGroup]:
    """Return the groups by name: `GROUP` of every `options` module below the backends, then those of packages.

    Raises: ConfigError for a package's group that cannot be imported, or that takes a name which is taken.
    """
    folders = sorted(path.parent.name for path in BACKENDS.glob("*/options.py"))
    modules = [importlib.import_module(f"harness.backends.{folder}.options") for folder in folders]
    groups = {module.GROUP.name: cast(OptionGroup, module.GROUP) for module in modules}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        group = _installed(point)
        flags = {row.flag for known in groups.values() for row in known.rows}
        if group.name in groups or not flags.isdisjoint(row.flag for row in group.rows):
            raise ConfigError(f"{_where(point)}: options called {group.name}, or one of their flags, are there already")
        groups[group.name] = group
    return groups


def _installed(point: importlib.metadata.EntryPoint) -> OptionGroup:
    try:
        loaded = point.load()
    except Exception as error:
        raise ConfigError(f"{_where(point)} cannot be imported: {type(error).__name__}: {error}") from error
    group = getattr(loaded, "GROUP", loaded)
    if not isinstance(group, OptionGroup):
        raise ConfigError(f"{_where(point)}: {point.value} offers no OptionGroup")
    return group


def _where(point: importlib.metadata.EntryPoint) -> str:
    package = point.dist.name if point.dist else point.value
    return f"entry point {point.name} of {ENTRY_POINTS} in the package {package}"
