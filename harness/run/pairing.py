"""Two engines timed in turn, each in a fresh process of its own. The process is the unit of replication.

Rounds of one process share its addresses, its clocks and its luck, so many rounds of two processes are one comparison.
Their rounds alternate (A B, B A, ...), because a machine's speed wanders: neighbouring rounds see it alike. Only one
process times at a time; the parent hands the turn over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError, Unsupported
from harness.machine.turns import turn_on
from harness.records import PackedArray
from harness.run.case_worker import WorkerSettings
from harness.worker.interrupts import INTERRUPTS
from harness.worker.process import Worker
from harness.worker.requests import CaseRequest, Prepared, RoundRequest, TimerFacts, TimersRequest

ALIKE = ("clock", "launch", "gated", "window")  # what times must share to be divided by one another


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One engine of a pair, and how its process is started."""

    request: CaseRequest
    settings: WorkerSettings
    name: str  # of its log
    versions: dict[str, str] = field(default_factory=dict)  # that its runtime must have
    slowdown: float | None = None  # planted inside the timed region [fraction of a call]; see protocols.SlowsDown


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairTimes:
    """What one pair of processes gave at one batch size [ns per call]: float64[rounds, samples] each."""

    facts: TimerFacts  # of the candidate; the control's are alike
    candidate_ns: NDArray[np.float64]
    control_ns: NDArray[np.float64]

    @property
    def batch_size(self) -> int:
        """Return the batch size [images]."""
        return self.facts.batch_size


def time_pair(candidate: Arm, control: Arm, *, n_rounds: int, candidate_first: bool = True) -> tuple[PairTimes, ...]:
    """Time two engines in turn, each in a fresh process, at every batch size of the candidate's plan.

    `candidate_first`: which process starts, opens and times first; alternate it from pair to pair, so that what the
    place does to a time cancels.
    Raises: Unsupported, BuildError, WorkerDied ...: whatever either process met; MeasurementError for arms that cannot
    be timed in the same way.
    """
    (times,) = time_slowed_pair(candidate, control, (), n_rounds=n_rounds, candidate_first=candidate_first)
    return times


def time_slowed_pair(
    candidate: Arm, control: Arm, slowdowns: Sequence[float], *, n_rounds: int, candidate_first: bool = True
) -> tuple[tuple[PairTimes, ...], ...]:
    """Time a pair as it is, then, in the same two processes, with the candidate slowed down by each of `slowdowns`.

    The control beside a slowed candidate is slowed by nothing in the same way. Raises: as `time_pair`.
    """
    order = (candidate, control) if candidate_first else (control, candidate)
    with ExitStack() as stack, turn_on(candidate.request.case.device, waiting=INTERRUPTS.check):
        opened = {id(arm): stack.enter_context(_open(arm)) for arm in order}
        ours, theirs = opened[id(candidate)], opened[id(control)]
        arms = tuple(opened[id(arm)] for arm in order)
        found = [_rounds_in_turn(ours, theirs, arms, n_rounds)]
        for index, slowdown in enumerate(slowdowns):
            ours.slow_down(slowdown)
            if index == 0:
                theirs.slow_down(0.0)
            found.append(_rounds_in_turn(ours, theirs, arms, n_rounds))
    return tuple(found)


def _rounds_in_turn(
    ours: _OpenArm, theirs: _OpenArm, order: tuple[_OpenArm, ...], n_rounds: int
) -> tuple[PairTimes, ...]:
    _check_alike(ours, theirs)
    times = []
    for facts in ours.facts:
        rounds: dict[int, list[NDArray[np.float64]]] = {id(arm): [] for arm in order}
        for index in range(-1, n_rounds):  # the first round brings both processes back to work; it is not kept
            for arm in order if index % 2 == 0 else reversed(order):
                samples = arm.round(facts.batch_size)
                if index >= 0:
                    rounds[id(arm)].append(samples)
        times.append(
            PairTimes(facts=facts, candidate_ns=np.stack(rounds[id(ours)]), control_ns=np.stack(rounds[id(theirs)]))
        )
    return tuple(times)


class _OpenArm:
    """A process with the timers of one engine."""

    def __init__(self, worker: Worker, request: CaseRequest, facts: tuple[TimerFacts, ...]) -> None:
        self._worker, self._request, self.facts = worker, request, facts

    def slow_down(self, fraction: float) -> None:
        """Make the timers anew, with every call slowed down."""
        asked = TimersRequest(case=self._request, slowdown=fraction)
        self.facts = self._worker.call("open_timers", asked, tuple[TimerFacts, ...])

    def round(self, batch_size: int) -> NDArray[np.float64]:
        packed = self._worker.call("time_round", RoundRequest(case=self._request, batch_size=batch_size), PackedArray)
        return np.asarray(packed.array(), np.float64)


@contextmanager
def _open(arm: Arm) -> Iterator[_OpenArm]:
    request, settings = arm.request, arm.settings
    worker = Worker(
        log_path=settings.log_dir / f"{arm.name}.log",
        python=settings.python,
        extension_dirs=settings.extension_dirs,
        label=f"{request.case.id} ({arm.name})",
        limits=settings.limits,
    )
    try:
        prepared = worker.call("prepare", request, Prepared)
        if not prepared.support.supported:
            raise Unsupported(f"{request.case.id}: {prepared.support.reason}")
        _check_versions(arm, prepared)
        asked = TimersRequest(case=request, slowdown=arm.slowdown)
        yield _OpenArm(worker, request, worker.call("open_timers", asked, tuple[TimerFacts, ...]))
        if not worker.is_lost:
            worker.call("close", request, type(None))
    finally:
        worker.close(politely=not INTERRUPTS.name)


def _check_versions(arm: Arm, prepared: Prepared) -> None:
    """Refuse a process in which another runtime was found than was asked for. Raises: MeasurementError."""
    found = prepared.engine.versions if prepared.engine is not None else {}
    for library, version in arm.versions.items():
        if found.get(library, version) != version:
            raise MeasurementError(f"{arm.settings.python} runs {library} {found[library]}, not {version}")


def _check_alike(ours: _OpenArm, theirs: _OpenArm) -> None:
    """Refuse arms that are timed in different ways. Raises: MeasurementError."""
    sizes = [[facts.batch_size for facts in arm.facts] for arm in (ours, theirs)]
    if sizes[0] != sizes[1]:
        raise MeasurementError(f"the arms are timed at batch sizes {sizes[0]} and {sizes[1]}")
    for mine, other in zip(ours.facts, theirs.facts, strict=True):
        different = [name for name in ALIKE if getattr(mine, name) != getattr(other, name)]
        if different:
            name = different[0]
            raise MeasurementError(
                f"the arms are timed with {name} {getattr(mine, name)} and {getattr(other, name)}; there is no ratio"
            )
