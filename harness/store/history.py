"""Stored runs as long series per case, and the nights on which a level changed with the versions that changed too.

Reads the `summary.json` of every run under a report folder; drawing is `harness.report`'s business. There is no cache
to go stale: 365 runs of 100 cases are read in about half a second (benchmarks/report_speed.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.stats.changes import find_steps
from harness.store.sealed import Damaged, check_digest, decoded, values_of

KNOWN_SCHEMA = 1  # of summary.json
LOG_RESOLUTION = 1e-3  # a latency is not compared finer than 0.1 %


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRun:
    """One stored run: when, on what, with which versions."""

    id: str
    started_at: str  # UTC, ISO 8601
    versions: dict[str, str] = field(default_factory=dict)  # library, driver, device, machine -> version or name


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number followed from run to run; `batch_size` only for a latency."""

    name: str  # top1 [fraction], p50_ns [ns] or engine_bytes [bytes]
    batch_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A lasting change of level, and what else changed between the runs on both sides of it."""

    case_id: str
    metric: Metric
    run_index: int  # first run of the new level
    before: float  # median of the old level
    after: float
    changed: dict[str, tuple[str, str]] = field(default_factory=dict)  # library -> versions before and after

    @property
    def is_worse(self) -> bool:
        """Tell whether the new level is the worse one: less accurate, slower or larger."""
        return self.after < self.before if self.metric.name == "top1" else self.after > self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Runs in order of time and float64[cases, runs] of every metric; NaN where a run has no value."""

    runs: tuple[HistoryRun, ...]
    case_ids: tuple[str, ...]
    values: dict[Metric, NDArray[np.float64]]
    n_images: NDArray[np.float64]  # float64[cases]: images behind the newest accuracy, NaN without one
    steps: tuple[Step, ...] = ()  # newest first
    notes: tuple[str, ...] = ()  # runs that could not be read or compared; one line each

    def version_changes(self) -> list[tuple[int, dict[str, tuple[str, str]]]]:
        """Return (index of the run, what changed since the run before it), oldest first."""
        pairs = ((index, _changed(self.runs, index - 1, index)) for index in range(1, len(self.runs)))
        return [(index, changed) for index, changed in pairs if changed]

    def series(self, case_id: str) -> dict[Metric, NDArray[np.float64]]:
        """Return float64[runs] of every metric of one case that has at least one value."""
        if case_id not in self.case_ids:
            return {}
        row = self.case_ids.index(case_id)
        return {metric: table[row] for metric, table in self.values.items() if np.isfinite(table[row]).any()}


class _RunHeader(msgspec.Struct):
    id: str
    started_at: str


class _EnvironmentSummary(msgspec.Struct):
    machine: str = ""
    device_name: str = ""
    driver: str = ""
    cuda_version: str = ""
    versions: dict[str, str] = {}


class _AccuracySummary(msgspec.Struct):
    top1: float | None = None
    n_images: int = 0
    fingerprint: str = ""


class _LatencySummary(msgspec.Struct):
    p50_ns: float | None = None
    window: str = ""
    launch: str = ""


class _CaseSummary(msgspec.Struct):
    id: str
    status: str = ""
    accuracy: _AccuracySummary | None = None
    latency: dict[int, _LatencySummary] = {}  # by batch size [images]
    engine_bytes: float | None = None


class _Summary(msgspec.Struct):
    schema: int
    run: _RunHeader
    environment: _EnvironmentSummary
    cases: list[_CaseSummary]


def load_history(reports_dir: Path, *, last: int = 365, until: str | None = None) -> History:
    """Read the newest `last` runs of a report folder that began at `until` [UTC, ISO 8601] or before.

    A run that is damaged or of a newer schema is left out and named in `notes`.
    Raises: DataError when the folder does not exist.
    """
    if not reports_dir.is_dir():
        raise DataError(f"{reports_dir} is no folder of runs; name the one that --report-dir wrote to")
    summaries: list[_Summary] = []
    notes: list[str] = []
    for path in sorted(reports_dir.glob("*/summary.json")):
        if path.parent.is_symlink():  # `latest`
            continue
        try:
            data = path.read_bytes()
            values = values_of(data)
            schema = values.get("schema")
            if isinstance(schema, int) and schema > KNOWN_SCHEMA:
                notes.append(f"{path} is left out: schema {schema} is newer than {KNOWN_SCHEMA}; upgrade harness")
                continue
            check_digest(values)
            summaries.append(decoded(data, _Summary))
        except (OSError, Damaged) as error:
            notes.append(f"{path} is left out: {error}")
    summaries.sort(key=lambda summary: (summary.run.started_at, summary.run.id))
    if until is not None:  # so that an old run's report, made again, does not know the future
        summaries = [summary for summary in summaries if summary.run.started_at <= until]
    return _history_from_summaries(summaries[-last:], notes)


def _history_from_summaries(summaries: Sequence[_Summary], notes: list[str]) -> History:
    runs = tuple(
        HistoryRun(id=summary.run.id, started_at=summary.run.started_at, versions=_versions(summary.environment))
        for summary in summaries
    )
    case_ids = tuple(dict.fromkeys(case.id for summary in reversed(summaries) for case in summary.cases))
    values, n_images, n_foreign = _tables(summaries, {case_id: row for row, case_id in enumerate(case_ids)})
    return history_of_series(
        runs=runs, case_ids=case_ids, values=values, n_images=n_images, n_foreign=n_foreign, notes=notes
    )


