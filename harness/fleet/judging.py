"""Merged records judged as one family, beside the baselines that their shards kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import BaselineError
from harness.fleet.merging import Merged
from harness.gates import Subject, judge_records
from harness.records import Record, RecordKey, Run
from harness.run.stored import options_of
from harness.store.baselines import BaselineStore, write_file
from harness.store.runs import BASELINES_FOLDER


class KeptBaselines(Mapping[RecordKey, Subject]):
    """The baselines below a folder, each read when it is asked for: those of a fleet fill no memory."""

    def __init__(self, folder: Path, records: Sequence[Record]) -> None:
        self._store = BaselineStore(folder)
        self._records = {record.key: record for record in records if not record.is_reference}
        self.errors: dict[RecordKey, str] = {}  # of those that were asked for and cannot be read

    def __getitem__(self, key: RecordKey) -> Subject:
        try:
            found = self._store.load(self._records[key])
        except BaselineError as error:
            self.errors[key] = str(error)
            found = None
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[RecordKey]:
        return (key for key in self._records if key in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def judge_merged(merged: Merged, run: Run, folder: Path) -> list[Record]:
    """Return the merged records, judged; what their shards were compared with is copied into the run's folder.

    A baseline that cannot be read is its case's error.
    """
    _copy_baselines(merged, folder / BASELINES_FOLDER)
    records, options = list(merged.records), options_of(run)
    kept = KeptBaselines(folder / BASELINES_FOLDER, records)
    judged = judge_records(records, kept, options)
    if not kept.errors:
        return judged
    for record in records:
        if record.key in kept.errors:  # told by its record from now on, and no hindrance to reading the run
            for path in BaselineStore(folder / BASELINES_FOLDER).paths_of(record):
                path.unlink(missing_ok=True)
    records = [replace(record, error=record.error or kept.errors.get(record.key, "")) for record in records]
    return judge_records(records, KeptBaselines(folder / BASELINES_FOLDER, records), options)


def _copy_baselines(merged: Merged, target: Path) -> None:
    for record in merged.records:
        if record.is_reference or record.key not in merged.sources:
            continue
        store = BaselineStore(Path(merged.sources[record.key]) / BASELINES_FOLDER)
        try:
            paths = store.paths_of(record)
        except BaselineError:  # a GPU without a name can have none
            continue
        for path in paths:
            place = target / path.relative_to(store.root)
            if path.is_file() and not place.exists():  # that of predictions serves many device types
                write_file(place, path.read_bytes())
