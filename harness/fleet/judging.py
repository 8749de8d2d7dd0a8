"""Merged records judged as one family, beside the baselines that their shards kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from harness.errors import BaselineError
from harness.fleet.merging import Merged
from harness.gates import FoundAlone, JudgeOptions, judge_records
from harness.records import Record, RecordKey, Run
from harness.run.stored import options_of
from harness.store.baselines import BaselineStore, KeptBaselines
from harness.store.runs import BASELINES_FOLDER
from harness.store.spreading import spread


def judge_merged(merged: Merged, run: Run, folder: Path) -> list[Record]:
    """Return the merged records, judged; what their shards were compared with is copied into the run's folder.

    A baseline that cannot be read is its case's error.
    """
    _copy_baselines(merged, folder / BASELINES_FOLDER)
    records, options = list(merged.records), options_of(run)
    judged, errors = _judged(records, folder, options)
    if not errors:
        return judged
    for record in records:
        if record.key in errors:  # told by its record from now on, and no hindrance to reading the run
            for path in BaselineStore(folder / BASELINES_FOLDER).paths_of(record):
                path.unlink(missing_ok=True)
    records = [replace(record, error=record.error or str(errors.get(record.key, ""))) for record in records]
    return _judged(records, folder, options)[0]


def _judged(
    records: list[Record], folder: Path, options: JudgeOptions
) -> tuple[list[Record], dict[RecordKey, BaselineError]]:
    """Judge records on all CPUs; return them, and the errors of baselines that cannot be read."""
    kept = KeptBaselines(folder / BASELINES_FOLDER, records)
    errors: dict[RecordKey, BaselineError] = {}

    def on_all_cpus(judge: Callable[[int], FoundAlone], n: int) -> list[FoundAlone]:
        found = list(spread(lambda place: (judge(place), kept.errors.get(records[place].key)), n))
        errors.update({records[place].key: error for place, (_, error) in enumerate(found) if error is not None})
        return [one for one, _ in found]

    return judge_records(records, kept, options, spread=on_all_cpus), errors


def _copy_baselines(merged: Merged, target: Path) -> None:
    """Copy each baseline once; that of predictions serves many device types."""
    sources: dict[Path, Path] = {}
    for record in merged.records:
        if record.is_reference or record.key not in merged.sources:
            continue
        store = BaselineStore(Path(merged.sources[record.key]) / BASELINES_FOLDER)
        try:
            paths = store.paths_of(record)
        except BaselineError:  # a GPU without a name can have none
            continue
        for path in paths:
            if path.is_file():
                sources.setdefault(target / path.relative_to(store.root), path)
    for folder in {place.parent for place in sources}:
        folder.mkdir(parents=True, exist_ok=True)
    pairs = list(sources.items())

    def copy(number: int) -> None:
        place, path = pairs[number]
        try:  # a baseline is replaced as a whole, never changed in place: a second name costs a seventh of a copy
            os.link(path.resolve(), place)  # not a symbolic link itself, which may point beside itself there
        except OSError:  # another disk, another owner, or one that has no such names
            shutil.copyfile(path, place)  # not forced to disk file by file: its digest tells a torn one

    for _ in spread(copy, len(pairs), at_a_time=200):
        pass
