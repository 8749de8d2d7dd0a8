"""The timers of an open case, sampled a round at a time when the parent says so: arms in two processes take turns."""

from __future__ import annotations

from harness.errors import ConfigError, MeasurementError
from harness.measure.timing import make_timer, min_sample_ns, prepare_timer
from harness.measure.warm_up import checked_samples
from harness.protocols import SlowsDown, Timer
from harness.records import PackedArray
from harness.worker.opening import OpenCase
from harness.worker.requests import TimerFacts, TimersRequest
from harness.worker.sample_sets import timing_batch


class OpenTimers:
    """One warm timer for every timed batch size of an open case."""

    def __init__(self, case: OpenCase, request: TimersRequest) -> None:
        """Make them and warm them up. Raises: ConfigError, MeasurementError."""
        self._case = case
        self._timers: dict[int, tuple[Timer, int]] = {}  # batch size -> timer, samples a round
        plan = case.request.timing
        case.stage("time")
        for batch_size in plan.batch_sizes:
            images = timing_batch(case.request, batch_size)
            timer = make_timer(case.engine, images, batch_size=batch_size, window=plan.window, launch=plan.launch)
            if request.slowdown is not None:
                if not isinstance(timer, SlowsDown):
                    raise MeasurementError(f"a timer of {case.request.case.backend} cannot be slowed down")
                timer.slow_down(request.slowdown)
            _, n_samples = prepare_timer(timer, plan, min_sample_ns(timer.clock))
            self._timers[batch_size] = timer, n_samples

    @property
    def facts(self) -> tuple[TimerFacts, ...]:
        """Return how each batch size is timed."""
        return tuple(
            TimerFacts(
                batch_size=timer.batch_size,
                clock=timer.clock,
                launch=timer.launch,
                gated=timer.gated,
                window=timer.window,
                calls_per_sample=timer.calls_per_sample,
                samples_per_round=n_samples,
            )
            for timer, n_samples in self._timers.values()
        )

    def round(self, batch_size: int) -> PackedArray:
        """Return float64[samples] of one round [ns per call]. Raises: MeasurementError."""
        if batch_size not in self._timers:
            raise ConfigError(f"{self._case.request.case.id}: batch {batch_size} has no timer in this worker")
        timer, n_samples = self._timers[batch_size]
        return PackedArray.of(checked_samples(timer, n_samples))
