"""Exceptions that nobody catches: raised in a callback that native code called, or in a thread.

Python prints them and goes on, and what was measured beside them would be believed.
"""

from __future__ import annotations

import sys
import threading
from typing import Any


class Swallowed:
    """Keeps the first such exception until it is asked for."""

    def __init__(self) -> None:
        self._sentence = ""

    def listen(self) -> None:
        """Take the place of Python's hooks, which still print."""
        sys.unraisablehook = self._unraisable
        threading.excepthook = self._thread

    def take(self) -> str:
        """Return what was swallowed since the last call in one line, "" without any."""
        sentence, self._sentence = self._sentence, ""
        return sentence

    def _unraisable(self, unraisable: Any) -> None:
        sys.__unraisablehook__(unraisable)
        # Of a destructor nothing depends; of a callback an answer does. CPython: "... calling ctypes callback function".
        if "callback" in f"{unraisable.err_msg or ''} {unraisable.object!r}":
            self._keep("a callback", unraisable.exc_value, unraisable.exc_type)

    def _thread(self, args: Any) -> None:
        threading.__excepthook__(args)
        self._keep("a thread", args.exc_value, args.exc_type)

    def _keep(self, place: str, error: BaseException | None, kind: type[BaseException]) -> None:
        text = " ".join(str(error or "").split())
        self._sentence = self._sentence or f"{kind.__name__} in {place}, where nobody caught it: {text}"


SWALLOWED = Swallowed()
