"""Judging the cases of a run: what the gates need is measured, then `judge_records` says what it means.

Gates that compare cases wait until every case is measured: they share one false-alarm rate, and a case's reference may
come after it. The others are asked as soon as their case is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from harness.errors import HarnessError, Unsupported
from harness.gates import Baselines, Candidate, Gate, GateAnswer, JudgeOptions, answer_of, find_gate, judge_records
from harness.options.values import HarnessOptions
from harness.records import Record
from harness.run.case import CaseRun
from harness.run.cases import Cases
from harness.run.comparing import Comparing
from harness.run.replaying import Replaying
from harness.specs import Case
from harness.store.baselines import BaselineStore

LATENCY = "latency"  # the gate that stored times are judged by
# They need nothing more of a scored case's own worker.
COMPARISONS = frozenset({"fp32", "reference", "emulation", "samples_fp32", "samples_reference", "samples_emulation"})


class Judging:
    """The verdicts of one run."""

    def __init__(self, cases: Cases, options: HarnessOptions, *, gates: Iterable[str]) -> None:
        """Begin with none. `gates`: those that a selected test asks for; no other is judged, nor measured for."""
        self._cases, self._options = cases, options
        self.baselines = BaselineStore(Path(options.baseline_dir))
        self._gates = tuple(find_gate(name) for name in dict.fromkeys(gates))
        self._misses = any(gate.judges_absent for gate in self._gates)
        self._comparing = Comparing(cases, options)
        self._replaying = Replaying(options, share_of_night=cases.share_of_night)
        self._records: list[Record] | None = None  # judged, all together
        self._error: Exception | None = None

    @property
    def was_done(self) -> bool:
        """Tell whether all that had to wait for the last case was judged."""
        return self._records is not None or not any(gate.in_family for gate in self._gates)

    def answer(self, case: Case, gate_name: str) -> GateAnswer:
        """Return what a gate says of a case; a gate of a family judges all cases of the run at the first call.

        Raises: the case's own error when there is nothing to judge; MeasurementError when the gate gave no verdict.
        """
        gate, run = find_gate(gate_name), self._cases.open(case)
        if gate.in_family:
            self._judge_all()
        else:
            self._measure(run, gate.needs)
        judged = self._current(run, gate)
        if run.failure is not None and not any(verdict.gate == gate.name for verdict in judged.verdicts):
            raise run.failure
        run.prepare()  # raises for a case that the device cannot do
        return answer_of(judged, gate.name)

    def records(self) -> list[Record]:
        """Return the records of all opened cases and references, with all verdicts that could be given."""
        if self._records is None:
            alone = [gate for gate in self._gates if not gate.in_family]
            return self._judged(self._cases.records(with_absent=self._misses), {}, alone)
        judged = {record.case.id: record for record in self._records}
        # A test that failed after the judging is in the case, not yet in its judged record.
        failed = {run.case.id: run.test_failure for run in self._cases.opened.values() if run.test_failure}
        if any(judged[name].test_failure != text for name, text in failed.items() if name in judged):
            return self._judged_all()
        return self._records

    def _current(self, run: CaseRun, gate: Gate) -> Record:
        if gate.in_family and self._records is not None:
            return next(record for record in self._records if record.case.id == run.case.id)
        beside = {"fp32", "reference", "samples_fp32", "samples_reference"}.intersection(gate.needs)
        records = self._cases.records() if beside else [self._cases.record_of(run)]
        judged = self._judged(
            [record for record in records if record.case == run.case or record.case.is_source],
            {},
            [gate],
        )
        return next(record for record in judged if record.case == run.case)

    def _judge_all(self) -> None:
        if self._error is not None:
            raise self._error
        if self._records is not None:
            return
        try:
            for case in self._cases.planned:
                self._compare(self._cases.open(case))
            self._records = self._judged_all()
        except Exception as error:  # kept for every other case: none may pass because judging broke at the first
            self._error = error
            raise

    def _judged_all(self) -> list[Record]:
        records = self._cases.records(with_absent=self._misses)
        baselines: Baselines = {}
        if self._options.baseline != "ignore":
            baselines, errors = self.baselines.load_for(records)
            for record in records:
                if record.key in errors and record.case.id in self._cases.opened and not record.is_reference:
                    run = self._cases.opened[record.case.id]
                    run.note_error(errors[record.key])
            records = self._cases.records(with_absent=self._misses) if errors else records
        if LATENCY in {gate.name for gate in self._gates} and baselines:
            records = self._replaying.added_to(
                records, baselines, {case_id: run.arm() for case_id, run in self._cases.opened.items()}
            )
        return self._judged(records, baselines, self._gates)

    def _judged(self, records: list[Record], baselines: Baselines, gates: Iterable[Gate]) -> list[Record]:
        options = JudgeOptions(
            gates=frozenset(gate.name for gate in gates),
            strict=self._options.strict,
            baseline=self._options.baseline,
            stored_in=self._options.baseline_dir,
        )
        return judge_records(records, baselines, options)

    # -- what the gates need

    def _compare(self, run: CaseRun) -> None:
        """Measure a case and what it is compared with; an error stays with the case, whose tests and record show it.

        A case that failed after it was scored is still compared: what broke later does not unsay its scores.
        """
        if run.is_unsupported or (run.failure is not None and not run.was_scored):
            return
        writes = "qdq" if _holds_qdq(run) else "nothing"
        has_metrics = self._cases.has_metrics(run.case)
        candidate = Candidate.of_model(run.case, run.model, writes=writes, has_metrics=has_metrics)
        asked = (gate for gate in self._gates if gate.in_family and gate.is_on(run.tolerance))
        needs = dict.fromkeys(need for gate in asked if gate.applies(candidate) for need in gate.needs)
        try:
            self._measure(run, needs if run.failure is None else COMPARISONS.intersection(needs))
        except Unsupported:
            return
        except HarnessError as error:
            run.note_error(error)
        finally:
            run.close()

    def _measure(self, run: CaseRun, needs: Iterable[str]) -> None:
        """Make what is needed, in the order in which it disturbs nothing that follows. Raises: HarnessError."""
        makers: dict[str, Callable[[CaseRun], object]] = {
            "engine": CaseRun.prepare,
            "accuracy": CaseRun.accuracy,
            "samples": CaseRun.samples,
            "invariance": self._comparing.with_itself,
            "latency": CaseRun.latencies,
            "fp32": self._comparing.with_fp32,
            "reference": self._comparing.with_reference,
            "emulation": self._comparing.with_emulation,
            "samples_fp32": self._comparing.samples_with_fp32,
            "samples_reference": self._comparing.samples_with_reference,
            "samples_emulation": self._comparing.samples_with_emulation,
            "layers": CaseRun.layers,  # last: profiling disturbs what is timed after it
        }
        wanted = set(needs)
        for name, make in makers.items():
            if name in wanted:
                make(run)


def _holds_qdq(run: CaseRun) -> bool:
    try:
        artifact = run.prepare().artifact
    except HarnessError:
        return False
    return artifact is not None and artifact.is_qdq
