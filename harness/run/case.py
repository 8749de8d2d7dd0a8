"""One case of a run: measured on demand in a worker of its own, then judged, then written as one Record.

Every answer is asked for once and remembered, errors included: a dead engine fails each of its tests with the same
reason and costs nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError, MeasurementError, Unsupported
from harness.gates import apply_rules, judge_floor
from harness.protocols import Progress
from harness.records import (
    Accuracy,
    EngineFacts,
    Environment,
    Flip,
    Latency,
    LossSplit,
    OutputDrift,
    Record,
    Status,
    Verdict,
)
from harness.specs import Case, ModelSpec, Precision, Tolerance
from harness.worker.process import Worker
from harness.worker.requests import CaseRequest, LayerReport, Prepared

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a case is next to FP32 and to the emulation of its file; filled when the run is judged."""

    drift: OutputDrift | None = None
    flips: tuple[Flip, ...] = ()
    loss_split: LossSplit | None = None
    emulation: Accuracy | None = None


def facts_together(first: EngineFacts | None, now: EngineFacts) -> EngineFacts:
    """Return the newest facts, with the build, the most there were and all that was said before.

    What came before may be another worker's.
    """
    if first is None:
        return now
    return replace(
        now,
        build_ns=first.build_ns,
        cache=first.cache,
        n_contexts=_most(first.n_contexts, now.n_contexts),
        n_engines=_most(first.n_engines, now.n_engines),
        log_errors=tuple(dict.fromkeys((*first.log_errors, *now.log_errors))),
        notes=tuple(dict.fromkeys((*first.notes, *now.notes))),
        warnings=tuple(dict.fromkeys((*first.warnings, *now.warnings))),
    )


def _most(*counts: int | None) -> int | None:
    return max((count for count in counts if count is not None), default=None)


