"""Runs on disk: versioned JSON, written so that an interrupted run keeps every finished case.

    <report dir>/<run id>/run.json          the header
                          records.jsonl     one Record a line, forced to disk as it is made
                          summary.json      the documented summary (docs/summary.md)
                          baselines/        copies of the baselines that it was compared with
                          run.lock          held by the process that writes the run
    <report dir>/latest                     link to the newest run that was finished

Each of them carries its digest (`sealed`): what was changed later is named, not believed. Of a run that was killed the
last line may be torn; it is dropped and named.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec
from filelock import FileLock, Timeout

from harness.errors import ConfigError, DataError
from harness.records import RECORD_SCHEMA, Record, Run
from harness.store.sealed import Damaged, check_digest, decoded, sealed, values_of

BASELINES_FOLDER = "baselines"  # of a run: copies of what it was compared with
N_RECORDS = "n_records"  # in the header of a run that has ended: a line that is gone is missed
PATH_MARK = "/"  # a name with it is a path
T = TypeVar("T")


def json_from(value: object) -> bytes:
    """Encode any of our dataclasses as compact JSON."""
    return msgspec.json.encode(value)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old or the new content, never a part."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # the name is not to outlive its content
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner reads
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


class RunStore:
    """The folder of one run, open for writing."""

    def __init__(self, report_dir: Path, run: Run, *, kept: Sequence[Record] | None = None) -> None:
        """Make the run's folder, or open that of a run that did not finish with the records `kept` of it.

        Raises: ConfigError when the report dir cannot be written.
        """
        self.folder = report_dir / run.id
        try:
            self.folder.mkdir(parents=True, exist_ok=kept is not None)
            self._lock = FileLock(self.folder / "run.lock", timeout=0)
            self._lock.acquire()
            (self.folder / "logs").mkdir(exist_ok=True)
            (self.folder / "outputs").mkdir(exist_ok=True)
            write_atomically(self.folder / "run.json", _sealed(run))
            if kept is not None:
                self._write_records(kept)
            self._records = (self.folder / "records.jsonl").open("ab")
        except Timeout as error:
            raise ConfigError(f"run {run.id} is being written by another process") from error
        except OSError as error:
            raise ConfigError(
                f"--report-dir {report_dir} cannot be written ({error.strerror}); name a folder you may write to"
            ) from error

    def release(self) -> None:
        """Let another process write the run."""
        self._lock.release()
        with suppress(OSError):
            (self.folder / "run.lock").unlink(missing_ok=True)

    def append(self, record: Record) -> None:
        """Write one record and force it to disk. Raises: ConfigError when it cannot be written."""
        try:
            self._records.write(_sealed(record) + b"\n")
            self._records.flush()
            os.fsync(self._records.fileno())
        except OSError as error:
            raise ConfigError(f"{self.folder}: {record.case.id} cannot be written ({error.strerror})") from error

    def finish(self, run: Run, records: Sequence[Record], *, summary: bytes) -> None:
        """Write the final header, the judged records and the summary, and point `latest` here."""
        self._write(run, records, summary)
        with suppress(OSError):
            for outputs in (self.folder / "outputs").glob("*.f32"):
                outputs.unlink()
            (self.folder / "outputs").rmdir()
        latest = self.folder.parent / "latest"
        link = self.folder.parent / f".latest-{os.getpid()}"
        link.symlink_to(self.folder.name, target_is_directory=True)
        os.replace(link, latest)

    def interrupt(self, run: Run, records: Sequence[Record], *, summary: bytes) -> None:
        """Write what there is of a run that was interrupted; what is needed to go on stays."""
        self._write(run, records, summary)

    def _write(self, run: Run, records: Sequence[Record], summary: bytes) -> None:
        with suppress(OSError):  # a full disk: what follows says so
            self._records.close()
        self.folder.mkdir(parents=True, exist_ok=True)  # somebody removed it while the run went on
        self._write_records(records)
        write_atomically(self.folder / "run.json", _sealed(run, **{N_RECORDS: len(records)}))
        write_atomically(self.folder / "summary.json", sealed(summary))
        self.release()

    def _write_records(self, records: Sequence[Record]) -> None:
        write_atomically(self.folder / "records.jsonl", b"".join(_sealed(record) + b"\n" for record in records))


def _sealed(value: object, **more: int) -> bytes:
    data = json_from(value)
    return sealed(msgspec.json.encode({**values_of(data), **more}) if more else data)


def find_unfinished(report_dir: Path, name: str) -> Path:
    """Return the folder of a run: by path, by name below the report dir, or the newest unfinished one for `latest`.

    Raises: ConfigError when there is none.
    """
    if name != "latest":
        folder = report_dir / name if PATH_MARK not in name else Path(name)
        if not (folder / "run.json").is_file():
            raise ConfigError(f"--resume={name}: {folder} holds no run")
        return folder
    for header in sorted(report_dir.glob("*/run.json"), reverse=True):
        with suppress(DataError, OSError):
            if not _versioned(header.read_bytes(), Run, str(header)).finished_at:
                return header.parent
    raise ConfigError(f"--resume=latest: every run in {report_dir} has finished")


def load_run(folder: Path) -> tuple[Run, list[Record]]:
    """Read a run's header and records; of an unfinished run a torn last line is dropped, and named in its notes.

    Raises: DataError when the folder holds no run, for a damaged file or line (named), or another schema.
    """
    header, lines = folder / "run.json", folder / "records.jsonl"
    try:
        data = header.read_bytes()
        run, content = _versioned(data, Run, str(header)), lines.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{folder} holds no run: run.json and records.jsonl are written by `pytest suites/`") from error
    except OSError as error:
        raise DataError(f"{folder}: the run cannot be read ({error.strerror})") from error
    whole, _, torn = content.rpartition(b"\n")
    records = [
        _record(line, f"{lines}:{number}") for number, line in enumerate(whole.split(b"\n"), start=1) if line.strip()
    ]
    expected = values_of(data).get(N_RECORDS)
    if run.finished_at and expected is not None and expected != len(records) + bool(torn.strip()):
        raise DataError(f"{lines}: {len(records)} of {expected} records are there; it is damaged, run the suite again")
    if torn.strip():
        place = f"{lines}:{len(whole.splitlines()) + 1}"
        if run.finished_at:
            raise DataError(f"{place}: the line is torn; the file is damaged, run the suite again")
        note = f"{place}: the line was torn when the run was killed; it is dropped, its case is not in the records"
        run = replace(run, notes=(*run.notes, note))
    return run, records


def _record(line: bytes, where: str) -> Record:
    record = _versioned(line, Record, where)
    try:
        for scores in (record.accuracy, record.emulation):
            if scores is not None:
                scores.check()
    except DataError as error:
        raise DataError(f"{where}: {error}; the file is damaged, run the suite again") from error
    return record


def previous_run(
    folder: Path, run: Run, records: Sequence[Record]
) -> tuple[tuple[Run, list[Record]] | None, tuple[str, ...]]:
    """Return the newest run beside `folder` that began before `run` and has a case in common with it, and notes.

    Runs that cannot be read are passed over, and named in the notes: an old damaged one must not cost the new one its
    report.
    """
    keys, notes = {record.key for record in records}, []
    for header in sorted(folder.resolve().parent.glob("*/run.json"), reverse=True):
        if header.parent.name == "latest" or header.parent.is_symlink() or header.parent.name == folder.resolve().name:
            continue
        try:
            other, found = load_run(header.parent)
        except DataError as error:
            notes.append(f"an earlier run is left out: {error}")
            continue
        if other.started_at < run.started_at and other.finished_at and keys & {record.key for record in found}:
            return (other, found), tuple(notes)
    return None, tuple(notes)


def _versioned(data: bytes, kind: type[T], where: str) -> T:
    try:
        values = values_of(data)
        schema = values.get("schema")
        if schema != RECORD_SCHEMA:
            is_newer = isinstance(schema, int) and schema > RECORD_SCHEMA
            advice = "upgrade the harness" if is_newer else "run the suite again"
            raise DataError(f"{where}: schema {schema}; this harness reads {RECORD_SCHEMA}; {advice}")
        check_digest(values)
        return decoded(data, kind)
    except Damaged as error:
        raise DataError(
            f"{where}: not a {kind.__name__} ({error}); the file is damaged, run the suite again"
        ) from error
