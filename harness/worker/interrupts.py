"""Ctrl-C and SIGTERM: both end a run, which then writes what it has.

Python raises KeyboardInterrupt wherever the main thread is; where that is a destructor or a callback of a library, the
exception is printed and lost. So the signal is remembered too, and raised again where a worker is waited for.

While the files of a run are written, one more signal is let pass: they are written whole. Who ends a job often sends
two (Ctrl-C twice, SIGINT and then SIGTERM); the next one stops the writing.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """The signals that end a run, between `listen` and `forget`."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._seen: signal.Signals | None = None
        self._lets_pass = False

    @property
    def name(self) -> str:
        """Return the signal that came, "" before."""
        return "" if self._seen is None else self._seen.name

    def listen(self) -> None:
        """Take the signals from now on; only a main thread can."""
        self._seen, self._lets_pass = None, False
        if threading.current_thread() is threading.main_thread():
            # Who started this process with a signal ignored, as nohup does, wants it ignored.
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._take) for number in heard}

    def let_one_pass(self) -> None:
        """Raise nothing for the next signal: the run has ended, and its files are being written."""
        self._lets_pass = True

    def forget(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._before.items():
            with contextlib.suppress(TypeError, ValueError):  # a handler that was not set from Python
                signal.signal(number, handler)
        self._before, self._seen, self._lets_pass = {}, None, False

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal came that was lost."""
        if self._seen is not None and self._before:
            raise KeyboardInterrupt(self.name)

    def _take(self, number: int, frame: object) -> None:
        if self._lets_pass:
            self._lets_pass = False
            return
        self._seen = signal.Signals(number)
        raise KeyboardInterrupt(self.name)


INTERRUPTS = Interrupts()
