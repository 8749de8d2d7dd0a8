"""The cases of an upgrade: what ran on side B, judged against the same case on side A, with both versions named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.gates._between import compare_records
from harness.gates._gate import Gate, JudgeOptions
from harness.gates._judging import judge_records
from harness.gates._subjects import subject_beside
from harness.records import Record, Status, Verdict

Versions = Mapping[str, str]  # library -> version


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeSide:
    """One side as verdicts name it."""

    letter: str
    versions: Mapping[str, Versions]  # backend -> its libraries, the runtime first; no backend that cannot run there
    label: str = ""  # the user's own word for it

    @property
    def name(self) -> str:
        """Return what the side is called where no version is named."""
        return self.label or f"side {self.letter.upper()}"

    def of(self, backend: str) -> Versions:
        """Return the versions of a backend's libraries."""
        return self.versions.get(backend, {})


Sides = tuple[UpgradeSide, UpgradeSide]


def judge_upgrade(
    before: Sequence[Record], after: Sequence[Record], *, sides: Sides, gates: Sequence[Gate]
) -> list[Record]:
    """Return side B's records, judged against A's as one family; of a case that A alone ran, a record that says so.

    `before`, `after`: as measured. A case that A can run and B cannot fails: the upgrade loses it. Pure.
    Raises: MeasurementError when the sides share no case.
    """
    nothing = JudgeOptions(gates=frozenset())
    theirs, ours = (
        {r.case.id: r for r in judge_records(records, {}, nothing, gates) if not r.is_reference}
        for records in (before, after)
    )
    compared = compare_records(
        list(theirs.values()),
        list(ours.values()),
        names=(sides[0].name, sides[1].name),
        gates=gates,
        subject_of=lambda record: subject_beside(record, _named(record.case.backend, sides)[0]),
    )
    judged, alone = {record.case.id: record for record in compared.records}, dict(compared.alone)
    found = [judged.get(case_id, record) for case_id, record in ours.items()]
    found += [_gone(record) for case_id, record in theirs.items() if case_id not in ours]
    return [_told(record, alone.get(record.case.id), theirs.get(record.case.id), sides) for record in found]


def upgrade_in_words(backend: str, sides: Sides) -> str:
    """Return "onnxruntime 1.30.0 -> 1.32.0": the libraries of a backend that differ, or its runtime where none does."""
    if sides[0].label or sides[1].label:
        return " -> ".join(_named(backend, sides))
    before, after = (side.of(backend) for side in sides)
    told = [f"{n} {before.get(n, 'absent')} -> {after.get(n, 'absent')}" for n in _libraries(before, after)]
    return ", ".join(told) or backend


def _named(backend: str, sides: Sides) -> tuple[str, str]:
    """Return how each side is called: "onnxruntime 1.30.0", or "old (onnxruntime 1.30.0)" where it has a label."""
    names = _libraries(*(side.of(backend) for side in sides))
    told = [", ".join(f"{name} {side.of(backend).get(name, 'absent')}" for name in names) for side in sides]
    first, second = (
        f"{side.name} ({text})" if side.label and text else text or side.name
        for side, text in zip(sides, told, strict=True)
    )
    return first, second


def _libraries(before: Versions, after: Versions) -> list[str]:
    names = list(dict.fromkeys((*before, *after)))
    return [name for name in names if before.get(name) != after.get(name)] or names[:1]


def _gone(record: Record) -> Record:
    return Record(
        case=record.case,
        environment=record.environment,
        recorded_at=record.recorded_at,
        command=record.command,
        absent="it was not measured on side B",
    )


def _told(record: Record, alone: Verdict | None, other: Record | None, sides: Sides) -> Record:
    """Add why a case was not compared, and name both versions in every verdict."""
    verdicts, status, reason = record.verdicts, record.status, record.reason
    upgrade = upgrade_in_words(record.case.backend, sides)
    if alone is not None:
        was_lost = bool(record.unsupported) and other is not None and other.status is Status.PASSED
        verdict = replace(alone, is_failure=alone.is_failure or was_lost, advice="")
        verdicts = (*verdicts, verdict)
        if verdict.is_failure and status is not Status.ERROR:
            status, reason = Status.FAILED, verdict.message
    told = tuple(replace(verdict, upgrade=upgrade) for verdict in verdicts)
    return replace(record, verdicts=told, status=status, reason=f"{upgrade}: {reason}" if reason else "")
