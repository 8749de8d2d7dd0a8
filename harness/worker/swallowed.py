"""Exceptions that nobody catches: raised in a callback that native code called, or in a thread.

Python prints them and goes on, and what was measured beside them would be believed.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from harness.errors import MeasurementError


class Swallowed:
    """Keeps the first such exception until it is asked for."""

    def __init__(self) -> None:
        self._sentence = ""

    def listen(self) -> None:
        """Take the place of Python's hooks, which still print."""
        sys.unraisablehook = self._unraisable
        threading.excepthook = self._thread

    def refuse(self) -> None:
        """Raise MeasurementError if anything was swallowed since it was last asked."""
        sentence = self._sentence
        self.forget()
        if sentence:
            raise MeasurementError(sentence)

    def forget(self) -> None:
        """Forget what was swallowed: the call has an error of its own."""
        self._sentence = ""

    def _unraisable(self, unraisable: Any) -> None:
        sys.__unraisablehook__(unraisable)
        # Nothing depends on a destructor; an answer does on a callback. CPython: "... calling ctypes callback".
        if "callback" in f"{unraisable.err_msg or ''} {unraisable.object!r}":
            self._keep("a callback", unraisable.exc_value, unraisable.exc_type)

    def _thread(self, args: Any) -> None:
        threading.__excepthook__(args)
        self._keep("a thread", args.exc_value, args.exc_type)

    def _keep(self, place: str, error: BaseException | None, kind: type[BaseException]) -> None:
        text = " ".join(str(error or "").split())
        self._sentence = self._sentence or f"{kind.__name__} in {place}, where nobody caught it: {text}"


SWALLOWED = Swallowed()
