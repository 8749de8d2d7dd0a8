"""Engines + a batch -> Latency: arms in turn, round by round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.machine.clocks import calibrate_calls, clock_resolution_ns
from harness.machine.conditions import THROTTLED, Watch
from harness.measure.samples import tensors_engine
from harness.measure.warm_up import NOT_STEADY, WarmUp, checked_samples, warm_up
from harness.protocols import Batch, Engine, LowersLaunch, Timer
from harness.records import TIMED_OTHERWISE, Latency, PackedArray
from harness.specs import TimingPlan

MIN_SAMPLES_PER_ROUND = 3
MAX_SAMPLES_PER_ROUND = 200
MIN_ROUNDS = 6  # below 6 a median has no 95 % interval
ARM_BUDGET_NS = 4_000_000_000  # an engine slower than this allows gets fewer samples a round, then fewer rounds
CLOCK_RESOLUTIONS_PER_SAMPLE = 1_000
# A pair of CUDA events has a quantum of 0.03 us on current GPUs (0.5 us guaranteed): one call of 20 us resolves 0.2 %.
MIN_CUDA_SAMPLE_NS = 20_000.0
ENQUEUE_BOUND_SHARE = 0.8  # trtexec warns at the same share (samples/common/sampleReporting.cpp)
COPY_WINDOWS = ("h2d", "d2h")  # nothing of the engine lies in them
N_LOWERINGS = 3  # from a gated graph to a plain enqueue there are no more steps
DRIFT_SHARE = 0.05
NOISY_ROUNDS_CV = 0.10
MIN_CLOCK_SAMPLES = 20  # so many alike to the last digit are no times
BEFORE, AFTER = "before timing", "after timing"
Look = Callable[[Timer, str], None]  # at what a timer's calls computed, BEFORE and AFTER


def make_timer(engine: Engine, batch: Batch, *, batch_size: int, window: str, launch: str) -> Timer:
    """Put a batch of images, or the inputs of a run by name, in place and return its timer.

    Raises: ConfigError for a window or launch that the engine lacks, MeasurementError, Unsupported.
    """
    if isinstance(batch, Mapping):
        return tensors_engine(engine).bind(batch, batch_size=batch_size, window=window, launch=launch)
    return engine.timer(batch, window=window, launch=launch)


def make_timers(engines: Sequence[Engine], batch: Batch, *, batch_size: int, window: str, launch: str) -> list[Timer]:
    """Return a timer of each engine; under the launch `auto` all time in the best way that every one of them can.

    A graph beside an enqueue, or a gated time beside one that holds the host's gaps, is no ratio of engines.
    Raises: ConfigError for a window or launch that an engine lacks, MeasurementError.
    """
    timers = [make_timer(engine, batch, batch_size=batch_size, window=window, launch=launch) for engine in engines]
    for _ in range(N_LOWERINGS):
        if launch != "auto" or _are_alike(timers):
            break
        graph, gate = all(timer.launch == "graph" for timer in timers), all(timer.gated for timer in timers)
        for timer in timers:
            if isinstance(timer, LowersLaunch):
                timer.lower(graph=graph, gate=gate)
    return timers


def _are_alike(timers: Sequence[Timer]) -> bool:
    return len({(timer.launch, timer.gated) for timer in timers}) < 2


def no_look(timer: Timer, when: str) -> None:
    """Look at nothing."""


class ArmRounds(NamedTuple):
    """What `time_arms` found of one timer. The first three are what a caller needs to make one by hand."""

    rounds_ns: NDArray[np.float64]  # float64[rounds, samples]: ns per call
    starts_ns: NDArray[np.int64]  # int64[rounds]: start of each round since the first [ns]
    warmup_calls: int
    flags: tuple[str, ...] = ()  # not_steady, throttled
    n_discarded: int = 0  # rounds
    cpu_ns: float | None = None  # CPU time of the process per call, all threads
    wall_ns: float | None = None  # host time per call


def time_arms(
    timers: Sequence[Timer],
    plan: TimingPlan,
    *,
    min_sample_ns: float,
    warmed_up: Callable[[], object] = lambda: None,
    now_ns: Callable[[], int] = time.perf_counter_ns,
    cpu_now_ns: Callable[[], int] = time.process_time_ns,
    watch: Watch | None = None,
) -> list[ArmRounds]:
    """Time one or two engines in turn, round by round, the order alternating (A B, B A, ...).

    Two speed states of a machine that last for seconds hit neighbouring rounds alike, so a ratio of rounds is some
    20 times steadier than a ratio of two medians taken one after the other. The watch looks at the machine between
    rounds; a round that the card was throttled in is dropped of all arms, while enough are left. `warmed_up` is
    called before the rounds.
    Raises: MeasurementError for a sample that is not positive.
    """
    prepared = [prepare_timer(timer, plan, min_sample_ns, now_ns) for timer in timers]
    sizes = [n_samples for _, n_samples in prepared]
    warmed_up()
    n_rounds = _rounds_within_budget(timers, sizes, plan)
    rounds: list[list[NDArray[np.float64]]] = [[] for _ in timers]
    starts: list[list[int]] = [[] for _ in timers]
    spent_cpu, spent = [0 for _ in timers], [0 for _ in timers]
    if watch is not None:
        watch.begin()
    origin = now_ns()
    for index in range(n_rounds):
        order = range(len(timers)) if index % 2 == 0 else reversed(range(len(timers)))
        for arm in order:
            cpu, started = cpu_now_ns(), now_ns()
            rounds[arm].append(checked_samples(timers[arm], sizes[arm]))
            spent[arm] += now_ns() - started
            spent_cpu[arm] += cpu_now_ns() - cpu
            starts[arm].append(started - origin)
        if watch is not None:
            watch.after_round()
    kept, flags = _kept_rounds(n_rounds, watch.slowed_rounds() if watch is not None else (), plan)
    n_calls = [n_rounds * size * timer.calls_per_sample for size, timer in zip(sizes, timers, strict=True)]
    return [
        ArmRounds(
            rounds_ns=np.stack(rounds[arm])[kept],
            starts_ns=np.asarray(starts[arm], np.int64)[kept],
            warmup_calls=warmed.n_calls,
            flags=flags if warmed.is_steady else (NOT_STEADY, *flags),
            n_discarded=n_rounds - len(kept),
            cpu_ns=spent_cpu[arm] / n_calls[arm],
            wall_ns=spent[arm] / n_calls[arm],
        )
        for arm, (warmed, _) in enumerate(prepared)
    ]


def _kept_rounds(n_rounds: int, slowed: Sequence[int], plan: TimingPlan) -> tuple[list[int], tuple[str, ...]]:
    """Return the rounds that count; all of them, flagged, where too few would be left for an interval."""
    kept = [index for index in range(n_rounds) if index not in slowed]
    if len(kept) < min(MIN_ROUNDS, plan.n_rounds, n_rounds):
        return list(range(n_rounds)), (THROTTLED,)
    return kept, ()


def check_clocks(timers: Sequence[Timer], arms: Sequence[ArmRounds]) -> None:
    """Refuse what `time_arms` measured by a clock that gave one and the same time. Raises: MeasurementError."""
    for timer, arm in zip(timers, arms, strict=True):
        samples = arm.rounds_ns
        if samples.size >= MIN_CLOCK_SAMPLES and np.ptp(samples) == 0:
            raise MeasurementError(
                f"the {timer.clock} clock gave {samples.flat[0]:g} ns for each of {samples.size} samples of batch "
                f"{timer.batch_size}; it stands still, or its timer returns a constant"
            )


def min_sample_ns(clock: str) -> float:
    """Return how long a sample must last for its clock to be fine enough [ns]."""
    if clock == "cuda_event":
        return MIN_CUDA_SAMPLE_NS
    return CLOCK_RESOLUTIONS_PER_SAMPLE * clock_resolution_ns(clock)


def prepare_timer(
    timer: Timer, plan: TimingPlan, min_sample_ns: float, now_ns: Callable[[], int] = time.perf_counter_ns
) -> tuple[WarmUp, int]:
    """Warm one timer up, choose its calls per sample, and return (how it was warmed up, samples per round).

    Raises: MeasurementError.
    """
    warmed = warm_up(timer, plan, now_ns)
    sample_ns = warmed.call_ns * calibrate_calls(timer, min_sample_ns)
    n_samples = int(np.clip(plan.round_ns / sample_ns, MIN_SAMPLES_PER_ROUND, MAX_SAMPLES_PER_ROUND))
    if n_samples * plan.n_rounds * sample_ns > ARM_BUDGET_NS:
        n_samples = max(1, int(ARM_BUDGET_NS / (plan.n_rounds * sample_ns)))
    return warmed, n_samples


def _rounds_within_budget(timers: Sequence[Timer], sizes: Sequence[int], plan: TimingPlan) -> int:
    slowest = max(float(checked_samples(t, 1)[0]) * t.calls_per_sample * n for t, n in zip(timers, sizes, strict=True))
    return int(np.clip(ARM_BUDGET_NS / slowest, min(MIN_ROUNDS, plan.n_rounds), plan.n_rounds))


def latency_from_arms(
    timers: Sequence[Timer],
    arms: Sequence[ArmRounds],
    *,
    reference_case: str = "",
) -> Latency:
    """Join what `time_arms` measured of an engine and, if there are two timers, of its FP32 reference."""
    timer, arm = timers[0], arms[0]
    rounds = arm.rounds_ns
    enqueue_ns = timer.enqueue_ns()
    median = float(np.median(rounds))
    two = len(timers) > 1
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
        reference_calls_per_sample=timers[1].calls_per_sample if two else 0,
        reference_launch=timers[1].launch if two else "",
        reference_gated=timers[1].gated if two else False,
        images_per_s=timer.batch_size * 1e9 / median,
        cpu_ns=arm.cpu_ns,
        wall_ns=arm.wall_ns,
        n_discarded_rounds=arm.n_discarded,
        flags=(
            *dict.fromkeys(flag for each in arms for flag in each.flags),  # of either: both are in the ratio
            *(() if _are_alike(timers) else (TIMED_OTHERWISE,)),
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
