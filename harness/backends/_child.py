"""Code of a probe or a converter in a process of its own: its crash is an answer, and it never outlives who asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.backends import PROBE_LIMIT_S

CHILD_LIMIT_S = PROBE_LIMIT_S - 20  # so that the child's end is told before the worker that asked is given up
MAX_ERROR = 300  # characters of a child's last word
KILL_LIMIT_S = 5.0  # a process that hangs inside a kernel driver cannot even be killed
# The child asks the kernel (prctl PR_SET_PDEATHSIG) to be killed with its parent; which may be gone before that.
ENDS_WITH_PARENT = """
import os, signal, sys
parent = int(sys.argv.pop(1))
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnd:
    """How a process ended, and the steps that it said it had done."""

    returncode: int | None  # None: it hung and was killed
    answers: tuple[dict[str, Any], ...]
    last_error: str  # last line on stderr, "" without one
    last_output: str  # last line on stdout, "" without one
    limit_s: float

    def reason(self, module: str, at: str) -> str:
        """Return in one line why `module` cannot be used; `at` says during what, as "when imported"."""
        if self.returncode is None:
            return f"{module} hangs on use: no answer in {self.limit_s:.0f} s {at}"
        if self.returncode < 0:
            name = signal.Signals(-self.returncode).name
            return f"{module} crashes on use: a process died of {name} {at}"
        return f"{module} fails on use {at}: {self.last_words}"

    @property
    def last_words(self) -> str:
        """Return the last line that it wrote, of its errors where there are any."""
        return (self.last_error or self.last_output)[:MAX_ERROR] or f"exit status {self.returncode}"


def run_child(
    code: str,
    *arguments: str,
    limit_s: float | None = None,
    folder: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> ChildEnd:
    """Run Python code in another process; when it hangs, kill it with all that it has started.

    After each step the code prints a line of JSON, {"step": its name, ...}; these lines are the answers.
    `limit_s`: CHILD_LIMIT_S unless told; `folder`: where it runs; `environment`: variables beside this process's own.
    """
    limit_s = CHILD_LIMIT_S if limit_s is None else limit_s
    child = subprocess.Popen(
        [sys.executable, "-c", ENDS_WITH_PARENT + code, str(os.getpid()), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd=folder,
        env={**os.environ, **(environment or {})},
    )
    is_over = True
    try:
        out, err = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        is_over = False
        out, err = _killed(child)
    except BaseException:
        _killed(child)
        raise
    lines = out.decode(errors="replace").splitlines()
    return ChildEnd(
        returncode=child.returncode if is_over else None,
        answers=tuple(json.loads(line) for line in lines if line.startswith('{"step"')),
        last_error=_last_line(err),
        last_output=_last_line(out),
        limit_s=limit_s,
    )


def _last_line(text: bytes) -> str:
    return (text.decode(errors="replace").strip().splitlines() or [""])[-1]


def _killed(child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    if sys.platform == "win32":
        child.kill()
    else:
        os.killpg(child.pid, signal.SIGKILL)  # of a session of its own; not waited for yet, so the id is still its own
    try:
        return child.communicate(timeout=KILL_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        return error.output or b"", error.stderr or b""
