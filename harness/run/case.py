"""One case of a run: measured on demand in a worker of its own, then written as one Record.

Every answer is asked for once and remembered, errors included: a dead engine fails each of its tests with the same
reason and costs nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError, MeasurementError, Unsupported
from harness.protocols import Progress
from harness.records import (
    Accuracy,
    EffectivePrecision,
    Environment,
    Flip,
    InvarianceCheck,
    Latency,
    OutputDrift,
    OutputsOfSize,
    Record,
    SamplePicture,
    SampleScores,
    SizeCheck,
    TensorDrift,
)
from harness.run.arms import Arm
from harness.run.case_worker import CaseWorker, WorkerSettings
from harness.run.resuming import known_of
from harness.run.timing import time_case
from harness.specs import Case, ModelSpec, Precision, Tolerance
from harness.worker.requests import CaseRequest, LayerReport, Prepared, ThroughputReport

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What lies behind the verdicts of a case: found next to FP32 and to the emulation of its file."""

    drift: OutputDrift | None = None
    tensor_drifts: tuple[TensorDrift, ...] = ()
    kernel_drifts: tuple[TensorDrift, ...] = ()
    flips: tuple[Flip, ...] = ()
    pictures: tuple[SamplePicture, ...] = ()
    emulation: Accuracy | None = None
    sizes: tuple[SizeCheck, ...] = ()


class _Measured:
    """What is measured of a case: asked of its worker once, and remembered."""

    def __init__(
        self,
        request: CaseRequest,
        *,
        name: str,
        tolerance: Tolerance,
        settings: WorkerSettings,
        kept: Record | None = None,
    ) -> None:
        """Begin a case, or go on with one of which a record was `kept`. `name`: of its log."""
        self.tolerance = tolerance
        self.comparison = Comparison()
        self.failure: HarnessError | None = None
        self.later_error = ""  # another one, after it
        self.test_failure = ""
        self.unfinished = ""  # why nothing may be concluded from what was measured
        self._request, self._progress = request, settings.progress
        self._worker = CaseWorker(request, name=name, settings=settings)
        self._answers: dict[str, object] = {}
        known = None if kept is None else known_of(kept, self.outputs_path)
        if known is not None:
            self._answers = dict(known.answers)
            self.failure, self.test_failure = known.failure, known.record.test_failure
            self.later_error = known.record.later_error
            self._worker.go_on_with(known.record.engine)

    @property
    def case(self) -> Case:
        """The case."""
        return self._request.case

    @property
    def outputs_path(self) -> Path:
        """Where the raw outputs of what was scored lie."""
        return Path(self._request.outputs_path)

    def arm(self) -> Arm:
        """Return how its engine can be timed again, in a process of its own."""
        return Arm(request=self._request, settings=self._worker.settings, name=self._worker.name)

    @property
    def model(self) -> ModelSpec:
        """Its model."""
        return self._request.model

    # -- measurements

    def prepare(self) -> Prepared:
        """Convert the model and build the engine.

        Raises: Unsupported when the device cannot do the case; BuildError; WorkerDied.
        """
        prepared = self._ask("prepare", Prepared)
        if not prepared.support.supported:
            raise Unsupported(f"{self.case.id}: {prepared.support.reason}")
        return prepared

    def accuracy(self) -> Accuracy:
        """Score the images."""
        return self._prepared("score", Accuracy)

    def samples(self) -> SampleScores:
        """Run the samples of a model of any graph."""
        return self._prepared("run_samples", SampleScores)

    def latencies(self) -> tuple[Latency, ...]:
        """Time the engine at every batch size, in turn with its FP32 reference; see `time_case`."""
        self.prepare()
        return self._ask("time", tuple[Latency, ...], lambda report: time_case(self._worker, report))

    def latency(self, batch_size: int) -> Latency:
        """Return the latency at one batch size. Raises: MeasurementError when it was not timed."""
        for latency in self.latencies():
            if latency.batch_size == batch_size:
                return latency
        raise MeasurementError(f"{self.case.id}: batch {batch_size} was not timed")

    def throughput(self) -> ThroughputReport:
        """Measure several inferences at once, their outputs held against those that are scored."""
        if self.model.tensors is not None or not self.model.timing_only:
            (self.accuracy if self.model.tensors is None else self.samples)()
        return self._prepared("throughput", ThroughputReport)

    def layers(self) -> LayerReport:
        """Read back what ran. The last thing to ask: profiling disturbs what is timed after it."""
        if self._request.timing.throughput:
            self.throughput()
        return self._prepared("layers", LayerReport)

    def invariance(self) -> tuple[InvarianceCheck, ...]:
        """Try whether neighbours, slot and batch size matter."""
        return self._prepared("invariance", tuple[InvarianceCheck, ...])

    def outputs_by_size(self) -> tuple[OutputsOfSize, ...]:
        """Return the outputs of the first scored images at each batch size of the engine."""
        return self._prepared("outputs_by_size", tuple[OutputsOfSize, ...])

    def outputs(self) -> NDArray[np.float32]:
        """Return the outputs of the scored images, float32[N, K], mapped from disk."""
        self.accuracy()
        try:
            return np.memmap(self.outputs_path, "<f4", "r").reshape(-1, self.model.num_classes)
        except (OSError, ValueError) as error:
            raise MeasurementError(f"{self.case.id}: its outputs are gone ({error})") from error

    @property
    def was_scored(self) -> bool:
        """Tell whether there is an accuracy, or there are samples, to judge."""
        return not self._answers.keys().isdisjoint(("score", "run_samples"))

    @property
    def has_begun(self) -> bool:
        """Tell whether anything was found: a measurement, or why there is none."""
        return bool(self._answers or self.failure or self.test_failure)

    @property
    def is_unsupported(self) -> bool:
        """Tell whether the device cannot do this case."""
        prepared = self._answers.get("prepare")
        return isinstance(prepared, Prepared) and not prepared.support.supported

    def _prepared(self, name: str, kind: type[T]) -> T:
        self.prepare()
        return self._ask(name, kind)

    def _ask(self, name: str, kind: type[T], measure: Callable[[Progress], T] | None = None) -> T:
        """Measure what is not known yet. `measure`: how; None asks the worker for it by name."""
        if name in self._answers:
            return cast(T, self._answers[name])
        if self.failure is not None:
            raise self.failure
        report = self._progress(f"{self.case.id}: {name}")
        report(0, 1)
        try:
            answer = measure(report) if measure else self._worker.call(name, kind, report)
        except HarnessError as error:
            self.failure = error
            raise
        finally:
            report(1, 1)
        self._answers[name] = answer
        return answer


