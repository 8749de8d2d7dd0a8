"""The settings of a folder: `harness.toml`, or `[tool.harness]` of `pyproject.toml`, as parsed TOML."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

TABLES = ("run", "tolerance", "model", "waiver")


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFile:
    """What a folder's file says, and what it is called in messages."""

    source: str = ""  # "" when there is none
    table: Mapping[str, Any] = field(default_factory=dict)


def holds_settings(folder: Path) -> bool:
    """Tell whether a folder holds settings. Raises: ConfigError for a pyproject.toml that is not TOML."""
    project = folder / "pyproject.toml"
    return (folder / "harness.toml").is_file() or (
        project.is_file() and "harness" in read_toml(project).get("tool", {})
    )


def settings_root(start: Path) -> Path:
    """Return the nearest folder, from `start` upwards, that holds settings; `start` where none does.

    Raises: ConfigError for a pyproject.toml on the way that is not TOML.
    """
    return next((folder for folder in (start, *start.parents) if holds_settings(folder)), start)


def read_settings(root: Path) -> SettingsFile:
    """Read the settings of a folder; without a file they are empty.

    Raises: ConfigError when both files hold settings, or for a file that is not TOML.
    """
    own, project = root / "harness.toml", root / "pyproject.toml"
    in_project = read_toml(project).get("tool", {}).get("harness") if project.is_file() else None
    if not own.is_file():
        if in_project is None:
            return SettingsFile()
        return SettingsFile(source=f"{project} [tool.harness]", table=in_project)
    if in_project is not None:
        raise ConfigError(f"both {own} and [tool.harness] of {project} hold settings; keep one of them")
    return SettingsFile(source=str(own), table=read_toml(own))


def table_of(value: object, where: str) -> Mapping[str, Any]:
    """Return a TOML table. Raises: ConfigError for any other value."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: found {value!r}; expected a table")
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file. Raises: ConfigError for one that is none."""
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); fix its permissions") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is not TOML: its values are nested too deep") from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError among them
        raise ConfigError(f"{path} is not TOML: {' '.join(str(error).split())}") from error
    return document
