"""What is kept of old runs: history for ever, raw records for some nights, those of red cases for ever."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from harness.errors import DataError
from harness.records import Record, Status
from harness.store.baselines import BaselineStore
from harness.store.runs import BASELINES_FOLDER, load_header, load_run, write_records

KEEP_NIGHTS = 14
SUMMARY = "summary.json"
KEPT_NOTE = "older than the nights that are kept whole: of this run only red cases are left"
RED = (Status.FAILED, Status.ERROR, Status.NOT_JUDGED)


def red_records(records: Iterable[Record]) -> list[Record]:
    """Return the records of cases that failed, broke or were not judged, and FP32 of their models."""
    found = list(records)
    red = {record.key for record in found if not record.is_reference and record.status in RED}
    models = {record.case.model for record in found if record.key in red}
    return [
        record
        for record in found
        if record.key in red or (record.case.model in models and record.case.precision.value == "fp32")
    ]


def tidy_runs(reports: Path, *, now: datetime.datetime, keep_nights: int = KEEP_NIGHTS) -> list[str]:
    """Thin out the runs of a report folder that began before the kept nights, and say what was done, a line each.

    A run without a red case goes, but for its summary; of another its red cases stay, with the FP32 that they were
    compared with, and its page, which was made of all, goes. A folder that cannot be read is left alone and named.
    What `latest` points to stays whole, whatever its age.
    Raises: DataError when the folder does not exist.
    """
    if not reports.is_dir():
        raise DataError(f"{reports} is no folder of runs; name the one that --report-dir wrote to")
    before = (now - datetime.timedelta(days=keep_nights)).isoformat()
    latest = (reports / "latest").resolve()
    lines = []
    for header in sorted(reports.glob("*/run.json")):
        folder = header.parent
        if folder.is_symlink() or folder.resolve() == latest:
            continue
        try:
            run = load_header(folder)
            if run.started_at >= before or KEPT_NOTE in run.notes:
                continue
            _, records = load_run(folder)
        except DataError as error:
            lines.append(f"left alone: {error}")
            continue
        kept = red_records(records)
        if not kept:
            _empty(folder)
            lines.append(f"emptied {folder}: nothing in it was red")
            continue
        write_records(folder, replace(run, notes=(*run.notes, KEPT_NOTE)), kept)
        used = {path for record in kept for path in BaselineStore(folder / BASELINES_FOLDER).paths_of(record)}
        for path in BaselineStore(folder / BASELINES_FOLDER).paths():
            if path not in used:
                path.unlink()
        (folder / "index.html").unlink(missing_ok=True)
        lines.append(f"thinned {folder}: {len(kept)} of {len(records)} records are of red cases")
    return lines


def _empty(folder: Path) -> None:
    """Delete what a run's folder holds but its summary, which is history where there is no Parquet."""
    if not (folder / SUMMARY).is_file():
        shutil.rmtree(folder)
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != SUMMARY:
            path.unlink()