class CaseRun(_Measured):
    """A case between its first measurement and its record."""

    def record(self, *, environment: Environment, recorded_at: str, command: str, is_reference: bool = False) -> Record:
        """Return everything found so far; no gate has looked at it yet."""
        measured, compared = _measured(self._answers), self.comparison
        return Record(
            case=self.case,
            environment=environment,
            recorded_at=recorded_at,
            is_reference=is_reference,
            command=command,
            tolerance=self.tolerance,
            expects_loss=self._expects_loss,
            timing_only=self.model.timing_only,
            preprocessing=self.model.preprocessing,
            engine=self._worker.facts,
            **{field.name: getattr(compared, field.name) for field in fields(compared)},
            flags=_flags(self.case, measured, expects_loss=self._expects_loss),
            error=self._error(),
            later_error=self.later_error,
            test_failure=self.test_failure,
            **measured,
        )

    def close(self) -> None:
        """End the worker; what it answered stays. An engine that does not close is its case's error."""
        try:
            self._worker.close()
        except HarnessError as error:
            self.note_error(error)

    def note_error(self, error: HarnessError) -> None:
        """Keep an error of the case; one that differs from the first beside it, for the first may be waived."""
        if self.failure is None:
            self.failure = error
        elif str(error) != str(self.failure):
            self.later_error = self.later_error or str(error)

    @property
    def _expects_loss(self) -> bool:
        return self.case.precision is Precision.INT8 and self.model.expects_int8_loss

    def _error(self) -> str:
        if self.failure is not None:
            return str(self.failure)
        if self.unfinished:
            return self.unfinished
        return "" if self.has_begun else "nothing of this case was measured"


def _measured(answers: Mapping[str, object]) -> dict[str, Any]:
    """Return what a worker answered as fields of a Record."""
    prepared = cast(Prepared | None, answers.get("prepare"))
    layers = cast(LayerReport | None, answers.get("layers"))
    throughput = cast(ThroughputReport | None, answers.get("throughput"))
    return {
        "artifact": prepared.artifact if prepared else None,
        "unsupported": prepared.support.reason if prepared and not prepared.support.supported else "",
        "effective_precision": layers.effective_precision if layers else None,
        "layers": layers.layers if layers else (),
        "accuracy": answers.get("score"),
        "samples": answers.get("run_samples"),
        "invariance": answers.get("invariance", ()),
        "latencies": answers.get("time", ()),
        "throughput": throughput.found if throughput else (),
    }


def _flags(case: Case, measured: Mapping[str, Any], *, expects_loss: bool) -> tuple[str, ...]:
    flags = []
    accuracy: Accuracy | None = measured["accuracy"]
    effective: EffectivePrecision | None = measured["effective_precision"]
    if accuracy and accuracy.n_trained_on:
        flags.append("scored_on_training_images")
    if accuracy and accuracy.has_many_ties:
        flags.append("many_ties")
    if effective and effective.main != case.precision.value:
        flags.append("precision_not_as_asked")
    if expects_loss:
        flags.append("expects_int8_loss")
    return tuple(flags)
