"""The worker of one case: started when first asked, started again when asked after it was closed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import Unsupported
from harness.protocols import Progress, no_progress
from harness.records import EngineFacts
from harness.specs import StageLimits
from harness.worker.interrupts import INTERRUPTS
from harness.worker.process import Worker
from harness.worker.requests import CaseRequest, Exported, ExportRequest, Prepared

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How the workers of a run are started."""

    log_dir: Path
    python: str
    extension_dirs: tuple[str, ...]
    limits: StageLimits
    progress: Callable[[str], Progress]


class CaseWorker:
    """Asks one case's worker, and keeps what its engine says of itself."""

    def __init__(self, request: CaseRequest, *, name: str, settings: WorkerSettings) -> None:
        self.facts: EngineFacts | None = None  # of the engine, as told last
        self.request, self.name, self.settings = request, name, settings
        self._worker: Worker | None = None
        self._was_prepared = False
        self._prepared: Prepared | None = None  # by a worker of this process

    def call(self, name: str, kind: type[T], progress: Progress) -> T:
        """Return the worker's answer. Raises: the HarnessError of the worker; WorkerDied."""
        worker, request = self._started(), self.request
        answer = worker.call(name, request, kind, progress=progress)
        if name == "prepare" and isinstance(answer, Prepared):
            self._was_prepared, self._prepared = True, answer
            self.facts = answer.engine or self.facts
        else:
            facts = worker.call("facts", request, EngineFacts)
            self.facts = facts_together(self.facts, facts)
        return answer

    def prepare(self) -> Prepared:
        """Convert the model and build the engine.

        Raises: Unsupported where the device cannot do the case; the HarnessError of the worker; WorkerDied.
        """
        prepared = self.call("prepare", Prepared, no_progress)
        if not prepared.support.supported:
            raise Unsupported(f"{self.request.case.id}: {prepared.support.reason}")
        return prepared

    def export(self, path: str) -> Exported:
        """Write the engine of the prepared case to a file. Raises: the HarnessError of the worker; WorkerDied."""
        return self._started().call("export", ExportRequest(case=self.request, path=path), Exported)

    def prepared(self) -> Prepared:
        """Return what preparing found, in this process: of a case that was taken over, its worker is asked again.

        Raises: the HarnessError of the worker; WorkerDied.
        """
        if self._prepared is None:
            self._started()
        return self._prepared or self.call("prepare", Prepared, no_progress)

    def add_facts(self, facts: EngineFacts) -> None:
        """Keep what the engine noted in another process that loaded it."""
        self.facts = facts if self.facts is None else replace(self.facts, **_gathered(self.facts, facts))

    def go_on_with(self, facts: EngineFacts | None) -> None:
        """Take over from a worker of another process, which prepared the case if there are facts of its engine."""
        self.facts, self._was_prepared = facts, facts is not None

    def close(self) -> None:
        """Close the engine and end the process, at once when the run is interrupted; what its engine said stays.

        Raises: the HarnessError of an engine that does not close; WorkerDied. The process has ended all the same.
        """
        worker, self._worker = self._worker, None
        if worker is None:
            return
        try:
            if not INTERRUPTS.name and not worker.is_lost:
                worker.call("close", self.request, type(None))
        finally:
            worker.close(politely=not INTERRUPTS.name)

    def _started(self) -> Worker:
        if self._worker is None:
            self._worker = Worker(
                log_path=self.settings.log_dir / f"{self.name}.log",
                python=self.settings.python,
                extension_dirs=self.settings.extension_dirs,
                label=self.request.case.id,
                limits=self.settings.limits,
            )
            if self._was_prepared:  # its worker was closed, and with it the engine
                self._prepared = self._worker.call("prepare", self.request, Prepared)
        return self._worker


def facts_together(first: EngineFacts | None, now: EngineFacts) -> EngineFacts:
    """Return the newest facts merged with what earlier workers reported: build and cold costs, maxima, all notes."""
    if first is None:
        return now
    return replace(now, build_ns=first.build_ns, cache=first.cache, **_gathered(first, now))


def _gathered(first: EngineFacts, now: EngineFacts) -> dict[str, Any]:
    """Return what is of all processes that had the engine."""
    return {
        "load_ns": _first(first.load_ns, now.load_ns),
        "import_ns": _first(first.import_ns, now.import_ns),
        "first_inference_ns": _first(first.first_inference_ns, now.first_inference_ns),
        "host_peak_bytes": _most(first.host_peak_bytes, now.host_peak_bytes),
        "n_contexts": _most(first.n_contexts, now.n_contexts),
        "n_engines": _most(first.n_engines, now.n_engines),
        "log_errors": tuple(dict.fromkeys((*first.log_errors, *now.log_errors))),
        "notes": tuple(dict.fromkeys((*first.notes, *now.notes))),
        "warnings": tuple(dict.fromkeys((*first.warnings, *now.warnings))),
    }


def _first(before: int | None, now: int | None) -> int | None:
    return now if before is None else before


def _most(*counts: int | None) -> int | None:
    return max((count for count in counts if count is not None), default=None)
