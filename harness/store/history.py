"""Stored runs as long series per case, and the nights on which a level changed with the versions that changed too.

Reads the `summary.json` of every run under a report folder; drawing is `harness.report`'s business. There is no cache
to go stale: 365 runs of 100 cases are read in about half a second (benchmarks/report_speed.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.stats.changes import find_steps
from harness.store.sealed import Damaged, check_digest, decoded, values_of

KNOWN_SCHEMA = 1  # of summary.json
LOG_RESOLUTION = 1e-3  # a time, a score and the like are not compared finer than 0.1 %


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRun:
    """One stored run: when, on what, with which versions."""

    id: str
    started_at: str  # UTC, ISO 8601
    versions: dict[str, str] = field(default_factory=dict)  # library, driver, device, machine -> version or name


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricKind:
    """What holds for a number whatever case it is of."""

    words: str
    unit: str  # fraction, number, ns, bytes or images/s
    higher_is_better: bool = False
    is_relative: bool = True  # it scatters in proportion to itself: its levels are sought on a log scale


METRIC_KINDS = {  # in the order in which they are told
    "top1": MetricKind(words="top-1", unit="fraction", higher_is_better=True, is_relative=False),
    "score": MetricKind(words="score", unit="number", higher_is_better=True, is_relative=False),
    "error": MetricKind(words="error", unit="number", is_relative=False),
    "drift": MetricKind(words="drift from FP32", unit="fraction", is_relative=False),  # it may be 0
    "p50_ns": MetricKind(words="latency p50", unit="ns"),
    "images_per_s": MetricKind(words="throughput", unit="images/s", higher_is_better=True),
    "build_ns": MetricKind(words="build time", unit="ns"),
    "engine_bytes": MetricKind(words="engine size", unit="bytes", is_relative=False),
    "host_peak_bytes": MetricKind(words="peak host memory", unit="bytes"),
    "device_memory_bytes": MetricKind(words="device memory", unit="bytes", is_relative=False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number followed from run to run."""

    name: str  # of METRIC_KINDS
    batch_size: int | None = None  # of a latency or throughput [images]
    of: str = ""  # of a score or error: the task's metric, such as mAP; of a drift: the output
    unit: str = ""  # of a score or error, where it is known: "fraction", or its task's word for it, such as "cm"

    @property
    def is_fraction(self) -> bool:
        """Tell whether it lies between 0 and 1."""
        return "fraction" in (self.unit, self.kind.unit)

    @property
    def is_share(self) -> bool:
        """Tell whether it is a share of images or samples, which moves by one of them at least; a drift is none."""
        return self.name == "top1" or self.unit == "fraction"

    @property
    def kind(self) -> MetricKind:
        """Return what holds for all numbers of its name."""
        return METRIC_KINDS[self.name]


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
        return self.after < self.before if self.metric.kind.higher_is_better else self.after > self.before


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


class _MetricSummary(msgspec.Struct):
    name: str
    value: float | None = None
    higher_is_better: bool = True
    is_fraction: bool = True
    unit: str = ""


class _SamplesSummary(msgspec.Struct):
    n_samples: int = 0
    fingerprint: str = ""
    metrics: list[_MetricSummary] = []  # the first leads


class _LatencySummary(msgspec.Struct):
    p50_ns: float | None = None
    window: str = ""
    launch: str = ""


class _CaseSummary(msgspec.Struct):
    id: str
    status: str = ""
    accuracy: _AccuracySummary | None = None
    samples: _SamplesSummary | None = None
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

    def put_score(metric: Metric, row: int, column: int, value: float | None, *, n: int, of: tuple[str, str]) -> bool:
        """Keep a score of the newest run's images or samples; tell whether it was one. `of`: case, fingerprint."""
        if fingerprints.setdefault(*of) != of[1]:
            return False
        put(metric, row, column, value)
        n_images[row] = n_images[row] if np.isfinite(n_images[row]) else n
        return True

    metrics: dict[int, Metric] = {}
    size = Metric(name="engine_bytes")
    for column in range(len(summaries) - 1, -1, -1):  # newest first: its images are the ones that count
        for case in summaries[column].cases:
            row = rows[case.id]
            if (found := case.accuracy) is not None:
                of = (case.id, found.fingerprint)
                n_foreign += not put_score(Metric(name="top1"), row, column, found.top1, n=found.n_images, of=of)
            elif case.samples is not None and case.samples.metrics:
                leading, of = case.samples.metrics[0], (case.id, case.samples.fingerprint)
                score, n = _score(leading), case.samples.n_samples
                n_foreign += not put_score(score, row, column, leading.value, n=n, of=of)
            for batch, latency in case.latency.items():
                metric = metrics.get(batch) or metrics.setdefault(batch, Metric(name="p50_ns", batch_size=batch))
                put(metric, row, column, latency.p50_ns)
            put(size, row, column, case.engine_bytes)
    return values, n_images, n_foreign


def _score(metric: _MetricSummary) -> Metric:
    name = "score" if metric.higher_is_better else "error"
    return Metric(name=name, of=metric.name, unit="fraction" if metric.is_fraction else metric.unit)


def _metric_order(item: tuple[Metric, object]) -> tuple[int, str, int]:
    return [*METRIC_KINDS].index(item[0].name), item[0].of, item[0].batch_size or 0


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
    for (metric, table), of_metric in zip(values.items(), _steps_of_all(values, n_images), strict=True):
        for row, starts in enumerate(of_metric):
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


def steps_of(metric: Metric, table: NDArray[np.float64], n_images: NDArray[np.float64]) -> list[list[int]]:
    """Return, for each series of a metric, the runs at which a new level begins.

    table: float64[series, runs], NaN where a run has no value; n_images: float64[series], behind an accuracy.
    """
    return _steps_of_all({metric: table}, n_images)[0]


def _steps_of_all(values: Mapping[Metric, NDArray[np.float64]], n_images: NDArray[np.float64]) -> list[list[list[int]]]:
    """Return `steps_of` of each metric. All are fitted at once: a fit takes as long for ten series as for one."""
    n_series = len(n_images)
    if not (values and n_series):
        return [[] for _ in values]
    fitted = [
        np.log(np.where(table > 0, table, np.nan)) if metric.kind.is_relative else table
        for metric, table in values.items()
    ]
    resolution = [_resolution(metric, table, n_images) for metric, table in values.items()]
    starts = find_steps(np.concatenate(fitted), resolution=np.concatenate(resolution))
    return [starts[place : place + n_series] for place in range(0, len(starts), n_series)]


def _resolution(metric: Metric, table: NDArray[np.float64], n_images: NDArray[np.float64]) -> NDArray[np.float64]:
    if metric.kind.is_relative:
        return np.full(n_images.shape, LOG_RESOLUTION)
    if metric.is_share:
        return np.where(np.isfinite(n_images), 1 / np.maximum(np.nan_to_num(n_images), 1), 1e-4)
    if metric.kind.unit == "bytes":
        return np.full(n_images.shape, 1.0)
    sizes = np.abs(np.where(np.isfinite(table), table, 0.0)).max(axis=1, initial=0.0)
    return np.asarray(LOG_RESOLUTION * np.maximum(sizes, np.finfo(float).tiny), np.float64)
