"""Arms that are timed in processes of their own. The parent tells one after the other to take its step.

So an engine is timed in a process that has built and run nothing, and has no other engine in it; and never do two time
at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

from harness.errors import HarnessError, MeasurementError, Unsupported, WorkerDied
from harness.measure.arms import RoundTimes, Seen, TimerFacts, WarmedUp
from harness.records import EngineFacts
from harness.run.case_worker import WorkerSettings
from harness.worker.interrupts import INTERRUPTS
from harness.worker.process import Worker
from harness.worker.requests import CaseRequest, Prepared, StepRequest, TimersRequest

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One engine that is timed in a process of its own, and how that is started."""

    request: CaseRequest
    settings: WorkerSettings
    name: str  # of its log
    versions: dict[str, str] = field(default_factory=dict)  # that its runtime must have
    slowdown: float | None = None  # planted inside the timed region [fraction of a call]; see protocols.SlowsDown

    @property
    def label(self) -> str:
        """Return what its process is called in messages."""
        return f"{self.request.case.id} ({self.name})"


class OpenArm:
    """A process with one engine."""

    def __init__(self, worker: Worker, arm: Arm) -> None:
        self._worker, self._arm, self.label = worker, arm, arm.label

    def timed(self, batch_sizes: Sequence[int], *, slowdown: float | None = None) -> tuple[RemoteArm, ...]:
        """Make the timers of some batch sizes, anew where there are any; they are not warm yet."""
        slowdown = self._arm.slowdown if slowdown is None else slowdown
        asked = TimersRequest(case=self._arm.request, batch_sizes=tuple(batch_sizes), slowdown=slowdown)
        return tuple(RemoteArm(self, facts) for facts in self.call("open_timers", asked, tuple[TimerFacts, ...]))

    def step(self, batch_size: int, name: str, kind: type[T], **words: bool | str) -> T:
        """Let the arm of a batch size take a step."""
        asked = StepRequest(case=self._arm.request, batch_size=batch_size, step=name, words=words)
        return self.call("time_step", asked, kind)

    def engine_facts(self) -> EngineFacts:
        """Return what the engine has noted by now."""
        return self.call("facts", self._arm.request, EngineFacts)

    def call(self, name: str, value: object, kind: type[T]) -> T:
        """Ask the process. Raises: its HarnessError, which names the arm; WorkerDied."""
        try:
            return self._worker.call(name, value, kind)
        except WorkerDied:  # has the name already
            raise
        except HarnessError as error:
            raise type(error)(f"{self._arm.label}: {error}") from error


class RemoteArm:
    """An arm of one batch size whose timer is in a worker; see `measure.arms.TimedArm`."""

    def __init__(self, process: OpenArm, facts: TimerFacts) -> None:
        self._process, self.facts = process, facts

    @property
    def label(self) -> str:
        """Return its process's name in messages."""
        return self._process.label

    def lower(self, *, graph: bool, gate: bool) -> TimerFacts:
        """Go without a graph or a gate, where the timer can."""
        self.facts = self._step("lower", TimerFacts, graph=graph, gate=gate)
        return self.facts

    def warm_up(self) -> WarmedUp:
        """Audit the clock, warm up, choose calls and samples."""
        warmed = self._step("warm_up", WarmedUp)
        self.facts = warmed.facts
        return warmed

    def begin(self) -> None:
        """Look at the outputs; begin to watch."""
        self._step("begin", type(None))

    def round(self) -> RoundTimes:
        """Time one round."""
        return self._step("round", RoundTimes)

    def after_round(self) -> None:
        """Look at the card."""
        self._step("after_round", type(None))

    def end(self) -> Seen:
        """Look at the outputs; tell what was seen."""
        return self._step("end", Seen)

    def energy_of_loop(self, source: str) -> float | None:
        """Run back to back, and read the card."""
        return self._step("energy_of_loop", cast(type[float | None], float | None), source=source)

    def void(self) -> str:
        """Tell what was wrong with the outputs."""
        return self._step("void", str)

    def _step(self, name: str, kind: type[T], **words: bool | str) -> T:
        return self._process.step(self.facts.batch_size, name, kind, **words)


@contextmanager
def open_arm(arm: Arm) -> Iterator[OpenArm]:
    """Start an arm's process and let it prepare its engine; the process ends with the block.

    Where what a process did before changes its times, one that had to build is ended, and another loads what it built.
    Raises: Unsupported, BuildError, WorkerDied ...: what the process met; MeasurementError for another runtime.
    """
    with _process(arm) as (process, prepared):
        if not (prepared.is_timed_afresh and _has_built(arm, prepared)):
            yield process
            return
    with _process(replace(arm, request=loading(arm.request, prepared))) as (process, _):
        yield process


def loading(request: CaseRequest, prepared: Prepared) -> CaseRequest:
    """Return a request that loads what was prepared: nothing is converted, nor built where the engine has a file."""
    file = prepared.engine.file if prepared.engine is not None else None
    build = replace(request.build, rebuild=False)
    return replace(request, artifact=prepared.artifact, engine_file=file, build=build)


@contextmanager
def _process(arm: Arm) -> Iterator[tuple[OpenArm, Prepared]]:
    """Start an arm's process and prepare its engine."""
    request, settings = arm.request, arm.settings
    worker = Worker(
        log_path=settings.log_dir / f"{arm.name}.log",
        python=settings.python,
        extension_dirs=settings.extension_dirs,
        label=arm.label,
        limits=settings.limits,
    )
    process = OpenArm(worker, arm)
    try:
        prepared = process.call("prepare", request, Prepared)
        if not prepared.support.supported:
            raise Unsupported(f"{request.case.id}: {prepared.support.reason}")
        _check_versions(arm, prepared)
        yield process, prepared
        if not worker.is_lost:
            process.call("close", request, type(None))
    finally:
        worker.close(politely=not INTERRUPTS.name)


def _has_built(arm: Arm, prepared: Prepared) -> bool:
    """Tell whether a process has built what another one can load."""
    facts = prepared.engine
    return facts is not None and facts.file is not None and facts.cache != "hit" and arm.request.engine_file is None


def _check_versions(arm: Arm, prepared: Prepared) -> None:
    """Refuse a process in which another runtime was found than was asked for. Raises: MeasurementError."""
    found = prepared.engine.versions if prepared.engine is not None else {}
    for library, version in arm.versions.items():
        if found.get(library, version) != version:
            raise MeasurementError(f"{arm.settings.python} runs {library} {found[library]}, not {version}")
