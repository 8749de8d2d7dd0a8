"""Runs on disk: versioned JSON, written so that an interrupted run keeps every finished case.

    <report dir>/<run id>/run.json          the header
                          records.jsonl     one Record a line, forced to disk as it is made; packed if merged
                          images.json       labels and digests of the scored images, once for all records
                          summary.json      the documented summary (docs/summary.md); a merged run has none
                          baselines/        copies of the baselines that it was compared with
                          run.lock          held by the process that writes the run
    <report dir>/latest                     link to the newest run that was finished

Each of them carries its digest (`sealed`; a packed file has gzip's): what was changed later is named, not believed.
Of a run that was killed the last line may be torn; it is dropped and named.
"""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import msgspec
from filelock import FileLock, Timeout

from harness.errors import ConfigError, DataError
from harness.records import RECORD_SCHEMA, PackedArray, Record, Run
from harness.store.nights import FOLDER as NIGHTS
from harness.store.nights import write_night
from harness.store.sealed import Damaged, check_digest, check_line, decoded, sealed, values_of
from harness.store.slim import SharedArrays, slimmed
from harness.store.spreading import spread

RECORDS, PACKED, IMAGES = "records.jsonl", "records.jsonl.gz", "images.json"
MEMBER_LINES, MIN_MEMBERS = 50, 10  # of a packed file; from so many members on they are made on all CPUs
GZIP_LEVEL = 1  # level 6 gains 2 % for three times the time
BASELINES_FOLDER = "baselines"  # of a run: copies of what it was compared with
N_RECORDS = "n_records"  # in the header of a run that has ended: a line that is gone is missed
PATH_MARK = "/"  # a name with it is a path
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
                write_lines(self.folder, run, kept)
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

    def finish(self, run: Run, records: Sequence[Record], *, summary: bytes | None, is_of_history: bool = True) -> None:
        """Write the final header, the judged records and the summary; `latest` points here, never at a shard.

        `is_of_history`: it is a night among others, not one side of a comparison. Raises: OSError.
        """
        self._write(run, records, summary)
        with suppress(OSError):
            for outputs in (self.folder / "outputs").iterdir():  # of images, and of models of any graph
                outputs.unlink()
            (self.folder / "outputs").rmdir()
        if run.shard is not None or not is_of_history:
            return  # a part of a night is not the latest run
        write_night(self.folder.parent / NIGHTS, run, records)
        latest = self.folder.parent / "latest"
        link = self.folder.parent / f".latest-{os.getpid()}"
        link.symlink_to(self.folder.name, target_is_directory=True)
        os.replace(link, latest)

    def interrupt(self, run: Run, records: Sequence[Record], *, summary: bytes) -> None:
        """Write what there is of a run that was interrupted; what is needed to go on stays."""
        self._write(run, records, summary)

    def _write(self, run: Run, records: Sequence[Record], summary: bytes | None) -> None:
        with suppress(OSError):  # a full disk: what follows says so
            self._records.close()
        self.folder.mkdir(parents=True, exist_ok=True)  # somebody removed it while the run went on
        write_records(self.folder, run, records)
        if summary is not None:
            write_atomically(self.folder / "summary.json", sealed(summary))
        self.release()


def write_records(folder: Path, run: Run, records: Sequence[Record]) -> None:
    """Write a run's header and records, in place of those that are there. Raises: OSError."""
    if run.shard is not None:
        records = [slimmed(record) for record in records]
    write_lines(folder, run, records)
    write_atomically(folder / "run.json", _sealed(run, **{N_RECORDS: len(records)}))


