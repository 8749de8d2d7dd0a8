"""Backends, one file each: the file's name is the `--backend` value; a file is imported only when chosen."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import cast

from harness.errors import ConfigError
from harness.protocols import Backend

PROBE_LIMIT_S = 120.0  # longest silence of a backend's `probe`; a first start reads hundreds of MB of libraries [s]
# Loadable by name, never chosen or listed: what others are compared with.
REFERENCE_BACKENDS = ("ort-emulation",)


def add_backend_dir(folder: str) -> None:
    """Let the files in `backends` below a folder be backends too. Raises: ConfigError when there is no such folder."""
    if not Path(folder).is_dir():
        raise ConfigError(f"--extension-dir={folder}: there is no such folder")
    backends = str(Path(folder) / "backends")
    if backends not in __path__:
        __path__.append(backends)


def list_backends() -> tuple[str, ...]:
    """Return the names of all backends, without importing any; `_` in a file's name reads `-`."""
    names = (m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return tuple(sorted(name for name in names if name not in REFERENCE_BACKENDS))


def load_backend(name: str) -> Backend:
    """Import one adapter file and return its BACKEND. The runtime itself is imported by `probe` or `build`.

    Raises: ConfigError for an unknown name.
    """
    if name not in (*list_backends(), *REFERENCE_BACKENDS):
        raise ConfigError(f"no backend is called {name!r}; there are: {', '.join(list_backends())}")
    module = importlib.import_module(f"harness.backends.{name.replace('-', '_')}")
    return cast(Backend, module.BACKEND)
