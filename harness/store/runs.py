"""Runs on disk: versioned JSON, written so that an interrupted run keeps every finished case.

    <report dir>/<run id>/run.json          the header
                          records.jsonl     one Record a line, flushed as it is made
                          summary.json      the documented summary (docs/summary.md)
                          baselines/        copies of the baselines that it was compared with
    <report dir>/latest                     link to the newest run

Only this module and `baselines` know JSON.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from harness.errors import ConfigError, DataError
from harness.records import RECORD_SCHEMA, Record, Run

BASELINES_FOLDER = "baselines"  # of a run: copies of what it was compared with
T = TypeVar("T")


def json_from(value: object) -> bytes:
    """Encode any of our dataclasses as compact JSON."""
    return msgspec.json.encode(value)


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file, whole or piece by piece, so that a reader sees the old or the new content, never a part."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner reads
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


class RunStore:
    """The folder of one run, open for writing."""

    def __init__(self, report_dir: Path, run: Run) -> None:
        """Make the run's folder. Raises: ConfigError when the report dir cannot be written."""
        self.folder = report_dir / run.id
        try:
            self.folder.mkdir(parents=True)
            (self.folder / "logs").mkdir()
            (self.folder / "outputs").mkdir()
            write_atomically(self.folder / "run.json", json_from(run))
            self._records = (self.folder / "records.jsonl").open("ab")
        except OSError as error:
            raise ConfigError(
                f"--report-dir {report_dir} cannot be written ({error.strerror}); name a folder you may write to"
            ) from error

    def append(self, record: Record) -> None:
        """Write one record and force it to disk."""
        self._records.write(json_from(record) + b"\n")
        self._records.flush()
        os.fsync(self._records.fileno())

    def finish(self, run: Run, records: Sequence[Record], *, summary: bytes) -> None:
        """Write the final header, the judged records and the summary as it is; `latest` points here, never at a shard.

        Raises: OSError.
        """
        self._records.close()
        write_atomically(self.folder / "records.jsonl", (json_from(record) + b"\n" for record in records))
        write_atomically(self.folder / "run.json", json_from(run))
        write_atomically(self.folder / "summary.json", summary)
        for outputs in (self.folder / "outputs").glob("*.f32"):
            outputs.unlink()
        (self.folder / "outputs").rmdir()
        if run.shard is not None:
            return  # a part of a night is not the latest run
        latest = self.folder.parent / "latest"
        link = self.folder.parent / f".latest-{os.getpid()}"
        link.symlink_to(self.folder.name, target_is_directory=True)
        os.replace(link, latest)


def load_run(folder: Path) -> tuple[Run, list[Record]]:
    """Read a run's header and records.

    Raises: DataError when the folder holds no run, a damaged line (named), or a newer schema.
    """
    header, lines = folder / "run.json", folder / "records.jsonl"
    if not header.is_file() or not lines.is_file():
        raise DataError(f"{folder} holds no run: run.json and records.jsonl are written by `pytest suites/`")
    run = _versioned(header.read_bytes(), Run, str(header))
    records = [
        _versioned(line, Record, f"{lines}:{number}")
        for number, line in enumerate(lines.read_bytes().splitlines(), start=1)
        if line.strip()
    ]
    return run, records


def previous_run(folder: Path, run: Run, records: Sequence[Record]) -> tuple[Run, list[Record]] | None:
    """Return the newest run beside `folder` that began before `run` and has a case in common with it.

    Runs that cannot be read are passed over: an old damaged one must not cost the new one its report.
    """
    keys = {record.key for record in records}
    for header in sorted(folder.resolve().parent.glob("*/run.json"), reverse=True):
        if header.parent.name == "latest" or header.parent.is_symlink() or header.parent.name == folder.resolve().name:
            continue
        try:
            other, found = load_run(header.parent)
        except DataError:
            continue
        if other.started_at < run.started_at and other.finished_at and keys & {record.key for record in found}:
            return other, found
    return None


def _versioned(data: bytes, kind: type[T], where: str) -> T:
    try:
        schema = msgspec.json.decode(data).get("schema")
        if schema != RECORD_SCHEMA:
            is_newer = isinstance(schema, int) and schema > RECORD_SCHEMA
            advice = "upgrade the harness" if is_newer else "run the suite again"
            raise DataError(f"{where}: schema {schema}; this harness reads {RECORD_SCHEMA}; {advice}")
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, AttributeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{where}: not a {kind.__name__} ({error}); the file is damaged, run the suite again"
        ) from error
