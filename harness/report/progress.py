"""Progress while a run goes on: a line a case, and on a terminal a text behind the cursor."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from harness.protocols import Progress, no_progress

INTERVAL_S = 0.2
MAX_WIDTH = 60  # beside pytest's own line; a wrapped text could not be taken back


class _TrailingText:
    """Progress behind the cursor: written, and the cursor put back, so that pytest's line stays whole."""

    def __init__(self, stream: TextIO, label: str) -> None:
        self._stream, self._label, self._last = stream, label, 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if 0 < done < total and now - self._last < INTERVAL_S:
            return
        self._last = now
        text = "" if done >= total else f" {self._label}" + (f" {done:,} of {total:,}" if total > 1 else " ...")
        text = text[:MAX_WIDTH]
        self._stream.write(f"\x1b[K{text}" + (f"\x1b[{len(text)}D" if text else ""))
        self._stream.flush()


def progress_reporter(stream: TextIO | None) -> Callable[[str], Progress]:
    """Return `label -> Progress`: a moving text on a terminal, nothing in CI or a pipe."""
    quiet = stream is None or not stream.isatty() or os.environ.get("CI")

    def start(label: str) -> Progress:
        return no_progress if quiet or stream is None else _TrailingText(stream, label)

    return start


def progress_on(writer: Any) -> Callable[[str], Progress]:
    """Return `label -> Progress` on the terminal that pytest's writer writes to, if it is one; None: nothing."""
    if writer is None or not (sys.stdout.isatty() or writer.hasmarkup):
        return progress_reporter(None)
    try:
        # While a test runs, pytest captures file descriptors 1 and 2; the terminal itself stays reachable.
        terminal = open("/dev/tty", "w", encoding="utf-8")  # noqa: SIM115 - open as long as the run
    except OSError:
        return progress_reporter(None)
    return progress_reporter(terminal)


class CaseProgress:
    """One line for every case that was measured: which of how many, how long it took, how long the rest may take."""

    def __init__(self, case_ids: Sequence[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with none done. `clock`: seconds."""
        self._n_cases, self._width = len(case_ids), max(map(len, case_ids), default=0)
        self._clock, self._started, self._n_done = clock, clock(), 0
        self._last = self._started

    def line(self, case_id: str, error: str = "") -> str:
        """Return the line of a case that is done; `error`: what stopped it."""
        now = self._clock()
        took, elapsed = now - self._last, now - self._started
        self._last, self._n_done = now, self._n_done + 1
        n_left = self._n_cases - self._n_done
        digits = len(str(self._n_cases))
        left = f", about {_minutes(elapsed / self._n_done * n_left)} left" if n_left > 0 else ""
        told = f"  error: {error}" if error else ""
        head = f"case {self._n_done:>{digits}} of {self._n_cases}  {case_id:<{self._width}}"
        return f"{head}  {took:6.1f} s  ({_minutes(elapsed)} elapsed{left}){told}"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
