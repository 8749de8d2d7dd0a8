"""A run in short, for programs: the documented `summary.json` (docs/summary.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from harness.records import EffectivePrecision, Environment, FireDrill, Record, Run, SampleScores, Status, Verdict
from harness.report.load import throughput_summary
from harness.report.rows import Row, Timing

SUMMARY_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRun:
    """The run as a whole; `options`: those that differ from the defaults."""

    id: str
    started_at: str
    finished_at: str
    command: str
    options: dict[str, str]
    skipped_backends: dict[str, str]
    fire_drill: FireDrill | None = None  # None: not run


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryAccuracy:
    """What was scored, and how it came out [fractions]."""

    dataset: str
    split: str
    first: int
    n_images: int
    top1: float | None
    top5: float | None
    top1_low: float | None
    top1_high: float | None
    ties: int
    n_trained_on: int
    fingerprint: str
    outputs_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryMetric:
    """One metric of samples [fraction, or its unit]; the first of a case leads."""

    name: str
    value: float
    low: float | None  # at 95 %
    high: float | None
    higher_is_better: bool
    is_fraction: bool  # of 0 to 1
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SummarySamples:
    """Which samples were scored, and how they came out."""

    task: str
    source: str
    n_samples: int
    fingerprint: str
    metrics: tuple[SummaryMetric, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryLatency:
    """The times of one batch size [ns per call]."""

    p50_ns: float | None
    p90_ns: float | None
    p90_interval_ns: tuple[float | None, float | None] | None  # at 95 %
    p99_ns: float | None
    p99_interval_ns: tuple[float | None, float | None] | None
    n_samples: int
    clock: str
    launch: str
    gated: bool
    window: str
    enqueue_ns: float | None
    flags: tuple[str, ...]
    problem: str  # why there are no times
    cpu_ns: float | None
    cores_used: float | None
    n_discarded_rounds: int
    energy_mj_per_image: float | None
    speedup: float | None
    speedup_low: float | None
    speedup_high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryThroughput:
    """The best of several inferences at once, at one batch size; rates in images/s or samples/s."""

    images_per_s: float
    low: float | None  # of its 95 % interval
    high: float | None
    concurrency: int
    how: str
    p50_ns: float
    p99_ns: float | None
    clock: str
    window: str
    levels: dict[str, float]  # inferences at once, as text -> images/s


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryCase:
    """One case; `latency`, `throughput`: batch size, as text, to what was measured at it."""

    id: str
    model: str
    backend: str
    precision: str
    recipe: str
    device: str
    status: Status
    outcome: str
    gate: str
    finding: str
    reason: str
    effective_precision: EffectivePrecision | None
    accuracy: SummaryAccuracy | None
    samples: SummarySamples | None
    latency: dict[str, SummaryLatency]
    throughput: dict[str, SummaryThroughput]
    import_ns: int | None
    build_ns: float | None
    load_ns: int | None
    first_inference_ns: int | None
    engine_bytes: int | None
    device_memory_bytes: int | None
    host_peak_bytes: int | None
    engine_cache: str | None
    flags: tuple[str, ...]
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All of summary.json but its digest."""

    schema: int
    run: SummaryRun
    environment: Environment
    cases: tuple[SummaryCase, ...]


def summary_from_rows(run: Run, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the summary of a run; its cases in the rows' order."""
    summary = Summary(
        schema=SUMMARY_SCHEMA,
        run=SummaryRun(
            id=run.id,
            started_at=run.started_at,
            finished_at=run.finished_at,
            command=run.command,
            options=run.options,
            skipped_backends=run.skipped,
            fire_drill=run.fire_drill,
        ),
        environment=run.environment,
        cases=tuple(_case_summary(row) for row in rows),
    )
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(summary))
    return found


def summary_bytes(run: Run, rows: Sequence[Row]) -> bytes:
    """Return the summary as it is stored: JSON, a key a line."""
    return msgspec.json.format(msgspec.json.encode(summary_from_rows(run, rows)), indent=1)


