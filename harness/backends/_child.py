"""Code of a probe or a converter in a process of its own: its crash is an answer, and it never outlives who asked."""

from __future__ import annotations

from collections.abc import Mapping

from harness.backends import PROBE_LIMIT_S
from harness.machine.child import ChildEnd, run_python

CHILD_LIMIT_S = PROBE_LIMIT_S - 20  # so that the child's end is told before the worker that asked is given up


def run_child(
    code: str,
    *arguments: str,
    limit_s: float | None = None,
    folder: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> ChildEnd:
    """Run Python code in another process, as `run_python`; `limit_s`: CHILD_LIMIT_S unless told."""
    limit_s = CHILD_LIMIT_S if limit_s is None else limit_s
    return run_python(code, *arguments, limit_s=limit_s, folder=folder, environment=environment)
