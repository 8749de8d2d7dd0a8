"""Times of two sides of an upgrade: where side B looks slower, both engines again in turn, in pairs of processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from harness.errors import MeasurementError
from harness.gates import Subject, compare_runs, subject_beside
from harness.options.values import HarnessOptions
from harness.records import Record
from harness.run.pairing import Arm
from harness.run.replaying import Replaying, arm_again


def times_of_sides(
    before: Sequence[Record],
    after: Sequence[Record],
    *,
    arms: tuple[Mapping[str, Arm], Mapping[str, Arm]],
    options: HarnessOptions,
    note: Callable[[str], None] = lambda text: None,
) -> list[Record]:
    """Return side B's records with what their latency gates need: each suspect timed in turn with side A's engine.

    `arms`: how each side's engines are timed again, by case id; `options`: of side B's run; `note`: is told each
    suspect. A case whose predictions regressed is not timed again: its times are void.
    Raises: BaselineError for a damaged calibration.
    """
    theirs, ours = arms
    timed = {record.case.id: record for record in before if record.valid_latencies and not record.error}
    wrong = _ids_of_wrong(before, after)

    def find_control(record: Record, stored: Subject, arm: Arm) -> Arm | str:
        other = timed[record.case.id]
        again = arm_again(other, theirs[record.case.id])
        versions = other.engine.versions if other.engine is not None else {}
        return replace(again, name=f"{record.case.id}-control", versions=dict(versions))

    replaying = Replaying(options, find_control=find_control, note=note)
    stored = {record.key: subject_beside(record, "side A") for record in timed.values()}
    chosen = {case_id: arm for case_id, arm in ours.items() if case_id in timed and case_id not in wrong}
    return replaying.added_to(after, stored, chosen)


def _ids_of_wrong(before: Sequence[Record], after: Sequence[Record]) -> frozenset[str]:
    """Return the cases whose predictions are worse than side A's."""
    try:
        compared = compare_runs(before, after, names=("side A", "side B"))
    except MeasurementError:  # no case in common: there is nothing to time again
        return frozenset()
    return frozenset(record.case.id for record in compared.records if record.times_void)
