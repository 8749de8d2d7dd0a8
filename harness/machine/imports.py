"""How long the import of a package takes, whoever asks for it and whenever."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class ImportClock(MetaPathFinder):
    """Times every import of one package and its submodules in this process; one within another counts once.

    Clock: `time.perf_counter_ns`. It runs from the search for a module to the end of its code, so it covers whatever
    that imports in turn. What was imported before the clock was set up is not seen.
    """

    def __init__(self, package: str) -> None:
        """Watch for a top-level package from now on, for as long as the process lives."""
        self._package, self._depth = package, 0
        self._counts_parts = True
        self._total_ns: int | None = None
        sys.meta_path.insert(0, self)

    @property
    def total_ns(self) -> int | None:
        """Return the time of all imports so far [ns]; None where there was none."""
        return self._total_ns

    @contextmanager
    def package_alone(self) -> Iterator[None]:
        """Count the import of the package itself and of no further submodule: a runtime comes with tools."""
        self._counts_parts = False
        try:
            yield
        finally:
            self._counts_parts = True

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the finders behind this one find, with a loader that is timed."""
        is_part = fullname.startswith(f"{self._package}.") and self._counts_parts
        if self._depth or not (is_part or fullname == self._package):
            return None
        started = time.perf_counter_ns()
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next((found for finder in others if (found := finder.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None and not isinstance(spec.loader, type):
            self._time(spec.loader, started)
        return spec

    def _time(self, loader: Loader, started: int) -> None:
        execute: Any = loader.exec_module

        def timed(module: ModuleType) -> None:
            self._depth += 1
            try:
                execute(module)
            finally:
                self._depth -= 1
                self._total_ns = (self._total_ns or 0) + time.perf_counter_ns() - started

        try:
            loader.exec_module = timed  # type: ignore[method-assign]
        except AttributeError:  # a loader with slots: its module is imported untimed
            return
