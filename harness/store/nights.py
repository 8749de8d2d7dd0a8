"""History by night: one Parquet file a run, and one case's series out of years of them.

    <report dir>/history/night=2026-11-26/<run id>.parquet      a row a case, metric and batch size

Written at the end of every run but a shard's where pyarrow is installed (extra `history`); DuckDB reads it. Rows are
sorted by case, so that a series is a few pages of each file. Without the extra there are the runs' own summaries
(`harness.store.history`).
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError, DataError, MeasurementError, first_line
from harness.records import Environment, Record, Run
from harness.stats import round_medians
from harness.store.history import History, HistoryRun, Metric, history_of_series
from harness.store.spreading import spread

FOLDER = "history"
ROWS_A_GROUP = 16_384  # of a file: a series is in one group or two; more groups take longer to choose among
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
    values = (*_scores_of(record), *_times_of(record), *_costs_of(record))
    return tuple(value for value in values if math.isfinite(value.value))


def _scores_of(record: Record) -> Iterator[Value]:
    accuracy, samples = record.accuracy, record.samples
    if accuracy is not None and accuracy.n_images:
        top1 = Metric(name="top1")
        yield Value(metric=top1, value=accuracy.top1, n_images=accuracy.n_images, fingerprint=accuracy.fingerprint)
    if samples is None:
        return
    fp32 = record.case.source_on(record.case.backend, record.case.device).id
    found = {
        **{
            Metric(name="score" if one.higher_is_better else "error", of=one.name): one.value for one in samples.metrics
        },
        **{Metric(name="drift", of=one.output): one.median for one in record.tensor_drifts if one.against == fp32},
    }
    for metric, value in found.items():
        yield Value(metric=metric, value=value, n_images=samples.n_samples, fingerprint=samples.fingerprint)


def _times_of(record: Record) -> Iterator[Value]:
    for latency in record.valid_latencies:
        try:
            p50 = float(np.median(round_medians(latency.rounds_ns.array())))
        except MeasurementError:
            continue
        yield Value(metric=Metric(name="p50_ns", batch_size=latency.batch_size), value=p50)
    for found in record.throughput:
        rate = float(np.median(found.rounds_images_per_s.array().astype(np.float64)))
        yield Value(metric=Metric(name="images_per_s", batch_size=found.batch_size), value=rate)


def _costs_of(record: Record) -> Iterator[Value]:
    """Yield what an engine cost; one from the cache was not built."""
    engine = record.engine
    if engine is None:
        return
    named = {
        "build_ns": engine.build_ns if engine.was_built else 0,
        "engine_bytes": engine.engine_bytes,
        "host_peak_bytes": engine.host_peak_bytes,
        "device_memory_bytes": engine.device_memory_bytes,
    }
    yield from (Value(metric=Metric(name=name), value=float(number)) for name, number in named.items() if number)


def write_night(folder: Path, run: Run, records: Iterable[Record]) -> Path | None:
    """Write a run's rows, in place of what the same run wrote before; None where pyarrow is not installed.

    Raises: OSError.
    """
    if not has_parquet():
        return None
    import pyarrow
    from pyarrow import parquet

    cases = sorted((record for record in records if not record.is_reference), key=lambda record: record.key[::-1])
    values = spread(lambda place: values_of(cases[place]), len(cases), at_a_time=200)
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
            _column_of(found.metric),
            found.metric.batch_size or 0,
            found.value,
            found.n_images,
            found.fingerprint,
            record.status.value,
            run.id,
            run.started_at,
            versions,
        )


def _column_of(metric: Metric) -> str:
    """Return a metric's name as a night holds it, "score:mAP"; its batch size has a column of its own."""
    return f"{metric.name}:{metric.of}" if metric.of else metric.name


def metric_of_column(column: str, batch_size: int) -> Metric:
    """Return the metric that a night's column names."""
    name, _, of = column.partition(":")
    return Metric(name=name, batch_size=batch_size or None, of=of)


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
    rows = query_nights(folder, SERIES, [case_id, until, device]).fetchall()
    if not rows:
        raise DataError(f"{folder} has no case {case_id}{f' on a device type like {device}' if device else ''}")
    by_device: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        by_device.setdefault(row[0], []).append(row[1:])
    try:
        return {device: _history(case_id, found, last) for device, found in by_device.items()}
    except (ValueError, TypeError, AttributeError) as error:  # rows that no night of ours has
        raise DataError(f"{folder}: a file of a night is damaged ({' '.join(str(error).split())})") from error


def query_nights(folder: Path, sql: str, values: Sequence[object]) -> Any:
    """Run a query whose first value is the files of a folder's nights, and return DuckDB's result.

    Raises: DataError for a folder without nights, or a damaged file; ConfigError without DuckDB.
    """
    if not any(folder.glob("night=*/*.parquet")):
        raise DataError(f"{folder} holds no nights; they are written by every run where pyarrow is installed")
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise ConfigError(
            "history in Parquet needs DuckDB, which is not installed; pip install 'nn-engine-harness[history]'"
        ) from error
    try:
        connection = duckdb.connect()
        connection.execute("SET enable_progress_bar = false")  # it goes to stdout
        return connection.execute(sql, [str(folder / "night=*" / "*.parquet"), *values])
    except duckdb.Error as error:
        raise DataError(f"{folder}: {first_line(error)}; a file of a night is damaged") from error


def _history(case_id: str, rows: Sequence[tuple[Any, ...]], last: int) -> History:
    texts = list({(row[6], row[5]): row[7] for row in rows}.items())[-last:]
    known = {text: json.loads(text) for _, text in texts}  # versions stay as they are for many nights
    runs = [(key, known[text]) for key, text in texts]
    columns = {key: column for column, (key, _) in enumerate(runs)}
    newest = next((row[4] for row in reversed(rows) if row[4]), "")
    values: dict[Metric, NDArray[np.float64]] = {}
    n_images, n_foreign = np.full(1, np.nan), 0
    named: dict[tuple[str, int], NDArray[np.float64]] = {}
    for name, batch_size, value, images, fingerprint, run_id, started_at, _ in rows:
        if (started_at, run_id) not in columns:
            continue
        if fingerprint not in ("", newest):
            n_foreign += 1
            continue
        column = name, batch_size or 0
        if column not in named:
            named[column] = values[metric_of_column(*column)] = np.full((1, len(runs)), np.nan)
        named[column][0, columns[started_at, run_id]] = value
        if images:
            n_images[0] = images
    return history_of_series(
        runs=tuple(HistoryRun(id=key[1], started_at=key[0], versions=versions) for key, versions in runs),
        case_ids=(case_id,),
        values=values,
        n_images=n_images,
        n_foreign=n_foreign,
    )
