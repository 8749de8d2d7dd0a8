"""TensorRT 8.6, 10.x and 11.x: `BACKEND` is the adapter, the other modules are its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.backends.trt.adapter import TrtBackend

__all__ = ["BACKEND"]


def __getattr__(name: str) -> TrtBackend:
    """Import the adapter when it is asked for: the options beside it are read whenever pytest starts."""
    if name != "BACKEND":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from harness.backends.trt.adapter import BACKEND

    return BACKEND
