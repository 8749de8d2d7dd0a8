"""The arms of an open case, one a batch size. In this process they are timed in turn, or step by step by the parent."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from harness.errors import ConfigError, MeasurementError
from harness.machine.conditions import Watch, card_of, spinning_settings
from harness.measure.arms import LocalArm, TimedArm, TimerFacts, make_timer
from harness.measure.latency import measure_latencies
from harness.protocols import Engine, Progress, SlowsDown
from harness.records import Latency
from harness.worker.as_scored import AsScored
from harness.worker.opening import OpenCase
from harness.worker.requests import StepRequest, TimersRequest
from harness.worker.sample_sets import timing_batch

STEPS = frozenset(name for name in vars(TimedArm) if not name.startswith("_")) - {"facts"}


def watch_of(case: OpenCase) -> Watch:
    """Return what looks at the machine while an open case is timed. All processes of its run have been started."""
    return Watch(card_of(case.request.case.device), spinning=spinning_settings(case.engine.facts.options))


def arm_of(case: OpenCase, engine: Engine, batch_size: int, watch: Watch, *, slowdown: float | None = None) -> LocalArm:
    """Return an engine of an open case on a batch; outputs of the case's own are held against those that were scored.

    Raises: ConfigError for a window or launch that the engine lacks, MeasurementError.
    """
    request = case.request
    plan, batch = request.timing, timing_batch(request, batch_size)
    timer = make_timer(engine, batch, batch_size=batch_size, window=plan.window, launch=plan.launch)
    if slowdown is not None:
        if not isinstance(timer, SlowsDown):
            raise MeasurementError(f"a timer of {request.case.backend} cannot be slowed down")
        timer.slow_down(slowdown)
    if engine is not case.engine:
        return LocalArm(timer, plan, watch=watch)
    outputs = AsScored(request, batch_size)
    void = partial(outputs.verdict, engine, batch)
    return LocalArm(timer, plan, watch=watch, look=outputs.look, void=void)


def time_engine(case: OpenCase, progress: Progress) -> tuple[Latency, ...]:
    """Time the engine at every batch size, in turn with its FP32 reference unless it is FP32 itself."""
    asked, plan = case.request.case, case.request.timing
    reference = asked.source_on(asked.backend, asked.device)
    engines = [case.engine]
    with ExitStack() as closing:
        if asked != reference:
            engines.append(case.build(case.artifact(reference)))
            closing.callback(engines[-1].close)
            case.stage("time")

        def arms_of(batch_size: int) -> list[LocalArm]:
            watch = watch_of(case)
            return [arm_of(case, engine, batch_size, watch) for engine in engines]

        return measure_latencies(arms_of, plan, reference_case=reference.id, turn=case.turn, progress=progress)


class OpenArms:
    """The arms of an open case that its parent lets take their steps."""

    def __init__(self, case: OpenCase) -> None:
        """Begin with none."""
        self._case = case
        self._watch = watch_of(case)
        self._arms: dict[int, LocalArm] = {}

    def open(self, request: TimersRequest) -> tuple[TimerFacts, ...]:
        """Make the arms of some batch sizes, anew where there are any. Raises: ConfigError, MeasurementError."""
        case = self._case
        case.stage("time")
        for batch_size in request.batch_sizes:
            self._arms[batch_size] = arm_of(case, case.engine, batch_size, self._watch, slowdown=request.slowdown)
        return tuple(self._arms[batch_size].facts for batch_size in request.batch_sizes)

    def step(self, request: StepRequest) -> object:
        """Let an arm take a step, and return what that gave. Raises: ConfigError, MeasurementError."""
        if request.batch_size not in self._arms:
            raise ConfigError(f"{request.case.case.id}: batch {request.batch_size} has no timer in this worker")
        if request.step not in STEPS:
            raise ConfigError(f"{request.step!r} is no step of being timed")
        return getattr(self._arms[request.batch_size], request.step)(**request.words)
