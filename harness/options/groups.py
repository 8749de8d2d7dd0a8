"""The option groups of our backends: found in their folders, imported without their runtimes."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import cast

from harness.options.rows import OptionGroup

BACKENDS = Path(__file__).parents[1] / "backends"


@cache
def backend_groups() -> dict[str, OptionGroup]:
    """Return `GROUP` of every `options` module below the backends, by name."""
    folders = sorted(path.parent.name for path in BACKENDS.glob("*/options.py"))
    modules = [importlib.import_module(f"harness.backends.{folder}.options") for folder in folders]
    groups = [cast(OptionGroup, module.GROUP) for module in modules]
    return {group.name: group for group in groups}
