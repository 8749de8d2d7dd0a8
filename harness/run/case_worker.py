"""The worker of one case: started when first asked, started again when asked after it was closed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from harness.protocols import Progress
from harness.records import EngineFacts
from harness.worker.process import Worker
from harness.worker.requests import CaseRequest, Prepared

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How the workers of a run are started."""

    log_dir: Path
    python: str
    extension_dirs: tuple[str, ...]
    timeout_s: float
    progress: Callable[[str], Progress]


class CaseWorker:
    """Asks one case's worker, and keeps what its engine says of itself."""

    def __init__(self, request: CaseRequest, *, name: str, settings: WorkerSettings) -> None:
        self.facts: EngineFacts | None = None  # of the engine, as told last
        self._request, self._name, self._settings = request, name, settings
        self._worker: Worker | None = None
        self._was_prepared = False

    def call(self, name: str, kind: type[T], progress: Progress) -> T:
        """Return the worker's answer. Raises: the HarnessError of the worker; WorkerDied."""
        worker, request, limit = self._started(), self._request, self._settings.timeout_s
        answer = worker.call(name, request, kind, timeout_s=limit, progress=progress)
        if not isinstance(answer, Prepared):
            facts = worker.call("facts", request, EngineFacts, timeout_s=limit)
            self.facts = facts_together(self.facts, facts)
        else:
            self._was_prepared = True
            self.facts = answer.engine or self.facts
        return answer

    def close(self) -> None:
        """End the process; what its engine said stays."""
        if self._worker:
            self._worker.close()
            self._worker = None

    def _started(self) -> Worker:
        if self._worker is None:
            self._worker = Worker(
                log_path=self._settings.log_dir / f"{self._name}.log",
                python=self._settings.python,
                extension_dirs=self._settings.extension_dirs,
                label=self._request.case.id,
            )
            if self._was_prepared:  # its worker was closed, and with it the engine
                self._worker.call("prepare", self._request, Prepared, timeout_s=self._settings.timeout_s)
        return self._worker


def facts_together(first: EngineFacts | None, now: EngineFacts) -> EngineFacts:
    """Return the newest facts merged with what earlier workers reported: build, maxima, all notes."""
    if first is None:
        return now
    return replace(
        now,
        build_ns=first.build_ns,
        cache=first.cache,
        n_contexts=_most(first.n_contexts, now.n_contexts),
        n_engines=_most(first.n_engines, now.n_engines),
        log_errors=tuple(dict.fromkeys((*first.log_errors, *now.log_errors))),
        notes=tuple(dict.fromkeys((*first.notes, *now.notes))),
        warnings=tuple(dict.fromkeys((*first.warnings, *now.warnings))),
    )


def _most(*counts: int | None) -> int | None:
    return max((count for count in counts if count is not None), default=None)
