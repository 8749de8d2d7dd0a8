"""A run in short, for programs: the documented `summary.json` (docs/summary.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from harness.records import Run
from harness.report.rows import Row, Timing

SUMMARY_SCHEMA = 1


def summary_from_rows(run: Run, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the summary of a run; its cases in the rows' order."""
    return {
        "schema": SUMMARY_SCHEMA,
        "run": {
            "id": run.id,
            "started_at": run.started_at,
            "finished_at": run.finished_at,
            "command": run.command,
            "options": run.options,
            "skipped_backends": run.skipped,
        },
        "environment": msgspec.to_builtins(run.environment),
        "cases": [_case_summary(row) for row in rows],
    }


def summary_bytes(run: Run, rows: Sequence[Row]) -> bytes:
    """Return the summary as it is stored: JSON, a key a line."""
    return msgspec.json.format(msgspec.json.encode(summary_from_rows(run, rows)), indent=1)


def _case_summary(row: Row) -> dict[str, Any]:
    record, case = row.record, row.record.case
    return {
        "id": case.id,
        "model": case.model,
        "backend": case.backend,
        "precision": case.precision.value,
        "recipe": case.recipe,
        "device": case.device,
        "status": record.status.value,
        "outcome": row.standing.value,
        "gate": row.gate,
        "finding": row.finding,
        "reason": record.reason,
        "effective_precision": msgspec.to_builtins(record.effective_precision),
        "accuracy": _accuracy_summary(row) if record.accuracy else None,
        "latency": {str(timing.latency.batch_size): _latency_summary(timing) for timing in row.timings},
        "build_ns": record.engine.build_ns if record.engine else None,
        "engine_bytes": record.engine.engine_bytes if record.engine else None,
        "flags": list(record.flags),
        "verdicts": [msgspec.to_builtins(verdict) for verdict in record.verdicts],
    }


def _accuracy_summary(row: Row) -> dict[str, Any] | None:
    accuracy = row.record.accuracy
    if accuracy is None:
        return None
    return {
        "dataset": accuracy.images.dataset,
        "split": accuracy.images.split,
        "first": accuracy.images.first,
        "n_images": accuracy.n_images,
        "top1": row.top1,
        "top5": accuracy.top5,
        "top1_low": row.top1_low,
        "top1_high": row.top1_high,
        "ties": accuracy.n_ties_top1,
        "n_trained_on": accuracy.n_trained_on,
        "fingerprint": accuracy.fingerprint,
        "outputs_sha256": accuracy.outputs_sha256,
    }


def _latency_summary(timing: Timing) -> dict[str, Any]:
    latency, times, ratio = timing.latency, timing.summary, timing.speed_up
    return {
        "p50_ns": times.p50 if times else None,
        "p90_ns": times.p90 if times else None,
        "p90_interval_ns": [times.p90_low, times.p90_high] if times and times.p90 is not None else None,
        "p99_ns": times.p99 if times else None,
        "p99_interval_ns": [times.p99_low, times.p99_high] if times and times.p99 is not None else None,
        "n_samples": times.n_samples if times else 0,
        "clock": latency.clock,
        "launch": latency.launch,
        "gated": latency.gated,
        "window": latency.window,
        "enqueue_ns": latency.enqueue_ns,
        "flags": list(latency.flags),
        "problem": timing.problem,
        "cpu_ns": latency.cpu_ns,
        "cores_used": latency.cores_used,
        "n_discarded_rounds": latency.n_discarded_rounds,
        "energy_mj_per_image": latency.energy_mj_per_image,
        "speedup": ratio.value if ratio else None,
        "speedup_low": ratio.low if ratio else None,
        "speedup_high": ratio.high if ratio else None,
    }
