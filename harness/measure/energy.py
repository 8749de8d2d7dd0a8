"""Energy of an image on a GPU: engines in turn, each back to back for a while, by the card's own counter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from harness.machine.nvml import Card
from harness.protocols import Timer
from harness.records import Energy

LOOP_NS = 300_000_000  # H100 adds to its counter every 20 to 100 ms: a loop spans several such steps
MAX_WAITS = 3  # times LOOP_NS without a step: the counter stands still
SAMPLE_NS = 5_000_000  # so many calls in a row that what lies between two samples is nothing beside them
MJ_PER_J = 1e3
NS_PER_S = 1e9


class _Span(NamedTuple):
    """Energy [mJ] and calls between two steps of the counter, or between two readings of the power."""

    energy_mj: float
    n_calls: int


class TellsEnergy(Protocol):
    """An arm, as far as its energy goes; see `harness.measure.arms.TimedArm`."""

    def energy_of_loop(self, source: str) -> float | None:
        """Return the energy of an image over one loop [mJ]; None where the card does not tell it so."""
        ...


def energy_of_arms(arms: Sequence[TellsEnergy], n_loops: int) -> Energy | None:
    """Return the energy of an image of one or two engines that run in turn (A B, B A, ...); None without a card.

    The energy is that of the whole card, idle parts and all. A loop begins and ends with a step of the counter, so
    that its steps do not matter. A card that has no counter, or whose counter stands still, is asked for its power
    after every few ms, and the mean is taken times the time.
    """
    if n_loops < 1:
        return None
    for source in _MEASURES:
        loops = _in_turn(arms, n_loops, source)
        if loops is not None:
            return Energy(
                source=source,
                mj_per_image=loops[0],
                reference_mj_per_image=loops[1] if len(arms) > 1 else (),
                loop_ns=LOOP_NS,
            )
    return None


def _in_turn(arms: Sequence[TellsEnergy], n_loops: int, source: str) -> list[tuple[float, ...]] | None:
    """Return mJ per image of each arm's loops; None as soon as the card does not tell."""
    found: list[list[float]] = [[] for _ in arms]
    for loop in range(n_loops):
        order = range(len(arms)) if loop % 2 == 0 else reversed(range(len(arms)))
        for arm in order:
            energy_mj = arms[arm].energy_of_loop(source)
            if energy_mj is None:
                return None
            found[arm].append(energy_mj)
    return [tuple(loops) for loops in found]


def energy_of_loop(timer: Timer, card: Card | None, source: str, now_ns: Callable[[], int]) -> float | None:
    """Return the energy of an image over one loop of a timer [mJ]; None without a card, or where it does not tell.

    `source`: counter or power. Changes `calls_per_sample`, and puts it back.
    """
    if card is None:
        return None
    before = timer.calls_per_sample
    try:
        timer.calls_per_sample = 1
        timer.calls_per_sample = max(1, int(SAMPLE_NS / float(timer.sample(3).min())))
        span = _MEASURES[source](timer, card, now_ns)
    finally:
        timer.calls_per_sample = before
    return None if span is None else span.energy_mj / (span.n_calls * timer.batch_size)


def _counted(timer: Timer, card: Card, now_ns: Callable[[], int]) -> _Span | None:
    """Run one engine from a step of the counter to the first one after `LOOP_NS`."""
    started, n_calls = now_ns(), 0
    last = card.energy_mj()
    first: tuple[int, int, int] | None = None  # time, counter and calls at the first step
    while last is not None and now_ns() - started < MAX_WAITS * LOOP_NS:
        timer.sample(1)
        n_calls += timer.calls_per_sample
        counter = card.energy_mj()
        if counter is None:
            return None
        if counter == last:
            continue
        last = counter
        if first is None:
            first = (now_ns(), counter, n_calls)
        elif now_ns() - first[0] >= LOOP_NS:
            return _Span(counter - first[1], n_calls - first[2])
    return None


def _integrated(timer: Timer, card: Card, now_ns: Callable[[], int]) -> _Span | None:
    """Run one engine for `LOOP_NS` and take the mean of the power times the time."""
    started, n_calls = now_ns(), 0
    powers: list[float] = []
    while now_ns() - started < LOOP_NS:
        timer.sample(1)
        n_calls += timer.calls_per_sample
        power_w = card.power_w()
        if power_w is None:
            return None
        powers.append(power_w)
    seconds = (now_ns() - started) / NS_PER_S
    return _Span(float(np.mean(powers)) * seconds * MJ_PER_J, n_calls)


_MEASURES: dict[str, Callable[[Timer, Card, Callable[[], int]], _Span | None]] = {
    "counter": _counted,
    "power": _integrated,
}
