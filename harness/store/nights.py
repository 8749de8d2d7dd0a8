"""History by night: one Parquet file a run, and one case's series out of years of them.

    <report dir>/history/night=2026-11-26/<run id>.parquet      a row a case, metric and batch size

Written at the end of every run but a shard's where pyarrow is installed (extra `history`); DuckDB reads it. Rows are
sorted by case, so that a series is a few pages of each file. Without the extra there are the runs' own summaries
(`harness.store.history`).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError, DataError, MeasurementError
from harness.records import Environment, Record, Run
from harness.stats import round_medians
from harness.store.history import History, HistoryRun, Metric, history_of_series

FOLDER = "history"
ROWS_A_GROUP = 4096  # of a file: a series is in one group, and the others are not read
N_THREADS = 2  # unpacking and sorting let each other run
COLUMNS = (
    "case_id",
    "device_type",
    "metric",
    "batch_size",
    "value",
    "n_images",
    "fingerprint",
    "status",
    "run_id",
    "started_at",
    "versions",
)
SERIES = """
    SELECT device_type, metric, batch_size, value, n_images, fingerprint, run_id, started_at, versions
    FROM read_parquet(?, hive_partitioning = false)
    WHERE case_id = ? AND started_at <= ? AND contains(device_type, ?)
    ORDER BY device_type, started_at, run_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One number of one case on one night."""

    metric: Metric
    value: float
    n_images: int = 0  # behind an accuracy
    fingerprint: str = ""  # of these images


def has_parquet() -> bool:
    """Tell whether history can be written as Parquet here."""
    return importlib.util.find_spec("pyarrow") is not None


def values_of(record: Record) -> tuple[Value, ...]:
    """Return the numbers of a case that are followed from night to night; times that are no times are none of them."""
    found: list[Value] = []
    accuracy = record.accuracy
    if accuracy is not None and accuracy.n_images:
        found.append(
            Value(
                metric=Metric(name="top1"),
                value=accuracy.top1,
                n_images=accuracy.n_images,
                fingerprint=accuracy.fingerprint,
            )
        )
    for latency in record.valid_latencies:
        try:
            p50 = float(np.median(round_medians(latency.rounds_ns.array())))
        except MeasurementError:
            continue
        found.append(Value(metric=Metric(name="p50_ns", batch_size=latency.batch_size), value=p50))
    if record.engine is not None and record.engine.engine_bytes:
        found.append(Value(metric=Metric(name="engine_bytes"), value=float(record.engine.engine_bytes)))
    return tuple(found)


def write_night(folder: Path, run: Run, records: Iterable[Record]) -> Path | None:
    """Write a run's rows, in place of what the same run wrote before; None where pyarrow is not installed.

    Raises: OSError.
    """
    if not has_parquet():
        return None
    import pyarrow
    from pyarrow import parquet

    cases = sorted((record for record in records if not record.is_reference), key=lambda record: record.key[::-1])
    with ThreadPoolExecutor(N_THREADS) as pool:
        values = pool.map(values_of, cases, chunksize=1)
        rows = [row for case, found in zip(cases, values, strict=True) for row in _rows(run, case, found)]
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True)) if rows else {}
    if not columns:
        return None
    place = folder / f"night={run.started_at[:10]}"
    place.mkdir(parents=True, exist_ok=True)
    path, temporary = place / f"{run.id}.parquet", place / f".{run.id}.parquet"
    parquet.write_table(pyarrow.table(columns), temporary, compression="zstd", row_group_size=ROWS_A_GROUP)
    temporary.replace(path)
    return path


def _rows(run: Run, record: Record, values: Sequence[Value]) -> Iterator[tuple[Any, ...]]:
    versions = _versions_text(record.environment, run)
    for found in values:
        yield (
            record.case.id,
            record.environment.device_type,
            found.metric.name,
            found.metric.batch_size or 0,
            found.value,
            found.n_images,
            found.fingerprint,
            record.status.value,
            run.id,
            run.started_at,
            versions,
        )


def _versions_text(environment: Environment, run: Run) -> str:
    """Return what may explain a change, as JSON: libraries, driver, CUDA, commit of the checkout."""
    named = {
        "driver": environment.driver,
        "CUDA": environment.cuda_version,
        "commit": (environment.commit or run.environment.commit)[:12],
    }
    return json.dumps(environment.versions | {name: text for name, text in named.items() if text}, sort_keys=True)


def read_series(
    folder: Path, case_id: str, *, last: int = 365, until: str = "9999", device: str = ""
) -> dict[str, History]:
    """Return the newest `last` runs of one case by device type, each with its steps.

    `until`: ISO 8601 moment; what began later is left out. `device`: a part of the names of the types that are wanted.
    Raises: DataError for a folder without nights, or a case that is in none; ConfigError without DuckDB.
    """
    if not any(folder.glob("night=*/*.parquet")):
        raise DataError(f"{folder} holds no nights; they are written by every run where pyarrow is installed")
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise ConfigError(
            "history in Parquet needs DuckDB, which is not installed; pip install 'nn-engine-harness[history]'"
        ) from error
    with duckdb.connect() as connection:
        try:
            rows = connection.execute(
                SERIES, [str(folder / "night=*" / "*.parquet"), case_id, until, device]
            ).fetchall()
        except duckdb.Error as error:
            raise DataError(f"{folder}: {str(error).splitlines()[0]}; a file of a night is damaged") from error
    if not rows:
        raise DataError(f"{folder} has no case {case_id}{f' on a device type like {device}' if device else ''}")
    by_device: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        by_device.setdefault(row[0], []).append(row[1:])
    return {device: _history(case_id, found, last) for device, found in by_device.items()}


def _history(case_id: str, rows: Sequence[tuple[Any, ...]], last: int) -> History:
    runs = list({(row[6], row[5]): json.loads(row[7]) for row in rows}.items())[-last:]
    columns = {key: column for column, (key, _) in enumerate(runs)}
    newest = next((row[4] for row in reversed(rows) if row[0] == "top1"), "")
    values: dict[Metric, NDArray[np.float64]] = {}
    n_images, n_foreign = np.full(1, np.nan), 0
    for name, batch_size, value, images, fingerprint, run_id, started_at, _ in rows:
        if (started_at, run_id) not in columns:
            continue
        if name == "top1" and fingerprint != newest:
            n_foreign += 1
            continue
        metric = Metric(name=name, batch_size=batch_size or None)
        series = values.setdefault(metric, np.full((1, len(runs)), np.nan))
        series[0, columns[started_at, run_id]] = value
        if name == "top1":
            n_images[0] = images
    return history_of_series(
        runs=tuple(HistoryRun(id=key[1], started_at=key[0], versions=versions) for key, versions in runs),
        case_ids=(case_id,),
        values=values,
        n_images=n_images,
        n_foreign=n_foreign,
    )
