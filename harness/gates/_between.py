"""One run against another: the same gates that compare with a baseline, on the same records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.errors import MeasurementError
from harness.gates._gate import Gate, JudgeOptions
from harness.gates._judging import judge_records
from harness.gates._subjects import Subject, subject_from_record
from harness.records import Outcome, Record, RecordKey, Status, Verdict

CaseVerdicts = tuple[str, tuple[Verdict, ...]]  # (case id, its verdicts)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """The later run's records, judged against the earlier run's, and what one run has alone."""

    records: tuple[Record, ...]
    alone: tuple[tuple[str, Verdict], ...]  # (case id, why it was not compared)

    @property
    def verdicts(self) -> list[CaseVerdicts]:
        """Return (case id, verdicts) of every case of either run."""
        told = [(record.case.id, record.verdicts) for record in self.records if record.verdicts]
        return told + [(case_id, (verdict,)) for case_id, verdict in self.alone]

    @property
    def is_failure(self) -> bool:
        """Tell whether something regressed, or is missing from the later run."""
        return any(verdict.is_failure for _, verdicts in self.verdicts for verdict in verdicts)


def compare_records(
    before: Sequence[Record],
    after: Sequence[Record],
    *,
    names: tuple[str, str],
    gates: Sequence[Gate],
    across_devices: bool = False,
    subject_of: Callable[[Record], Subject] | None = None,
) -> RunComparison:
    """Judge every case of a run against the same case of an earlier run on the same type of device.

    `across_devices`: also against one on another type of device; predictions are compared then, times are not.
    `subject_of`: what an earlier record is compared by, where it is not `subject_from_record` under names[0].
    Raises: MeasurementError when the runs share no case, or for scores that are not numbers.
    """
    ours = [record for record in after if not record.is_reference]
    theirs = [record for record in before if not record.is_reference]
    pairs = _pairs(theirs, ours, across_devices=across_devices)
    if not pairs:
        raise MeasurementError(_nothing_shared(theirs, ours, names))
    subject = subject_of or (lambda record: subject_from_record(record, names[0]))
    stored: dict[RecordKey, Subject] = {key: subject(record) for key, record in pairs.items() if _is_whole(record)}
    options = JudgeOptions(gates=frozenset(gate.name for gate in gates if gate.reads_baseline))
    judged = judge_records([record for record in ours if record.key in stored], stored, options, gates)
    return RunComparison(records=tuple(judged), alone=tuple(_alone(theirs, ours, pairs, stored, names)))


def _pairs(before: Sequence[Record], after: Sequence[Record], *, across_devices: bool) -> Mapping[RecordKey, Record]:
    """Return the earlier record of every later record's key that has one."""
    same = {record.key: record for record in before}
    by_id = {record.case.id: record for record in before}
    found = {}
    for record in after:
        other = same.get(record.key) or (by_id.get(record.case.id) if across_devices else None)
        if other is not None:
            found[record.key] = other
    return found


def _is_whole(record: Record) -> bool:
    return record.status not in (Status.ERROR, Status.UNSUPPORTED)


def _alone(
    before: Sequence[Record],
    after: Sequence[Record],
    pairs: Mapping[RecordKey, Record],
    stored: Mapping[RecordKey, Subject],
    names: tuple[str, str],
) -> list[tuple[str, Verdict]]:
    found = []
    for record in after:
        other = pairs.get(record.key)
        if other is None:
            found.append((record.case.id, _missing(record, before, inside=names[1], outside=names[0])))
        elif record.key not in stored or not _is_whole(record):
            found.append((record.case.id, _broken(other, record, names)))
    taken = {record.key for record in pairs.values()}
    for record in before:
        if record.key not in taken:
            # A case that the later run lost may be the one that broke; one that it added is news.
            verdict = _missing(record, after, inside=names[0], outside=names[1], is_failure=True)
            found.append((record.case.id, verdict))
    return found


def _broken(before: Record, after: Record, names: tuple[str, str]) -> Verdict:
    broken = [
        f"{name} ended in {record.status} ({record.reason})"
        for record, name in ((before, names[0]), (after, names[1]))
        if not _is_whole(record)
    ]
    return Verdict(
        gate="baseline",
        outcome=Outcome.INCOMPARABLE,
        code="nothing_to_compare",
        is_failure=after.status is Status.ERROR,
        message="; ".join(broken),
        advice="repeat the case in the run that lacks it",
    )


def _missing(
    record: Record, others: Sequence[Record], *, inside: str, outside: str, is_failure: bool = False
) -> Verdict:
    elsewhere = [other.environment.device_type for other in others if other.case.id == record.case.id]
    if elsewhere:
        message = f"in {inside} on {record.environment.device_type}, in {outside} on {elsewhere[0]} only"
        advice = "compare predictions across types of device with --across-devices"
    else:
        message = f"in {inside} only; {outside} has no such case"
        advice = f"run {outside} with the same models, backends and precisions"
    return Verdict(
        gate="baseline",
        outcome=Outcome.INCOMPARABLE,
        code="only_in_one_run",
        message=message,
        is_failure=is_failure,
        advice=advice,
    )


def _nothing_shared(before: Sequence[Record], after: Sequence[Record], names: tuple[str, str]) -> str:
    if {record.case.id for record in before} & {record.case.id for record in after}:
        types = [", ".join(sorted({r.environment.device_type for r in records})) for records in (before, after)]
        return (
            f"{names[0]} ran on {types[0]}, {names[1]} on {types[1]}: no case of the same type of device; "
            "compare predictions across types of device with --across-devices"
        )
    return f"{names[0]} ({len(before)} cases) and {names[1]} ({len(after)} cases) share no case"