def _case_summary(row: Row) -> SummaryCase:
    record, case, engine = row.record, row.record.case, row.record.engine
    return SummaryCase(
        id=case.id,
        model=case.model,
        backend=case.backend,
        precision=case.precision.value,
        recipe=case.recipe,
        device=case.device,
        status=record.status,
        outcome=row.standing.value,
        gate=row.gate,
        finding=row.finding,
        reason=record.reason,
        effective_precision=record.effective_precision,
        accuracy=_accuracy_summary(row),
        samples=_samples_summary(record.samples),
        latency={str(timing.latency.batch_size): _latency_summary(timing) for timing in row.timings},
        throughput=_throughput_summaries(record),
        import_ns=engine.import_ns if engine else None,
        build_ns=engine.build_ns if engine else None,
        load_ns=engine.load_ns if engine else None,
        first_inference_ns=engine.first_inference_ns if engine else None,
        engine_bytes=engine.engine_bytes if engine else None,
        device_memory_bytes=engine.device_memory_bytes if engine else None,
        host_peak_bytes=engine.host_peak_bytes if engine else None,
        engine_cache=engine.cache if engine else None,
        flags=tuple(record.flags),
        verdicts=tuple(record.verdicts),
    )


def _accuracy_summary(row: Row) -> SummaryAccuracy | None:
    accuracy = row.record.accuracy
    if accuracy is None:
        return None
    return SummaryAccuracy(
        dataset=accuracy.images.dataset,
        split=accuracy.images.split,
        first=accuracy.images.first,
        n_images=accuracy.n_images,
        top1=row.top1,
        top5=accuracy.top5,
        top1_low=row.top1_low,
        top1_high=row.top1_high,
        ties=accuracy.n_ties_top1,
        n_trained_on=accuracy.n_trained_on,
        fingerprint=accuracy.fingerprint,
        outputs_sha256=accuracy.outputs_sha256,
    )


def _throughput_summaries(record: Record) -> dict[str, SummaryThroughput]:
    """Return what counts by batch size: a void one does not."""
    return {
        str(one.batch_size): SummaryThroughput(
            images_per_s=summary.images_per_s,
            low=summary.low,
            high=summary.high,
            concurrency=one.concurrency,
            how=one.how,
            p50_ns=summary.p50_ns,
            p99_ns=summary.p99_ns,
            clock=one.clock,
            window=one.window,
            levels={str(level.concurrency): level.images_per_s for level in one.levels},
        )
        for one in record.throughput
        if (summary := throughput_summary(record, one)) is not None
    }


def _samples_summary(scores: SampleScores | None) -> SummarySamples | None:
    if scores is None:
        return None
    return SummarySamples(
        task=scores.task,
        source=scores.source,
        n_samples=scores.n_samples,
        fingerprint=scores.fingerprint,
        metrics=tuple(
            SummaryMetric(
                name=metric.name,
                value=metric.value,
                low=metric.low,
                high=metric.high,
                higher_is_better=metric.higher_is_better,
                is_fraction=metric.is_fraction,
                unit=metric.unit,
            )
            for metric in scores.metrics
        ),
    )


def _latency_summary(timing: Timing) -> SummaryLatency:
    latency, times, ratio = timing.latency, timing.summary, timing.speed_up
    return SummaryLatency(
        p50_ns=times.p50 if times else None,
        p90_ns=times.p90 if times else None,
        p90_interval_ns=(times.p90_low, times.p90_high) if times and times.p90 is not None else None,
        p99_ns=times.p99 if times else None,
        p99_interval_ns=(times.p99_low, times.p99_high) if times and times.p99 is not None else None,
        n_samples=times.n_samples if times else 0,
        clock=latency.clock,
        launch=latency.launch,
        gated=latency.gated,
        window=latency.window,
        enqueue_ns=latency.enqueue_ns,
        flags=tuple(latency.flags),
        problem=timing.problem,
        cpu_ns=latency.cpu_ns,
        cores_used=latency.cores_used,
        n_discarded_rounds=latency.n_discarded_rounds,
        energy_mj_per_image=latency.energy_mj_per_image,
        speedup=ratio.value if ratio else None,
        speedup_low=ratio.low if ratio else None,
        speedup_high=ratio.high if ratio else None,
    )
