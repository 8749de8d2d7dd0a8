"""Progress while a run goes on: a text behind the cursor of a terminal, nothing in a log."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TextIO

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