def history_of_series(
    *,
    runs: tuple[HistoryRun, ...],
    case_ids: tuple[str, ...],
    values: dict[Metric, NDArray[np.float64]],
    n_images: NDArray[np.float64],
    n_foreign: int = 0,
    notes: Sequence[str] = (),
) -> History:
    """Return series with their steps.

    values: float64[cases, runs] of every metric; n_images: float64[cases]; `n_foreign`: accuracies left out because
    they were scored on other images than the newest.
    """
    if n_foreign:
        notes = [
            *notes,
            f"{n_foreign} older accuracies are left out: they were scored on other images than the newest",
        ]
    values = dict(sorted(values.items(), key=_metric_order))
    return History(
        runs=runs,
        case_ids=case_ids,
        values=values,
        n_images=n_images,
        steps=tuple(_find_all_steps(runs, case_ids, values, n_images)),
        notes=tuple(notes),
    )


def _tables(
    summaries: Sequence[_Summary], rows: dict[str, int]
) -> tuple[dict[Metric, NDArray[np.float64]], NDArray[np.float64], int]:
    values: dict[Metric, NDArray[np.float64]] = {}
    n_images = np.full(len(rows), np.nan)
    fingerprints: dict[str, str] = {}
    n_foreign = 0

    def put(metric: Metric, row: int, column: int, value: float | None) -> None:
        if value is None:
            return
        if metric not in values:
            values[metric] = np.full((len(rows), len(summaries)), np.nan)
        values[metric][row, column] = value

    metrics: dict[int, Metric] = {}
    top1, size = Metric(name="top1"), Metric(name="engine_bytes")
    for column in range(len(summaries) - 1, -1, -1):  # newest first: its images are the ones that count
        for case in summaries[column].cases:
            row = rows[case.id]
            if case.accuracy is not None:
                known = fingerprints.setdefault(case.id, case.accuracy.fingerprint)
                if known == case.accuracy.fingerprint:
                    put(top1, row, column, case.accuracy.top1)
                    n_images[row] = n_images[row] if np.isfinite(n_images[row]) else case.accuracy.n_images
                else:
                    n_foreign += 1
            for batch, latency in case.latency.items():
                metric = metrics.get(batch) or metrics.setdefault(batch, Metric(name="p50_ns", batch_size=batch))
                put(metric, row, column, latency.p50_ns)
            put(size, row, column, case.engine_bytes)
    return values, n_images, n_foreign


def _metric_order(item: tuple[Metric, object]) -> tuple[int, int]:
    return ("top1", "p50_ns", "engine_bytes").index(item[0].name), item[0].batch_size or 0


def _versions(environment: _EnvironmentSummary) -> dict[str, str]:
    named = {
        "driver": environment.driver,
        "CUDA": environment.cuda_version,
        "device": environment.device_name,
        "machine": environment.machine,
    }
    return environment.versions | {name: value for name, value in named.items() if value}


def _changed(runs: Sequence[HistoryRun], before: int, after: int) -> dict[str, tuple[str, str]]:
    return changed_versions(runs[before].versions, runs[after].versions)


def changed_versions(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return name -> (before, after) of what differs; "" where one side lacks it."""
    names = sorted(before.keys() | after.keys())
    pairs = {name: (before.get(name, ""), after.get(name, "")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _find_all_steps(
    runs: tuple[HistoryRun, ...],
    case_ids: tuple[str, ...],
    values: dict[Metric, NDArray[np.float64]],
    n_images: NDArray[np.float64],
) -> Iterable[Step]:
    found: list[Step] = []
    for metric, table in values.items():
        # Latencies scatter in proportion to themselves, so their levels are sought on a log scale.
        fitted = np.log(np.where(table > 0, table, np.nan)) if metric.name == "p50_ns" else table
        for row, starts in enumerate(find_steps(fitted, resolution=_resolution(metric, n_images))):
            edges = [0, *starts, len(runs)]
            for before, start, stop in zip(edges, starts, edges[2:], strict=False):
                found.append(
                    Step(
                        case_id=case_ids[row],
                        metric=metric,
                        run_index=start,
                        before=float(np.nanmedian(table[row, before:start])),
                        after=float(np.nanmedian(table[row, start:stop])),
                        changed=_changed(runs, _last_known(table[row], start), start),
                    )
                )
    return sorted(found, key=lambda step: (-step.run_index, step.case_id, _metric_order((step.metric, None))))


def _last_known(series: NDArray[np.float64], start: int) -> int:
    known = np.flatnonzero(np.isfinite(series[:start]))
    return int(known[-1]) if known.size else max(start - 1, 0)


def _resolution(metric: Metric, n_images: NDArray[np.float64]) -> NDArray[np.float64]:
    if metric.name == "top1":
        return np.where(np.isfinite(n_images), 1 / np.maximum(np.nan_to_num(n_images), 1), 1e-4)
    return np.full(n_images.shape, LOG_RESOLUTION if metric.name == "p50_ns" else 1.0)
