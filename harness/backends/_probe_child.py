"""A probe's code in a process of its own: a crash or a hang there is an answer."""

from __future__ import annotations

from harness.backends import PROBE_LIMIT_S
from harness.machine.child import ChildEnd, run_python

CHILD_LIMIT_S = PROBE_LIMIT_S - 20  # so that the child's end is told before the worker that asked is given up


def run_child(code: str, *arguments: str) -> ChildEnd:
    """Run a probe's Python code in another process, as `run_python`."""
    return run_python(code, *arguments, limit_s=CHILD_LIMIT_S)
