"""Two engines timed in turn, each in a fresh process of its own. The process is the unit of replication.

Rounds of one process share its addresses, its clocks and its luck, so many rounds of two processes are one comparison.
Their rounds alternate (A B, B A, ...), because a machine's speed wanders: neighbouring rounds see it alike. Only one
process times at a time; the parent hands the turn over.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.machine.turns import turn_on
from harness.measure.arms import TimerFacts
from harness.measure.timing import check_clock
from harness.run.arms import Arm, OpenArm, RemoteArm, open_arm
from harness.worker.interrupts import INTERRUPTS

__all__ = ["Arm", "PairTimes", "time_pair", "time_slowed_pair"]
ALIKE = ("clock", "launch", "gated", "window")  # what times must share to be divided by one another


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
    sizes = candidate.request.timing.batch_sizes
    if sizes != control.request.timing.batch_sizes:
        raise MeasurementError(
            f"the arms are timed at batch sizes {[*sizes]} and {[*control.request.timing.batch_sizes]}"
        )
    with ExitStack() as stack:
        opened = [stack.enter_context(open_arm(arm)) for arm in order]
        ours, theirs = opened if candidate_first else reversed(opened)
        # Other pairs of this device may open their engines meanwhile; none of them times.
        stack.enter_context(turn_on(candidate.request.case.device, waiting=INTERRUPTS.check))
        arms = {id(process): _warm(process, sizes) for process in opened}

        def in_turn() -> tuple[PairTimes, ...]:
            pairs = zip(arms[id(ours)], arms[id(theirs)], strict=True)
            return tuple(_rounds_in_turn(*pair, n_rounds, ours_first=candidate_first) for pair in pairs)

        found = [in_turn()]
        for index, slowdown in enumerate(slowdowns):
            arms[id(ours)] = _warm(ours, sizes, slowdown)
            if index == 0:
                arms[id(theirs)] = _warm(theirs, sizes, 0.0)
            found.append(in_turn())
    return tuple(found)


def _warm(process: OpenArm, sizes: Sequence[int], slowdown: float | None = None) -> tuple[RemoteArm, ...]:
    arms = process.timed(sizes, slowdown=slowdown)
    for arm in arms:
        arm.warm_up()
    return arms


def _rounds_in_turn(ours: RemoteArm, theirs: RemoteArm, n_rounds: int, *, ours_first: bool) -> PairTimes:
    _check_alike(ours.facts, theirs.facts)
    order = (ours, theirs) if ours_first else (theirs, ours)
    rounds: dict[int, list[NDArray[np.float64]]] = {id(arm): [] for arm in order}
    for index in range(-1, n_rounds):  # the first round brings both processes back to work; it is not kept
        for arm in order if index % 2 == 0 else reversed(order):
            samples = np.asarray(arm.round().samples_ns.array(), np.float64)
            if index >= 0:
                rounds[id(arm)].append(samples)
    candidate_ns, control_ns = (np.stack(rounds[id(arm)]) for arm in (ours, theirs))
    for arm, samples in ((ours, candidate_ns), (theirs, control_ns)):
        check_clock(arm.facts, samples, whose=f"{arm.label}: ")
    return PairTimes(facts=ours.facts, candidate_ns=candidate_ns, control_ns=control_ns)


def _check_alike(ours: TimerFacts, theirs: TimerFacts) -> None:
    """Refuse arms that are timed in different ways. Raises: MeasurementError."""
    different = [name for name in ALIKE if getattr(ours, name) != getattr(theirs, name)]
    if different:
        name = different[0]
        raise MeasurementError(
            f"the arms are timed with {name} {getattr(ours, name)} and {getattr(theirs, name)}; there is no ratio"
        )
