"""Judging as a function of records: pytest, `harness compare` and `harness report` call this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from harness.errors import MeasurementError
from harness.gates._accuracy import loss_split
from harness.gates._family import apply_rules, holm, smallest_p_of
from harness.gates._gate import Candidate, Evidence, Gate, JudgeOptions, Noted, Together
from harness.gates._remedy import with_remedy
from harness.gates._subjects import Subject
from harness.gates._void import without_times
from harness.gates._waived import known_error, unknown_error, waived
from harness.records import LossSplit, Record, RecordKey, Status, Verdict
from harness.specs import REFERENCE_BACKEND

Baselines = Mapping[RecordKey, Subject]


# (judge one by its place, how many there are) -> what was found of each, in order
Spread = Callable[[Callable[[int], "FoundAlone"], int], "list[FoundAlone]"]


def in_turn(judge: Callable[[int], FoundAlone], n: int) -> list[FoundAlone]:
    """Judge one case after the other."""
    return [judge(place) for place in range(n)]


def judge_records(
    records: Sequence[Record],
    baselines: Baselines,
    options: JudgeOptions,
    gates: Sequence[Gate],
    *,
    spread: Spread = in_turn,
) -> list[Record]:
    """Return the records with verdicts, loss split, status and reason; whatever they held of these is replaced.

    records: of one run, references among them; their order is kept. `baselines`: what each case is compared with
    outside the run; it is asked for a case while that case is judged alone. `spread`: how cases are judged alone.
    Pure: the same records, baselines and options give the same verdicts, in the run and years later.
    """
    asked = [gate for gate in gates if options.asks(gate)]
    records = [replace(record, times_void="") if record.times_void else record for record in records]
    bench = _Bench(records)

    def judge(place: int) -> FoundAlone:
        record = records[place]
        return _judge(record, bench, baselines.get(record.key), options, asked)

    found = spread(judge, len(records))
    joint, error = _on_many(found, asked)
    if error:
        found = [replace(one, error=one.error or error) for one in found]
    verdicts = _judged_together(records, found, joint, options, asked)
    return [_judged(*one, asked) for one in zip(records, found, verdicts, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundAlone:
    """What was found of one record alone, before it is judged among the others."""

    verdicts: tuple[Verdict, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)  # gate that judges many cases at once -> what it noted
    loss_split: LossSplit | None = None
    error: str = ""  # of judging


class _Bench:
    """The FP32 records of a run, to be compared with."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._fp32: dict[tuple[str, str, str, str], Record] = {}
        for record in records:
            if record.case.is_source and (record.accuracy is not None or record.samples is not None):
                case, host = record.case, record.environment.host_type
                self._fp32.setdefault((case.model, case.backend, case.device, host), record)

    def fp32_of(self, record: Record) -> Record | None:
        """Return FP32 of the same model on the same backend, device and host."""
        case = record.case
        return self._fp32.get((case.model, case.backend, case.device, record.environment.host_type))

    def reference_of(self, record: Record) -> Record | None:
        """Return FP32 of the same model on the reference backend of the same host."""
        key = (record.case.model, REFERENCE_BACKEND, "cpu", record.environment.host_type)
        return self._fp32.get(key)


def _judge(
    record: Record, bench: _Bench, stored: Subject | None, options: JudgeOptions, gates: Sequence[Gate]
) -> FoundAlone:
    if record.is_reference:
        return FoundAlone()
    gates = [gate for gate in gates if gate.judges_absent or not (record.unsupported or record.absent)]
    evidence = Evidence(
        record=record,
        fp32=bench.fp32_of(record),
        reference=bench.reference_of(record),
        stored=stored,
        stored_in=options.stored_in,
    )
    verdicts: list[Verdict] = []
    notes: dict[str, Any] = {}
    error = ""
    for gate in gates:
        try:
            if gate.is_on(record.tolerance) and gate.applies(candidate_of(record)):
                verdicts += [with_remedy(verdict, record) for verdict in gate.judge(evidence)]
                if gate.note is not None and (note := gate.note(evidence)) is not None:
                    notes[gate.name] = note
        except MeasurementError as failure:
            error = error or f"{gate.name}: {failure}"
        except Exception as failure:  # a gate may be anybody's; its fault is this case's error, not the run's end
            error = error or f"{gate.name}: {type(failure).__name__}: {failure}"
    split, problem = _loss_split(evidence)
    return FoundAlone(verdicts=tuple(verdicts), notes=notes, loss_split=split, error=error or problem)


def candidate_of(record: Record) -> Candidate:
    """Return what was known of a record's case before it was measured, as far as its gates ask for it."""
    writes = "qdq" if record.artifact is not None and record.artifact.is_qdq else "nothing"
    return Candidate(
        case=record.case,
        writes=writes,
        timing_only=record.timing_only,
        runs_samples=record.samples is not None,
        has_metrics=record.samples is not None and record.samples.leading is not None,
    )


def _loss_split(evidence: Evidence) -> tuple[LossSplit | None, str]:
    record, fp32 = evidence.record, evidence.fp32
    if record.accuracy is None or record.emulation is None or fp32 is None or fp32.accuracy is None:
        return None, ""
    try:
        return loss_split(fp32.accuracy, record.emulation, record.accuracy), ""
    except MeasurementError as failure:
        return None, str(failure)


