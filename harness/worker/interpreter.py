"""Another environment's Python: what it holds, what it lacks to be a worker's, and whether a runtime is its own."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.machine.environment import DISTRIBUTIONS

# What a worker imports of other packages before any runtime; execnet sends its own source along. Ranges as in
# pyproject.toml.
WORKER_NEEDS = {
    "msgspec": "msgspec>=0.19,<1",
    "numpy": "numpy>=1.26,<3",
    "filelock": "filelock>=3.13,<4",
    "platformdirs": "platformdirs>=4.2,<5",
    "psutil": "psutil>=5.9,<8",
}
OLDEST_PYTHON = (3, 10)
START_LIMIT_S = 60.0
# Runs in the other interpreter: the standard library alone, and no syntax that an old Python lacks.
LOOK = """
import json, sys
asked, told = json.loads(sys.argv[1]), {"version": list(sys.version_info[:3]), "missing": [], "versions": {}}
if sys.version_info >= (3, 8):
    import importlib.metadata, importlib.util
    for name in asked["modules"]:
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            found = None
        if found is None:
            told["missing"].append(name)
    for name in asked["distributions"]:
        try:
            told["versions"][name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
print("\\n" + json.dumps(told))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A Python that workers may run on, and what its environment holds."""

    python: str  # its path
    version: str = ""  # 3.11.7
    versions: dict[str, str] = field(default_factory=dict)  # distribution -> version
    missing: tuple[str, ...] = ()  # what a worker needs and it lacks, as pip is told: "msgspec>=0.19,<1"

    @property
    def problem(self) -> str:
        """Return what it lacks and the command that installs it, "" where it can be a worker's."""
        if not self.missing:
            return ""
        command = shlex.join([self.python, "-m", "pip", "install", *self.missing])
        return f"{self.python} lacks {', '.join(self.missing)}: {command}"


def python_of(place: str) -> str:
    """Return an environment's interpreter: of a venv's or tox environment's folder, of a path, of a name on PATH.

    Links are kept: a venv's Python is one, and knows its environment by its own place. Raises: ConfigError.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        path = path / "bin" / "python"
    elif "/" not in place:
        path = Path(shutil.which(place) or place)
    if not path.is_file():
        raise ConfigError(f"{place}: no Python there; name an interpreter, or the folder of a venv or tox environment")
    return str(path.absolute())


def environment_of(python: str, modules: Iterable[str] = ()) -> Interpreter:
    """Look at an interpreter's environment without importing anything there.

    `modules`: top-level modules that it must hold beside what every worker needs.
    Raises: ConfigError when it does not start, or is too old for the harness.
    """
    asked = {"modules": [*WORKER_NEEDS, *modules], "distributions": [*DISTRIBUTIONS, *WORKER_NEEDS]}
    told = _looked(python, asked)
    version = tuple(told["version"])
    if version < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        raise ConfigError(f"{python} is Python {'.'.join(map(str, version))}; the harness needs {oldest} or later")
    known = importlib.metadata.packages_distributions() if told["missing"] else {}
    return Interpreter(
        python=python,
        version=".".join(map(str, version)),
        versions=told["versions"],
        missing=tuple(dict.fromkeys(_requirement(name, known) for name in told["missing"])),
    )


def check_interpreters(found: Mapping[str, Interpreter]) -> None:
    """Refuse interpreters that lack something, all in one line. `found`: option -> its interpreter.

    Raises: ConfigError.
    """
    problems = [f"{option}: {one.problem}" for option, one in found.items() if one.problem]
    if problems:
        raise ConfigError("; ".join(dict.fromkeys(problems)))


def _looked(python: str, asked: Mapping[str, Any]) -> Any:
    try:
        found = subprocess.run(
            [python, "-c", LOOK, json.dumps(asked)], capture_output=True, text=True, timeout=START_LIMIT_S, check=False
        )
        return json.loads(found.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{python} does not start: {error}") from error
    except (IndexError, ValueError) as error:
        said = found.stderr.strip().splitlines() or [f"exit code {found.returncode}"]
        raise ConfigError(f"{python} is no Python that starts: {said[-1]}") from error


def _requirement(module: str, distributions: Mapping[str, list[str]]) -> str:
    """Return what pip is told for a module: the harness's own range, or the distribution that this environment has."""
    return WORKER_NEEDS.get(module) or distributions.get(module, [module.replace("_", "-")])[0]
