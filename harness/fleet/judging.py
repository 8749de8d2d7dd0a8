"""Merged records judged as one family, beside the baselines that their shards kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.errors import BaselineError
from harness.fleet.merging import Merged
from harness.gates import judge_records
from harness.records import Record, Run
from harness.run.stored import options_of
from harness.store.baselines import BaselineStore, KeptBaselines, write_file
from harness.store.runs import BASELINES_FOLDER


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
    records = [replace(record, error=record.error or str(kept.errors.get(record.key, ""))) for record in records]
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
