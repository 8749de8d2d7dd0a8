"""Backends, one file or folder each: its name is the `--backend` value; it is imported only when chosen."""

from __future__ import annotations

from typing import cast

from harness.backends._inputs import check_images, first_inference_ns
from harness.options.discovery import Room
from harness.protocols import Backend
from harness.specs import STAGE_LIMITS_S

__all__ = ["PROBE_LIMIT_S", "ROOM", "check_images", "first_inference_ns", "list_backends", "load_backend"]

PROBE_LIMIT_S = STAGE_LIMITS_S["probe"]  # a first start reads hundreds of MB of libraries [s]
ROOM = Room("backends", noun="backend", package=__name__, path=__path__, offers="BACKEND")


def list_backends() -> tuple[str, ...]:
    """Return the names of all backends, without importing any; `_` in a file's name reads `-`.

    One whose file has a leading underscore is not listed, but can be loaded: others are compared with it.
    """
    return ROOM.names()


def load_backend(name: str) -> Backend:
    """Import one adapter and return its BACKEND. The runtime itself is imported by `probe` or `build`.

    Raises: ConfigError for an unknown name or a file that cannot be imported.
    """
    return cast(Backend, ROOM.load(name))
