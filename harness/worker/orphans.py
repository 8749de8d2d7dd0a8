"""No process outlives its worker, and no worker outlives whoever started it, kill -9 of either included.

A worker leads a session of its own, and it and all that it starts carry a mark in their environment. Who ends a worker
ends everything of its session or with its mark, and removes their temporary files. A watchdog, one a process that has
workers, holds the reading end of a pipe: when the other end closes, because its process is gone, it ends all workers
that are left, also one that hangs with the GIL held.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "NN_HARNESS_WORKER"  # in the environment of a worker and of its children
PROCESSES = Path("/proc")
STATE_FIELD = 0  # of /proc/PID/stat, after the name in parentheses
ZOMBIE = "Z"
GIVE_UP_S = 2.0  # a process that hangs inside a kernel driver cannot even be killed
PAUSE_S = 0.01
WATCH = "import sys; sys.path.insert(0, sys.argv[1]); from harness.worker.orphans import watch; watch(sys.stdin)"


def make_scratch(mark: str) -> Path:
    """Return a worker's folder for temporary files, made if it is not there; it goes with the worker."""
    folder = scratch_of(mark)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def scratch_of(mark: str) -> Path:
    """Return where a worker's temporary files lie."""
    return Path(tempfile.gettempdir()).absolute() / f"nn-harness-{mark}"


def end_worker(pid: int, mark: str) -> None:
    """Kill a worker (0: its id was never known) and all that it has started, and remove their temporary files.

    It does not matter what group they have moved to.
    """
    _kill(pid, mark)
    shutil.rmtree(scratch_of(mark), ignore_errors=True)


def _kill(pid: int, mark: str) -> None:
    until = time.monotonic() + GIVE_UP_S
    if pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    while living := set(processes_of(pid, mark)):
        for process in living:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        if time.monotonic() > until:
            return
        time.sleep(PAUSE_S)


def processes_of(pid: int, mark: str) -> Iterator[int]:
    """Yield the living processes of a worker's session and those with its mark; none where there is no /proc."""
    wanted = f"{MARK}={mark}".encode()
    for folder in PROCESSES.iterdir() if PROCESSES.is_dir() else ():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is another user's
            if _is_zombie(folder):
                continue
            in_session = bool(pid) and os.getsid(int(folder.name)) == pid
            if in_session or wanted in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)


def _is_zombie(folder: Path) -> bool:
    return (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[STATE_FIELD] == ZOMBIE


def watch(lines: Iterator[str]) -> None:
    """Read "add PID MARK" and "drop PID MARK" until the writer is gone; then end every worker that is left."""
    known: dict[str, int] = {}
    for line in lines:
        word, pid, mark = line.split()
        known[mark] = int(pid)
        if word == "drop":
            del known[mark]
    for mark, number in known.items():
        end_worker(number, mark)


class Watchdog:
    """The process that ends this one's workers when this one is gone; started with the first worker."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def add(self, pid: int, mark: str) -> None:
        """Watch over a worker. `pid`: 0 until it is known; then say it again."""
        self._tell(f"add {pid} {mark}")

    def drop(self, pid: int, mark: str) -> None:
        """Forget a worker that has ended."""
        self._tell(f"drop {pid} {mark}")

    def _tell(self, line: str) -> None:
        process = self._started()
        if process.stdin is not None:
            with contextlib.suppress(OSError):  # somebody killed the watchdog: workers are still ended by their owner
                process.stdin.write(f"{line}\n")
                process.stdin.flush()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._owner != os.getpid():  # a fork's watchdog is not its own
            self._owner = os.getpid()
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-E", "-c", WATCH, str(Path(__file__).parents[2])],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C in a terminal is for pytest
            )
        return self._process


WATCHDOG = Watchdog()