def _judged_together(
    records: Sequence[Record],
    found: Sequence[FoundAlone],
    joint: Sequence[Together],
    options: JudgeOptions,
    gates: Sequence[Gate],
) -> list[tuple[Verdict, ...]]:
    """Apply what holds for all: one false-alarm rate for cases that ask for the same one, and the options' rules."""
    stored = {gate.name for gate in gates if gate.reads_baseline}
    judged = [list(one.verdicts) for one in found]
    own = [record.tolerance.alpha for record in records]
    alphas = [*(alpha for alpha, one in zip(own, found, strict=True) if one.verdicts), *(one.alpha for one in joint)]
    for alpha in dict.fromkeys(alphas):
        alike = [one if mine == alpha else FoundAlone() for mine, one in zip(own, found, strict=True)]
        for places, verdict in _adjusted(alike, joint, gates, alpha=alpha):
            for row, column in places:
                if column is None:
                    judged[row].append(verdict)
                else:
                    judged[row][column] = verdict
    ruled = [
        apply_rules(
            verdicts, strict=options.strict, require_baseline=options.baseline == "require", baseline_gates=stored
        )
        for verdicts in judged
    ]
    return [
        waived(verdicts, record.waivers, on=_night(record)) for record, verdicts in zip(records, ruled, strict=True)
    ]


Places = tuple[tuple[int, int | None], ...]  # (record, its verdict; None: one more)


def _on_many(found: Sequence[FoundAlone], gates: Sequence[Gate]) -> tuple[list[Together], str]:
    """Ask the gates that look at all cases at once; return what they say, and the error of one that raised."""
    given: list[Together] = []
    error = ""
    for gate in gates:
        if gate.judge_together is None:
            continue
        noted = [
            Noted(place=place, note=one.notes[gate.name]) for place, one in enumerate(found) if gate.name in one.notes
        ]
        try:
            given += gate.judge_together(noted)
        except Exception as failure:  # as above: a gate may be anybody's
            error = error or f"{gate.name}: {type(failure).__name__}: {failure}"
    return given, error


def _adjusted(
    found: Sequence[FoundAlone], joint: Sequence[Together], gates: Sequence[Gate], *, alpha: float
) -> list[tuple[Places, Verdict]]:
    """Return the verdicts of one alpha's families, adjusted, and where each belongs. `found`: of its cases alone."""
    families = {gate.name: gate.family or gate.name for gate in gates if gate.in_family}
    exact = {gate.name for gate in gates if gate.is_exact}
    members: list[tuple[Places, Verdict, float]] = [
        (((row, column),), verdict, smallest_p_of(verdict) if verdict.gate in exact else 0.0)
        for row, one in enumerate(found)
        for column, verdict in enumerate(one.verdicts)
        if verdict.gate in families
    ]
    members += [
        (tuple((row, None) for row in one.places), one.verdict, one.smallest_p) for one in joint if one.alpha == alpha
    ]
    verdicts = holm(
        [verdict for _, verdict, _ in members],
        alpha=alpha,
        families=families,
        smallest=[least for _, _, least in members],
    )
    return [(places, verdict) for (places, _, _), verdict in zip(members, verdicts, strict=True)]


def _judged(record: Record, found: FoundAlone, verdicts: tuple[Verdict, ...], gates: Sequence[Gate]) -> Record:
    times_void, verdicts = without_times(record, verdicts, gates)
    known = None if found.error or _open_error(record) else known_error(record.error, record.waivers, on=_night(record))
    verdicts = (*verdicts, known) if known else verdicts
    status, reason = _ending(record, found, verdicts)
    return replace(
        record,
        times_void=times_void,
        loss_split=found.loss_split,
        verdicts=verdicts,
        status=status,
        reason=reason,
    )


def _night(record: Record) -> str:
    """Return the day of a record, ISO 8601."""
    return record.recorded_at[: len(date.min.isoformat())]


def _open_error(record: Record) -> str:
    """Return the first error of a case that no waiver in force takes, "" where there is none."""
    errors = (error for error in (record.error, record.later_error) if error)
    return next((error for error in errors if known_error(error, record.waivers, on=_night(record)) is None), "")


def _ending(record: Record, found: FoundAlone, verdicts: Sequence[Verdict]) -> tuple[Status, str]:
    """Return status and reason: a loss that was measured is told whatever broke afterwards, and then what broke."""
    error = found.error or unknown_error(_open_error(record), record.waivers, on=_night(record))
    failing = next((verdict for verdict in verdicts if verdict.is_failure), None)
    if failing is not None and not found.error:
        return Status.FAILED, f"{failing.message}; then an error: {error}" if error else failing.message
    if error:
        return Status.ERROR, error
    if void := next((latency for latency in record.latencies if latency.void), None):  # whichever gates were asked
        return Status.FAILED, f"batch {void.batch_size}: the time is void: {void.void}"
    if record.unsupported or record.absent:
        told = next((verdict.message for verdict in verdicts), "")  # of a case with a baseline
        return (Status.ABSENT, told) if told else (Status.UNSUPPORTED, record.unsupported or record.absent)
    return (Status.FAILED, record.test_failure) if record.test_failure else (Status.PASSED, "")
