"""An arm: one engine on one batch, and what surrounds its rounds: warm-up, audit, watch, outputs, energy.

`TimedArm` is what timing in turn needs of an arm, wherever it is. `LocalArm` has its timer in this process; those whose
timers are in workers are in `harness/run/arms.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from harness.machine.clocks import calibrate_calls, clock_resolution_ns
from harness.machine.conditions import Watch
from harness.measure.audits import audit_of, later_quantum_ns
from harness.measure.energy import energy_of_loop
from harness.measure.samples import tensors_engine
from harness.measure.warm_up import checked_samples, warm_up
from harness.protocols import Batch, Engine, LowersLaunch, Timer
from harness.records import ClockAudit, Conditions, PackedArray
from harness.specs import TimingPlan

MIN_SAMPLES_PER_ROUND = 3
MAX_SAMPLES_PER_ROUND = 200
ARM_BUDGET_NS = 4_000_000_000  # an engine slower than this allows gets fewer samples a round, then fewer rounds
CLOCK_RESOLUTIONS_PER_SAMPLE = 1_000
# A pair of CUDA events has a quantum of 0.03 us on current GPUs (0.5 us guaranteed): one call of 20 us resolves 0.2 %.
MIN_CUDA_SAMPLE_NS = 20_000.0
BEFORE, AFTER = "before timing", "after timing"
Look = Callable[[Timer, str], None]  # at what a timer's calls computed, BEFORE and AFTER


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFacts:
    """How a batch is timed: what must be alike where two times are compared."""

    batch_size: int
    clock: str
    launch: str
    gated: bool
    window: str
    calls_per_sample: int
    samples_per_round: int  # 0 before the warm-up


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmedUp:
    """How an arm was warmed up, and how it is timed from now on."""

    facts: TimerFacts
    n_calls: int
    is_steady: bool
    sample_ns: float  # how long one sample takes


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTimes:
    """One round of one arm."""

    samples_ns: PackedArray  # float64[samples]: ns per call
    cpu_ns: int  # CPU time of the process, all threads
    wall_ns: int  # host time


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the arm that watches the machine saw of the rounds, and of its clock and its enqueues."""

    conditions: Conditions
    slowed_rounds: tuple[int, ...]  # in which the card was held down
    enqueue_ns: float | None  # see `Timer.enqueue_ns`
    audit: ClockAudit | None
    later_quantum_ns: float | None  # of the clock, when all rounds were done


class TimedArm(Protocol):
    """An engine on a batch that takes its steps when it is told to. The first of two arms watches the machine."""

    @property
    def facts(self) -> TimerFacts:
        """Return how it is timed at present."""
        ...

    def lower(self, *, graph: bool, gate: bool) -> TimerFacts:
        """Go without a graph or a gate, where the timer can; see `protocols.LowersLaunch`."""
        ...

    def warm_up(self) -> WarmedUp:
        """Audit the clock, warm the timer up, and choose calls per sample and samples per round."""
        ...

    def begin(self) -> None:
        """Look at what the calls of the warm-up computed; begin to watch the machine."""
        ...

    def round(self) -> RoundTimes:
        """Time one round."""
        ...

    def after_round(self) -> None:
        """Look at the machine; a round of all arms has ended."""
        ...

    def end(self) -> Seen:
        """Look at what the timed calls computed, and tell what was seen since `begin`."""
        ...

    def energy_of_loop(self, source: str) -> float | None:
        """Run back to back for a while and return the energy of an image [mJ]; None where the card does not tell."""
        ...

    def void(self) -> str:
        """Return why its times do not count, "" where they do. Call it when everything is timed: it may run `infer`."""
        ...


def no_look(timer: Timer, when: str) -> None:
    """Look at nothing."""


