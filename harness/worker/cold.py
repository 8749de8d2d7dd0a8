"""What an engine costs once in a process: the import of its runtime, and its first inference."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from harness.backends import first_inference_ns, load_backend
from harness.machine.imports import ImportClock
from harness.protocols import Backend, Engine
from harness.records import EngineFacts
from harness.specs import ModelTensors


class ColdStart:
    """The cold costs of one process that opens one case."""

    def __init__(self, backend: str) -> None:
        """Import a backend's file, and watch for its runtime: the first of its `required_modules`."""
        known, started = set(sys.modules), time.perf_counter_ns()
        self.backend: Backend = load_backend(backend)
        elapsed_ns = time.perf_counter_ns() - started
        runtime = next(iter(self.backend.required_modules), "").partition(".")[0]
        came_with_file = runtime in sys.modules and runtime not in known
        self._with_file_ns = elapsed_ns if came_with_file else None
        self._clock = None if not runtime or runtime in sys.modules else ImportClock(runtime)
        self._first_ns: int | None = None
        self._has_run = False

    @property
    def import_ns(self) -> int | None:
        """Return how long the runtime's import took [ns]; None where it was not imported, or before this process did.

        Of a backend whose file imports it, that is the import of the file.
        """
        return self._with_file_ns if self._clock is None else self._clock.total_ns

    @property
    def first_inference_ns(self) -> int | None:
        """Return how long the first inference took [ns]; None where it was not measured."""
        return self._first_ns

    def converting(self) -> AbstractContextManager[None]:
        """Return a context in which tools that come with the runtime are no part of its import."""
        return nullcontext() if self._clock is None else self._clock.package_alone()

    def run_once(self, engine: Engine, batch_size: int, tensors: ModelTensors | None = None) -> None:
        """Time the first inference, unless the process has run one. `tensors`: of a model of any graph.

        Raises: MeasurementError.
        """
        has_run, self._has_run = self._has_run, True
        if not has_run and engine.facts.first_inference_ns is None:
            self._first_ns = first_inference_ns(engine, batch_size, tensors)

    def added_to(self, facts: EngineFacts, batch_sizes: tuple[int, ...]) -> EngineFacts:
        """Return what an engine says of itself with what it cost this process; `batch_sizes`: it was built for."""
        first_ns = facts.first_inference_ns or self._first_ns
        return replace(facts, batch_sizes=batch_sizes, import_ns=self.import_ns, first_inference_ns=first_ns)

    def leave(self) -> None:
        """Go without: something else runs the first inference."""
        self._has_run = True
