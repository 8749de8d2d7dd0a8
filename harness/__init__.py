"""Benchmarking and accuracy-regression harness for neural-network inference engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.run.api import StoredRun, compare, load_run, time_model

__version__ = "0.1.0"
__all__ = ["StoredRun", "compare", "load_run", "time_model"]


def __getattr__(name: str) -> Any:
    """Import the interface for scripts when it is asked for: a worker and `harness --version` never wait for it."""
    if name in __all__:
        from harness.run import api

        return getattr(api, name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