class CaseRun:
    """A case between its first measurement and its record."""

    def __init__(
        self,
        request: CaseRequest,
        *,
        tolerance: Tolerance,
        log_path: Path,
        python: str,
        extension_dirs: tuple[str, ...],
        timeout_s: float,
        strict: bool,
        progress: Callable[[str], Progress],
    ) -> None:
        self.case: Case = request.case
        self.model: ModelSpec = request.model
        self.tolerance = tolerance
        self.verdicts: tuple[Verdict, ...] = ()
        self.comparison = Comparison()
        self.failure: HarnessError | None = None
        self.test_failure = ""
        self.unfinished = ""  # why nothing may be concluded from what was measured
        self._strict = strict
        self._request, self._log_path, self._python = request, log_path, python
        self._extension_dirs, self._timeout_s, self._progress = extension_dirs, timeout_s, progress
        self._answers: dict[str, object] = {}
        self._worker: Worker | None = None
        self._facts: EngineFacts | None = None  # of the engine, as told last

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
        self.prepare()
        return self._ask("score", Accuracy)

    def latencies(self) -> tuple[Latency, ...]:
        """Time the engine at every batch size, in turn with its FP32 reference."""
        self.prepare()
        return self._ask("time", tuple[Latency, ...])

    def latency(self, batch_size: int) -> Latency:
        """Return the latency at one batch size. Raises: MeasurementError when it was not timed."""
        for latency in self.latencies():
            if latency.batch_size == batch_size:
                return latency
        raise MeasurementError(f"{self.case.id}: batch {batch_size} was not timed")

    def layers(self) -> LayerReport:
        """Read back what ran. The last thing to ask: profiling disturbs what is timed after it."""
        self.prepare()
        return self._ask("layers", LayerReport)

    def invariance(self) -> tuple[Verdict, ...]:
        """Check that neighbours, slot and batch size do not matter."""
        self.prepare()
        verdicts = apply_rules(self._ask("invariance", tuple[Verdict, ...]), strict=self._strict)
        self.add_verdicts(verdicts)
        return verdicts

    def judge_floor(self) -> Verdict:
        """Judge top-1 against the lowest acceptable rate of this case. Without a floor it only states the rate."""
        floor = self.tolerance.floor if self.tolerance.floor is not None else 0.0
        found = judge_floor(self.accuracy(), floor, alpha=self.tolerance.alpha)
        (verdict,) = apply_rules((found,), strict=self._strict)
        self.add_verdicts((verdict,))
        return verdict

    def outputs(self) -> NDArray[np.float32]:
        """Return the outputs of the scored images, float32[N, K], mapped from disk."""
        self.accuracy()
        return np.memmap(self._request.outputs_path, "<f4", "r").reshape(-1, self.model.num_classes)

    @property
    def was_scored(self) -> bool:
        """Tell whether there is an accuracy to judge."""
        return "score" in self._answers

    @property
    def is_unsupported(self) -> bool:
        """Tell whether the device cannot do this case."""
        prepared = self._answers.get("prepare")
        return isinstance(prepared, Prepared) and not prepared.support.supported

    def add_verdicts(self, verdicts: tuple[Verdict, ...]) -> None:
        """Keep verdicts for the record."""
        self.verdicts = tuple(v for v in self.verdicts if v not in verdicts) + verdicts

    def failures(self, *gates: str) -> list[str]:
        """Return the messages of failing verdicts of some gates. Raises: MeasurementError when none was given."""
        given = [verdict for verdict in self.verdicts if verdict.gate in gates]
        if not given:
            raise MeasurementError(f"{self.case.id}: no verdict was given by {' or '.join(gates)}")
        return [verdict.message for verdict in given if verdict.is_failure]

    # -- the end

    def close(self) -> None:
        """End the worker; what it answered stays."""
        if self._worker:
            self._worker.close()
            self._worker = None

    def record(self, *, environment: Environment, recorded_at: str, command: str) -> Record:
        """Return everything found so far."""
        prepared = cast(Prepared | None, self._answers.get("prepare"))
        layers = cast(LayerReport | None, self._answers.get("layers"))
        accuracy = cast(Accuracy | None, self._answers.get("score"))
        status, reason = self._status()
        return Record(
            case=self.case,
            status=status,
            reason=reason,
            environment=environment,
            recorded_at=recorded_at,
            command=command,
            artifact=prepared.artifact if prepared else None,
            engine=self._facts,
            effective_precision=layers.effective_precision if layers else None,
            layers=layers.layers if layers else (),
            accuracy=accuracy,
            drift=self.comparison.drift,
            flips=self.comparison.flips,
            loss_split=self.comparison.loss_split,
            emulation=self.comparison.emulation,
            latencies=cast(tuple[Latency, ...], self._answers.get("time", ())),
            verdicts=self.verdicts,
            flags=self._flags(accuracy, layers),
        )

    def _status(self) -> tuple[Status, str]:
        if self.failure is not None:
            return Status.ERROR, str(self.failure)
        if self.is_unsupported:
            return Status.UNSUPPORTED, cast(Prepared, self._answers["prepare"]).support.reason
        failing = next((verdict for verdict in self.verdicts if verdict.is_failure), None)
        if failing:
            return Status.FAILED, failing.message
        if self.test_failure:
            return Status.FAILED, self.test_failure
        if self.unfinished or not self._answers:
            return Status.ERROR, self.unfinished or "nothing of this case was measured"
        return Status.PASSED, ""

    def _flags(self, accuracy: Accuracy | None, layers: LayerReport | None) -> tuple[str, ...]:
        flags = []
        if accuracy and accuracy.n_trained_on:
            flags.append("scored_on_training_images")
        if layers and layers.effective_precision.main != self.case.precision.value:
            flags.append("precision_not_as_asked")
        if self.case.precision is Precision.INT8 and self.model.expects_int8_loss:
            flags.append("expects_int8_loss")
        return tuple(flags)

    def _ask(self, name: str, kind: type[T]) -> T:
        if name in self._answers:
            return cast(T, self._answers[name])
        if self.failure is not None:
            raise self.failure
        report = self._progress(f"{self.case.id}: {name}")
        report(0, 1)
        try:
            if self._worker is None:
                self._worker = Worker(
                    log_path=self._log_path,
                    python=self._python,
                    extension_dirs=self._extension_dirs,
                    label=self.case.id,
                )
                if "prepare" in self._answers:  # its worker was closed, and with it the engine
                    self._worker.call("prepare", self._request, Prepared, timeout_s=self._timeout_s)
            answer = self._worker.call(name, self._request, kind, timeout_s=self._timeout_s, progress=report)
            if not isinstance(answer, Prepared):
                facts = self._worker.call("facts", self._request, EngineFacts, timeout_s=self._timeout_s)
                self._facts = facts_together(self._facts, facts)
            elif answer.engine is not None:
                self._facts = answer.engine
        except HarnessError as error:
            self.failure = error
            raise
        finally:
            report(1, 1)
        self._answers[name] = answer
        return answer
