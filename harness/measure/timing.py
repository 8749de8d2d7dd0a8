"""Arms -> Latency: one or two engines in turn, round by round, wherever they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.machine.conditions import THROTTLED
from harness.measure.arms import ARM_BUDGET_NS, MIN_SAMPLES_PER_ROUND, RoundTimes, Seen, TimedArm, TimerFacts, WarmedUp
from harness.measure.warm_up import NOT_STEADY
from harness.records import TIMED_OTHERWISE, Latency, PackedArray
from harness.specs import TimingPlan

MIN_ROUNDS = 6  # below 6 a median has no 95 % interval
ENQUEUE_BOUND_SHARE = 0.8  # trtexec warns at the same share (samples/common/sampleReporting.cpp)
COPY_WINDOWS = ("h2d", "d2h")  # nothing of the engine lies in them
N_LOWERINGS = 3  # from a gated graph to a plain enqueue there are no more steps
DRIFT_SHARE = 0.05
NOISY_ROUNDS_CV = 0.10
MIN_CLOCK_SAMPLES = MIN_ROUNDS * MIN_SAMPLES_PER_ROUND  # alike to the last digit are no times; no interval has fewer


def make_alike(arms: Sequence[TimedArm], launch: str) -> None:
    """Under the launch `auto`, let all arms be timed in the best way that every one of them can.

    A graph beside an enqueue, or a gated time beside one that holds the host's gaps, is no ratio of engines.
    """
    for _ in range(N_LOWERINGS):
        facts = [arm.facts for arm in arms]
        if launch != "auto" or _are_alike(facts):
            break
        graph, gate = all(one.launch == "graph" for one in facts), all(one.gated for one in facts)
        for arm in arms:
            arm.lower(graph=graph, gate=gate)


def _are_alike(facts: Sequence[TimerFacts]) -> bool:
    return len({(one.launch, one.gated) for one in facts}) < 2


class ArmRounds(NamedTuple):
    """What `time_arms` found of one arm. The first three are what a caller needs to make one by hand."""

    rounds_ns: NDArray[np.float64]  # float64[rounds, samples]: ns per call
    starts_ns: NDArray[np.int64]  # int64[rounds]: start of each round since the first [ns]
    warmup_calls: int
    flags: tuple[str, ...] = ()  # not_steady, throttled
    n_discarded: int = 0  # rounds
    cpu_ns: float | None = None  # CPU time of the process per call, all threads
    wall_ns: float | None = None  # host time per call


def time_arms(
    arms: Sequence[TimedArm], plan: TimingPlan, *, now_ns: Callable[[], int] = time.perf_counter_ns
) -> tuple[list[ArmRounds], Seen]:
    """Time one or two arms in turn, round by round, the order alternating (A B, B A, ...).

    Two speed states of a machine that last for seconds hit neighbouring rounds alike, so a ratio of rounds is some
    20 times steadier than a ratio of two medians taken one after the other. The first arm looks at the machine between
    rounds; a round that the card was throttled in is dropped of all arms, while enough are left.
    Raises: MeasurementError for a sample that is not positive.
    """
    warmed = [arm.warm_up() for arm in arms]
    n_rounds = _rounds_within_budget(warmed, plan)
    rounds: list[list[RoundTimes]] = [[] for _ in arms]
    starts: list[list[int]] = [[] for _ in arms]
    arms[0].begin()
    origin = now_ns()
    for index in range(n_rounds):
        order = range(len(arms)) if index % 2 == 0 else reversed(range(len(arms)))
        for arm in order:
            starts[arm].append(now_ns() - origin)
            rounds[arm].append(arms[arm].round())
        arms[0].after_round()
    seen = arms[0].end()
    kept, flags = _kept_rounds(n_rounds, seen.slowed_rounds, plan)
    found = [
        _rounds_of(warmed[arm], rounds[arm], starts[arm], kept)._replace(
            flags=flags if warmed[arm].is_steady else (NOT_STEADY, *flags)
        )
        for arm in range(len(arms))
    ]
    return found, seen


def _rounds_of(warmed: WarmedUp, rounds: Sequence[RoundTimes], starts: Sequence[int], kept: Sequence[int]) -> ArmRounds:
    n_calls = len(rounds) * warmed.facts.samples_per_round * warmed.facts.calls_per_sample
    return ArmRounds(
        rounds_ns=np.stack([np.asarray(rounds[index].samples_ns.array(), np.float64) for index in kept]),
        starts_ns=np.asarray(starts, np.int64)[kept],
        warmup_calls=warmed.n_calls,
        n_discarded=len(rounds) - len(kept),
        cpu_ns=sum(one.cpu_ns for one in rounds) / n_calls,
        wall_ns=sum(one.wall_ns for one in rounds) / n_calls,
    )


def _kept_rounds(n_rounds: int, slowed: Sequence[int], plan: TimingPlan) -> tuple[list[int], tuple[str, ...]]:
    """Return the rounds that count; all of them, flagged, where too few would be left for an interval."""
    kept = [index for index in range(n_rounds) if index not in slowed]
    if len(kept) < min(MIN_ROUNDS, plan.n_rounds, n_rounds):
        return list(range(n_rounds)), (THROTTLED,)
    return kept, ()


def check_clocks(facts: Sequence[TimerFacts], arms: Sequence[ArmRounds]) -> None:
    """Refuse what `time_arms` measured by a clock that gave one and the same time. Raises: MeasurementError."""
    for whose, how, arm in zip(("", "FP32 beside it: "), facts, arms, strict=False):
        check_clock(how, arm.rounds_ns, whose=whose)


def check_clock(how: TimerFacts, samples: NDArray[np.float64], *, whose: str = "") -> None:
    """Refuse samples of one timer that are all alike. `whose`: begins the message. Raises: MeasurementError."""
    if samples.size >= MIN_CLOCK_SAMPLES and np.ptp(samples) == 0:
        raise MeasurementError(
            f"{whose}the {how.clock} clock gave {samples.flat[0]:g} ns for each of {samples.size} samples of batch "
            f"{how.batch_size}; it stands still, or its timer returns a constant"
        )


def _rounds_within_budget(warmed: Sequence[WarmedUp], plan: TimingPlan) -> int:
    slowest = max(one.sample_ns * one.facts.samples_per_round for one in warmed)
    return int(np.clip(ARM_BUDGET_NS / slowest, min(MIN_ROUNDS, plan.n_rounds), plan.n_rounds))


def latency_from_arms(
    facts: Sequence[TimerFacts],
    arms: Sequence[ArmRounds],
    *,
    enqueue_ns: float | None = None,
    reference_case: str = "",
) -> Latency:
    """Join what `time_arms` measured of an engine and, if there are two arms, of its FP32 reference."""
    timer, arm = facts[0], arms[0]
    rounds = arm.rounds_ns
    median = float(np.median(rounds))
    two = len(facts) > 1
    return Latency(
        batch_size=timer.batch_size,
        rounds_ns=PackedArray.of(rounds),
        calls_per_sample=timer.calls_per_sample,
        warmup_calls=arm.warmup_calls,
        clock=timer.clock,
        launch=timer.launch,
        gated=timer.gated,
        window=timer.window,
        started_ns=PackedArray.of(arm.starts_ns),
        enqueue_ns=enqueue_ns,
        reference_rounds_ns=PackedArray.of(arms[1].rounds_ns) if two else None,
        reference_case=reference_case if two else "",
        reference_calls_per_sample=facts[1].calls_per_sample if two else 0,
        reference_launch=facts[1].launch if two else "",
        reference_gated=facts[1].gated if two else False,
        images_per_s=timer.batch_size * 1e9 / median,
        cpu_ns=arm.cpu_ns,
        wall_ns=arm.wall_ns,
        n_discarded_rounds=arm.n_discarded,
        flags=(
            *dict.fromkeys(flag for each in arms for flag in each.flags),  # of either: both are in the ratio
            *(() if _are_alike(facts) else (TIMED_OTHERWISE,)),
            *_latency_flags(rounds, None if timer.window in COPY_WINDOWS else enqueue_ns, median),
        ),
    )


def _latency_flags(rounds: NDArray[np.float64], enqueue_ns: float | None, median: float) -> tuple[str, ...]:
    flags = []
    medians = np.median(rounds, axis=1)
    third = len(medians) // 3
    if third and abs(np.median(medians[-third:]) / np.median(medians[:third]) - 1) > DRIFT_SHARE:
        flags.append("drift")
    if medians.std() > NOISY_ROUNDS_CV * medians.mean():
        flags.append("noisy")
    if enqueue_ns is not None and enqueue_ns > ENQUEUE_BOUND_SHARE * median:
        flags.append("enqueue_bound")
    return tuple(flags)
