"""Runs on disk: versioned JSON, written so that an interrupted run keeps every finished case.

    <report dir>/<run id>/run.json          the header
                          records.jsonl     one Record a line, flushed as it is made; of a merged run records.jsonl.gz
                          images.json       labels and digests of the scored images, once for all records
                          summary.json      the documented summary (docs/summary.md); a merged run has none
                          baselines/        copies of the baselines that it was compared with
    <report dir>/latest                     link to the newest run

Only this module and `baselines` know JSON.
"""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from harness.errors import ConfigError, DataError
from harness.records import RECORD_SCHEMA, PackedArray, Record, Run
from harness.store.nights import FOLDER as NIGHTS
from harness.store.nights import write_night
from harness.store.slim import SharedArrays, slimmed

RECORDS, PACKED, IMAGES = "records.jsonl", "records.jsonl.gz", "images.json"
MEMBER_LINES, N_THREADS = 50, 2  # of a packed file; zlib lets other threads run
GZIP_LEVEL = 1  # level 6 gains 2 % for three times the time
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


class _Versioned(msgspec.Struct):
    """What is read of a line first: all else is passed over, which is several times as fast as reading it."""

    schema: Any = None


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

    def finish(self, run: Run, records: Sequence[Record], *, summary: bytes | None) -> None:
        """Write the final header, the judged records and the summary as it is; `latest` points here, never at a shard.

        Raises: OSError.
        """
        self._records.close()
        write_records(self.folder, run, records)
        if summary is not None:
            write_atomically(self.folder / "summary.json", summary)
        for outputs in (self.folder / "outputs").glob("*.f32"):
            outputs.unlink()
        (self.folder / "outputs").rmdir()
        if run.shard is not None:
            return  # a part of a night is not the latest run
        write_night(self.folder.parent / NIGHTS, run, records)
        latest = self.folder.parent / "latest"
        link = self.folder.parent / f".latest-{os.getpid()}"
        link.symlink_to(self.folder.name, target_is_directory=True)
        os.replace(link, latest)


def write_records(folder: Path, run: Run, records: Sequence[Record]) -> None:
    """Write a run's header and records, in place of those that are there. Raises: OSError."""
    if run.shard is not None:
        records = [slimmed(record) for record in records]
    shared = SharedArrays()
    shared.add(records)
    write_atomically(folder / IMAGES, json_from(shared.arrays))
    is_merged = run.n_shards > 0
    lines = (json_from(shared.taken_from(record, with_predictions=is_merged)) + b"\n" for record in records)
    write_atomically(folder / (PACKED if is_merged else RECORDS), _gzipped(lines) if is_merged else lines)
    if is_merged:
        (folder / RECORDS).unlink(missing_ok=True)
    write_atomically(folder / "run.json", json_from(run))


def _gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Compress pieces as one gzip file of many members, which hold no time: the same pieces give the same bytes.

    Members are made in threads of their own while the next pieces are encoded.
    """
    with ThreadPoolExecutor(N_THREADS) as pool:
        waiting: deque[Future[bytes]] = deque()
        for member in batched(pieces, MEMBER_LINES):
            waiting.append(pool.submit(gzip.compress, b"".join(member), GZIP_LEVEL, mtime=0))
            if len(waiting) > N_THREADS:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)


def batched(items: Iterable[T], n: int) -> Iterator[list[T]]:
    """Yield items in lists of n; the last one may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, n)):
        yield batch


def load_run(folder: Path) -> tuple[Run, list[Record]]:
    """Read a run's header and records.

    Raises: DataError when the folder holds no run, a damaged line (named), or a newer schema.
    """
    return load_header(folder), list(read_records(folder))


def load_header(folder: Path) -> Run:
    """Read a run's header. Raises: DataError when the folder holds no run, or one that cannot be read."""
    header = folder / "run.json"
    if not header.is_file() or not any((folder / name).is_file() for name in (RECORDS, PACKED)):
        raise DataError(f"{folder} holds no run: run.json and records.jsonl are written by `pytest suites/`")
    return _versioned(header.read_bytes(), Run, str(header))


def read_records(folder: Path) -> Iterator[Record]:
    """Yield a run's records, one after another. Raises: DataError for a damaged line (named), or a newer schema."""
    packed, images = folder / PACKED, folder / IMAGES
    shared = SharedArrays()
    if images.is_file():
        shared = SharedArrays(_decoded(images.read_bytes(), dict[str, PackedArray], str(images)))
    path = packed if packed.is_file() else folder / RECORDS
    with gzip.open(path) if packed.is_file() else path.open("rb") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield shared.given_to(_versioned(line.rstrip(b"\r\n"), Record, f"{path}:{number}"))
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: the file is damaged ({error}), merge the shards again") from error


def previous_run(folder: Path, run: Run, records: Sequence[Record]) -> tuple[Run, list[Record]] | None:
    """Return the newest run beside `folder` that began before `run` and has a case in common with it.

    Runs that cannot be read are passed over: an old damaged one must not cost the new one its report. So are shards and
    merged runs: they are no run of this machine's own.
    """
    keys = {record.key for record in records}
    for header in sorted(folder.resolve().parent.glob("*/run.json"), reverse=True):
        if header.parent.name == "latest" or header.parent.is_symlink() or header.parent.name == folder.resolve().name:
            continue
        try:
            other = load_header(header.parent)
            if other.started_at >= run.started_at or not other.finished_at or other.shard or other.n_shards:
                continue
            found = list(read_records(header.parent))
        except DataError:
            continue
        if keys & {record.key for record in found}:
            return other, found
    return None


def _versioned(data: bytes, kind: type[T], where: str) -> T:
    try:
        schema = msgspec.json.decode(data, type=_Versioned).schema
        if schema != RECORD_SCHEMA:
            is_newer = isinstance(schema, int) and schema > RECORD_SCHEMA
            advice = "upgrade the harness" if is_newer else "run the suite again"
            raise DataError(f"{where}: schema {schema}; this harness reads {RECORD_SCHEMA}; {advice}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(where, kind, error) from error
    return _decoded(data, kind, where)


def _decoded(data: bytes, kind: type[T], where: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(where, kind, error) from error


def _damaged(where: str, kind: type, error: Exception) -> DataError:
    return DataError(f"{where}: not a {kind.__name__} ({error}); the file is damaged, run the suite again")