class LocalArm:
    """An arm whose timer is in this process."""

    def __init__(
        self,
        timer: Timer,
        plan: TimingPlan,
        *,
        watch: Watch | None = None,
        look: Look = no_look,
        void: Callable[[], str] = lambda: "",
        min_ns: float | None = None,
        now_ns: Callable[[], int] = time.perf_counter_ns,
        cpu_now_ns: Callable[[], int] = time.process_time_ns,
    ) -> None:
        """`look`, `void`: at the timer's outputs; `min_ns`: how long a sample lasts at least, None: by its clock."""
        self.timer, self._plan = timer, plan
        self._watch, self._look, self._void = watch or Watch(), look, void
        self._min_ns, self._now_ns, self._cpu_now_ns = min_ns, now_ns, cpu_now_ns
        self._n_samples = 0
        self._audit: ClockAudit | None = None

    @property
    def facts(self) -> TimerFacts:
        """Return how it is timed at present."""
        timer = self.timer
        return TimerFacts(
            batch_size=timer.batch_size,
            clock=timer.clock,
            launch=timer.launch,
            gated=timer.gated,
            window=timer.window,
            calls_per_sample=timer.calls_per_sample,
            samples_per_round=self._n_samples,
        )

    def lower(self, *, graph: bool, gate: bool) -> TimerFacts:
        """Go without a graph or a gate, where the timer can."""
        if isinstance(self.timer, LowersLaunch):
            self.timer.lower(graph=graph, gate=gate)
        return self.facts

    def warm_up(self) -> WarmedUp:
        """Audit, warm up, choose calls and samples. Raises: MeasurementError for a broken clock."""
        timer, plan = self.timer, self._plan
        self._audit = audit_of(timer)
        warmed = warm_up(timer, plan, self._now_ns)
        least_ns = min_sample_ns(timer.clock) if self._min_ns is None else self._min_ns
        sample_ns = warmed.call_ns * calibrate_calls(timer, least_ns)
        n_samples = int(np.clip(plan.round_ns / sample_ns, MIN_SAMPLES_PER_ROUND, MAX_SAMPLES_PER_ROUND))
        if n_samples * plan.n_rounds * sample_ns > ARM_BUDGET_NS:
            n_samples = max(1, int(ARM_BUDGET_NS / (plan.n_rounds * sample_ns)))
        self._n_samples = n_samples
        return WarmedUp(facts=self.facts, n_calls=warmed.n_calls, is_steady=warmed.is_steady, sample_ns=sample_ns)

    def begin(self) -> None:
        """Look at the outputs; begin to watch."""
        self._look(self.timer, BEFORE)
        self._watch.begin()

    def round(self) -> RoundTimes:
        """Time one round. Raises: MeasurementError for a sample that is not positive."""
        cpu, started = self._cpu_now_ns(), self._now_ns()
        samples = checked_samples(self.timer, self._n_samples)
        wall_ns, cpu_ns = self._now_ns() - started, self._cpu_now_ns() - cpu
        return RoundTimes(samples_ns=PackedArray.of(samples), cpu_ns=cpu_ns, wall_ns=wall_ns)

    def after_round(self) -> None:
        """Look at the card."""
        self._watch.after_round()

    def end(self) -> Seen:
        """Look at the outputs; tell what was seen."""
        self._look(self.timer, AFTER)
        return Seen(
            conditions=self._watch.seen(),
            slowed_rounds=self._watch.slowed_rounds(),
            enqueue_ns=self.timer.enqueue_ns(),
            audit=self._audit,
            later_quantum_ns=later_quantum_ns(self.timer),
        )

    def energy_of_loop(self, source: str) -> float | None:
        """Run back to back, and read the card."""
        return energy_of_loop(self.timer, self._watch.card, source, self._now_ns)

    def void(self) -> str:
        """Tell what was wrong with the outputs."""
        return self._void()


def make_timer(engine: Engine, batch: Batch, *, batch_size: int, window: str, launch: str) -> Timer:
    """Put a batch of images, or the inputs of a run by name, in place and return its timer.

    Raises: ConfigError for a window or launch that the engine lacks, MeasurementError, Unsupported.
    """
    if isinstance(batch, Mapping):
        return tensors_engine(engine).bind(batch, batch_size=batch_size, window=window, launch=launch)
    return engine.timer(batch, window=window, launch=launch)


def min_sample_ns(clock: str) -> float:
    """Return how long a sample must last for its clock to be fine enough [ns]."""
    if clock == "cuda_event":
        return MIN_CUDA_SAMPLE_NS
    return CLOCK_RESOLUTIONS_PER_SAMPLE * clock_resolution_ns(clock)