def write_lines(folder: Path, run: Run, records: Sequence[Record]) -> None:
    """Write a run's records, and once for all of them what they share of the images. Raises: OSError."""
    shared = SharedArrays()
    shared.add(records)
    write_atomically(folder / IMAGES, _sealed(_Images(arrays=shared.arrays)))
    if run.n_shards:
        write_atomically(folder / PACKED, _packed(records, shared))
        (folder / RECORDS).unlink(missing_ok=True)
        return
    sealed_lines = (_sealed(shared.taken_from(record, with_predictions=False)) + b"\n" for record in records)
    write_atomically(folder / RECORDS, sealed_lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Images:
    """The file of arrays that records share."""

    arrays: dict[str, PackedArray] = field(default_factory=dict)


def _sealed(value: object, **more: int) -> bytes:
    data = json_from(value)
    return sealed(msgspec.json.encode({**values_of(data), **more}) if more else data)


def _packed(records: Sequence[Record], shared: SharedArrays) -> Iterator[bytes]:
    """Yield records as a gzip file of many members, which hold no time: the same records give the same bytes."""

    def member(number: int) -> bytes:
        some = records[number * MEMBER_LINES : (number + 1) * MEMBER_LINES]
        lines = (json_from(shared.taken_from(record, with_predictions=True)) + b"\n" for record in some)
        return gzip.compress(b"".join(lines), GZIP_LEVEL, mtime=0)

    return spread(member, -(-len(records) // MEMBER_LINES), at_a_time=1, min_items=MIN_MEMBERS)


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
    header, notes = _header(folder), list[str]()
    records = list(_records(folder, header, notes))
    return replace(header.run, notes=(*header.run.notes, *notes)), records


def load_header(folder: Path) -> Run:
    """Read a run's header. Raises: DataError when the folder holds no run, or one that cannot be read."""
    return _header(folder).run


def read_records(folder: Path) -> Iterator[Record]:
    """Yield a run's records, one after another. Raises: DataError as `load_run`."""
    return _records(folder, _header(folder), [])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    run: Run
    n_records: int | None  # of a run that has ended


def _header(folder: Path) -> _Header:
    header = folder / "run.json"
    try:
        data = header.read_bytes()
        has_records = any((folder / name).is_file() for name in (RECORDS, PACKED))
    except (FileNotFoundError, NotADirectoryError):
        has_records = False
    except OSError as error:
        raise DataError(f"{folder}: the run cannot be read ({error.strerror})") from error
    if not has_records:
        raise DataError(f"{folder} holds no run: run.json and records.jsonl are written by `pytest suites/`")
    run = _versioned(data, Run, str(header))
    n_records = values_of(data).get(N_RECORDS)
    return _Header(run=run, n_records=n_records if run.finished_at else None)


def _records(folder: Path, header: _Header, notes: list[str]) -> Iterator[Record]:
    """Yield the records of a run; what was dropped is added to the notes. Raises: DataError."""
    packed, images, n_found, torn = folder / PACKED, folder / IMAGES, 0, ""
    shared = SharedArrays(_images(images)) if images.is_file() else SharedArrays()
    is_packed = packed.is_file()
    path = packed if is_packed else folder / RECORDS
    try:
        with gzip.open(path) if is_packed else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                n_found += 1
                if not line.endswith(b"\n"):  # only the last one can be so
                    torn = f"{path}:{number}"
                    continue
                yield _record(line.rstrip(b"\r\n"), f"{path}:{number}", shared, is_sealed=not is_packed)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: the file is damaged ({error}), run or merge it again") from error
    if header.n_records is not None and header.n_records != n_found:
        raise DataError(
            f"{path}: {n_found - bool(torn)} of {header.n_records} records are there; it is damaged, run the suite "
            "again"
        )
    if torn:
        _tell_torn(torn, header, notes)


def _tell_torn(place: str, header: _Header, notes: list[str]) -> None:
    if header.run.finished_at:
        raise DataError(f"{place}: the line is torn; the file is damaged, run the suite again")
    notes.append(f"{place}: the line was torn when the run was killed; it is dropped, its case is not in the records")


def _record(line: bytes, where: str, shared: SharedArrays, *, is_sealed: bool) -> Record:
    try:
        record = shared.given_to(_versioned(line, Record, where, is_sealed=is_sealed))
        for scores in (record.accuracy, record.emulation, record.samples):
            if scores is not None:
                scores.check()
    except DataError as error:
        if str(error).startswith(where):
            raise
        raise DataError(f"{where}: {error}; the file is damaged, run the suite again") from error
    return record


def _images(path: Path) -> dict[str, PackedArray]:
    try:
        data = path.read_bytes()
        check_digest(values_of(data))
        return decoded(data, _Images).arrays
    except (OSError, Damaged) as error:
        raise DataError(f"{path}: the file is damaged ({error}), run the suite again") from error


def previous_run(
    folder: Path, run: Run, records: Sequence[Record]
) -> tuple[tuple[Run, list[Record]] | None, tuple[str, ...]]:
    """Return the newest run beside `folder` that began before `run` and has a case in common with it, and notes.

    Runs that cannot be read are passed over, and named in the notes: an old damaged one must not cost the new one its
    report.
    Shards and merged runs are passed over too: they are no run of this machine's own.
    """
    keys, notes = {record.key for record in records}, []
    for header in sorted(folder.resolve().parent.glob("*/run.json"), reverse=True):
        if header.parent.name == "latest" or header.parent.is_symlink() or header.parent.name == folder.resolve().name:
            continue
        try:
            other = load_header(header.parent)
            if other.started_at >= run.started_at or not other.finished_at or other.shard or other.n_shards:
                continue
            other, found = load_run(header.parent)
        except DataError as error:
            notes.append(f"an earlier run is left out: {error}")
            continue
        if keys & {record.key for record in found}:
            return (other, found), tuple(notes)
    return None, tuple(notes)


class _Versioned(msgspec.Struct):
    """What is read of a line first: all else is passed over, which is several times as fast as reading it."""

    schema: object = None


def _versioned(data: bytes, kind: type[T], where: str, *, is_sealed: bool = True) -> T:
    try:
        schema = decoded(data, _Versioned).schema
        if schema != RECORD_SCHEMA:
            is_newer = isinstance(schema, int) and schema > RECORD_SCHEMA
            advice = "upgrade the harness" if is_newer else "run the suite again"
            raise DataError(f"{where}: schema {schema}; this harness reads {RECORD_SCHEMA}; {advice}")
        if is_sealed:
            check_line(data)
        return decoded(data, kind)
    except Damaged as error:
        raise DataError(
            f"{where}: not a {kind.__name__} ({error}); the file is damaged, run the suite again"
        ) from error
