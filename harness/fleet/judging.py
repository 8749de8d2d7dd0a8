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
from harness.store.baselines import BaselineStore
from harness.store.runs import BASELINES_FOLDER


class KeptBaselines(Mapping[RecordKey, Subject]):
    """The baselines below a folder, each read when it is asked for: those of a fleet fill no memory."""

    def __init__(self, folder: Path, records: Sequence[Record]) -> None:
        self._store = BaselineStore(folder)
        self._records = {record.key: record for record in records if not record.is_reference}

    def __getitem__(self, key: RecordKey) -> Subject:
        found = self._store.load(self._records[key])
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[RecordKey]:
        return (key for key in self._records if key in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def judge_merged(merged: Merged, run: Run, folder: Path) -> list[Record]:
    """Return the merged records, judged; what their shards were compared with is copied into the run's folder."""
    records = _with_baselines(merged, folder / BASELINES_FOLDER)
    return judge_records(records, KeptBaselines(folder / BASELINES_FOLDER, records), options_of(run))


def _with_baselines(merged: Merged, target: Path) -> list[Record]:
    """Copy what the shards were compared with beside the merged records; a damaged baseline is its case's error."""
    records: list[Record] = []
    for record in merged.records:
        if record.is_reference or record.key not in merged.sources:
            records.append(record)
            continue
        store = BaselineStore(Path(merged.sources[record.key]) / BASELINES_FOLDER)
        error = ""
        try:
            store.load(record)
            store.copy_to(target, [record])
        except BaselineError as failure:
            error = str(failure)
        records.append(replace(record, error=record.error or error))
    return records
