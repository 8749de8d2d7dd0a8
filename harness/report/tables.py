"""All cases as one table, a row a case and batch size, for spreadsheets and notebooks: CSV or Parquet by pandas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.records import Latency, Record
from harness.report.load import throughput_entry
from harness.report.rows import Change, Row, Timing

if TYPE_CHECKING:
    import pandas as pd

# A spreadsheet runs a cell that opens with one of these. Source: OWASP, CSV Injection.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def frame_from_rows(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one row a case and batch size; a case without latency has one row. Units are in the column names.

    Columns are the same for every run. A missing number is NaN or <NA>, never 0.
    """
    import pandas as pd

    entries = [_entry(row, timing) for row in rows for timing in row.timings or (None,)]
    kinds: dict[Any, Any] = dict(COLUMNS)
    frame: pd.DataFrame = pd.DataFrame(entries, columns=list(COLUMNS)).astype(kinds)
    return frame


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write all cases as UTF-8 CSV; a text that a spreadsheet would run as a formula is quoted with an apostrophe."""
    frame = frame_from_rows(rows)
    for name, kind in COLUMNS.items():
        if kind == "string":
            frame[name] = frame[name].map(_defused, na_action="ignore")
    frame.to_csv(path, index=False)


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """Write all cases as Parquet. Raises: ConfigError without pyarrow."""
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{path}: Parquet needs pyarrow, which is not installed; "
            "pip install 'nn-engine-harness[parquet]', or write .csv"
        ) from error
    frame_from_rows(rows).to_parquet(path, index=False, engine="pyarrow")


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write all cases in the format that the file's name says. Raises: ConfigError for neither .csv nor .parquet."""
    writers = {".csv": write_csv, ".parquet": write_parquet}
    if path.suffix not in writers:
        raise ConfigError(f"{path}: {path.suffix or 'a name without ending'} is no table; name a .csv or .parquet file")
    writers[path.suffix](rows, path)


COLUMNS = {
    "case": "string",
    "model": "string",
    "backend": "string",
    "precision": "string",
    "recipe": "string",
    "device": "string",
    "status": "string",
    "verdict": "string",
    "gate": "string",
    "finding": "string",
    "reason": "string",
    "ran_as": "string",
    "ran_share": "float64",
    "dataset": "string",
    "split": "string",
    "first_image": "Int64",
    "n_images": "Int64",
    "top1": "float64",
    "top1_low": "float64",
    "top1_high": "float64",
    "top5": "float64",
    "n_ties_top1": "Int64",
    "metric": "string",
    "metric_value": "float64",
    "metric_low": "float64",
    "metric_high": "float64",
    "metric_change_fp32": "float64",
    "n_scored_samples": "Int64",
    "lost_fp32": "Int64",
    "gained_fp32": "Int64",
    "p_value_fp32": "float64",
    "quantization_lost": "Int64",
    "kernel_lost": "Int64",
    "drift_rmse": "float64",
    "drift_cosine": "float64",
    "batch_size": "Int64",
    "p50_ns": "float64",
    "p50_low_ns": "float64",
    "p50_high_ns": "float64",
    "p90_ns": "float64",
    "p90_low_ns": "float64",
    "p90_high_ns": "float64",
    "p99_ns": "float64",
    "p99_low_ns": "float64",
    "p99_high_ns": "float64",
    "n_samples": "Int64",
    "n_rounds": "Int64",
    "speed_up": "float64",
    "speed_up_low": "float64",
    "speed_up_high": "float64",
    "clock": "string",
    "launch": "string",
    "gated": "boolean",
    "window": "string",
    "enqueue_ns": "float64",
    "latency_flags": "string",
    "latency_problem": "string",
    "throughput_images_per_s": "float64",
    "throughput_low_images_per_s": "float64",
    "throughput_high_images_per_s": "float64",
    "throughput_concurrency": "Int64",
    "throughput_p50_ns": "float64",
    "throughput_p99_ns": "float64",
    "throughput_clock": "string",
    "throughput_window": "string",
    "cpu_ns": "float64",
    "cores_used": "float64",
    "clock_quantum_ns": "float64",
    "clock_empty_ns": "float64",
    "clock_drift": "float64",
    "n_discarded_rounds": "Int64",
    "stolen_cpu": "float64",
    "others_cpu": "float64",
    "card_uuid": "string",
    "sm_clock_mhz": "float64",
    "temperature_c": "float64",
    "power_w": "float64",
    "energy_mj_per_image": "float64",
    "energy_low_mj_per_image": "float64",
    "energy_high_mj_per_image": "float64",
    "energy_saving": "float64",
    "import_ns": "Int64",
    "build_ns": "Int64",
    "load_ns": "Int64",
    "first_inference_ns": "Int64",
    "engine_cache": "string",
    "engine_bytes": "Int64",
    "device_memory_bytes": "Int64",
    "host_peak_bytes": "Int64",
    "n_contexts": "Int64",
    "artifact_sha256": "string",
    "recorded_at": "string",
    "machine": "string",
    "driver": "string",
    "cuda_version": "string",
    "versions": "string",
    "flags": "string",
}


def _entry(row: Row, timing: Timing | None) -> dict[str, Any]:
    record = row.record
    case, environment = record.case, record.environment
    versions = " ".join(f"{name}={version}" for name, version in sorted(environment.versions.items()))
    return {
        "case": case.id,
        "model": case.model,
        "backend": case.backend,
        "precision": case.precision.value,
        "recipe": case.recipe,
        "device": case.device,
        "status": record.status.value,
        "verdict": row.standing.word,
        "gate": row.gate or None,
        "finding": row.finding or None,
        "reason": record.reason or None,
        "ran_as": row.ran_as or None,
        "ran_share": row.ran_share,
        "artifact_sha256": record.artifact.sha256 if record.artifact else None,
        "recorded_at": record.recorded_at,
        "machine": environment.machine,
        "driver": environment.driver or None,
        "cuda_version": environment.cuda_version or None,
        "versions": versions,
        "flags": " ".join(record.flags) or None,
        **_accuracy_entry(row),
        **_metric_entry(row),
        **_engine_entry(record),
        **(_timing_entry(timing) if timing else {}),
        **(throughput_entry(record, timing.latency.batch_size) if timing else {}),
    }


def _accuracy_entry(row: Row) -> dict[str, Any]:
    record, change = row.record, row.against_fp32 or Change(against="")
    entry: dict[str, Any] = {
        "lost_fp32": change.n_lost,
        "gained_fp32": change.n_gained,
        "p_value_fp32": change.p_value,
        "quantization_lost": record.loss_split.quantization_lost if record.loss_split else None,
        "kernel_lost": record.loss_split.kernel_lost if record.loss_split else None,
        "drift_rmse": record.drift.rmse if record.drift else None,
        "drift_cosine": record.drift.cosine if record.drift else None,
    }
    accuracy = record.accuracy
    if accuracy is None:
        return entry
    images = accuracy.images
    return entry | {
        "dataset": images.dataset,
        "split": images.split,
        "first_image": images.first,
        "n_images": images.n_images,
        "top1": row.top1,
        "top1_low": row.top1_low,
        "top1_high": row.top1_high,
        "top5": accuracy.top5 if accuracy.n_images else None,
        "n_ties_top1": accuracy.n_ties_top1,
    }


def _metric_entry(row: Row) -> dict[str, Any]:
    """Return the leading metric of samples; its change is positive where it is better."""
    scores = row.record.samples
    if scores is None or scores.leading is None or row.samples is None:
        return {}
    dataset, _, split = scores.source.rpartition("/")
    change = row.samples.leading.against_fp32
    return {
        "dataset": dataset or scores.source,
        "split": split if dataset else None,
        "metric": scores.leading.name,
        "metric_value": scores.leading.value,
        "metric_low": scores.leading.low,
        "metric_high": scores.leading.high,
        "metric_change_fp32": change.change if change else None,
        "n_scored_samples": scores.n_samples,
    }


def _engine_entry(record: Record) -> dict[str, Any]:
    engine = record.engine
    if engine is None:
        return {}
    return {
        "import_ns": engine.import_ns,
        "build_ns": engine.build_ns,
        "load_ns": engine.load_ns,
        "first_inference_ns": engine.first_inference_ns,
        "engine_cache": engine.cache,
        "engine_bytes": engine.engine_bytes,
        "device_memory_bytes": engine.device_memory_bytes,
        "host_peak_bytes": engine.host_peak_bytes,
        "n_contexts": engine.n_contexts,
    }


def _timing_entry(timing: Timing) -> dict[str, Any]:
    latency, summary, ratio = timing.latency, timing.summary, timing.speed_up
    entry: dict[str, Any] = {
        "batch_size": latency.batch_size,
        "clock": latency.clock,
        "launch": latency.launch,
        "gated": latency.gated,
        "window": latency.window,
        "enqueue_ns": latency.enqueue_ns,
        "latency_flags": " ".join(latency.flags) or None,
        "latency_problem": timing.problem or None,
        **_trust_entry(latency),
    }
    if summary is not None:
        for name in ("p50", "p90", "p99"):
            entry |= {f"{part}_ns": getattr(summary, part) for part in (name, f"{name}_low", f"{name}_high")}
        entry |= {"n_samples": summary.n_samples, "n_rounds": summary.n_rounds}
    if ratio is not None:
        entry |= {"speed_up": ratio.value, "speed_up_low": ratio.low, "speed_up_high": ratio.high}
    return entry


def _trust_entry(latency: Latency) -> dict[str, Any]:
    """Return what bears on whether a time can be believed, and what it costs."""
    audit, seen, energy = latency.audit, latency.conditions, latency.energy
    card = seen.card if seen else None
    entry: dict[str, Any] = {
        "cpu_ns": latency.cpu_ns,
        "cores_used": latency.cores_used,
        "n_discarded_rounds": latency.n_discarded_rounds,
    }
    if audit is not None:
        entry |= {"clock_quantum_ns": audit.quantum_ns, "clock_empty_ns": audit.empty_ns, "clock_drift": audit.drift}
    if seen is not None:
        entry |= {"stolen_cpu": seen.stolen, "others_cpu": seen.others}
    if card is not None:
        names = ("sm_clock_mhz", "temperature_c", "power_w")
        entry |= {"card_uuid": card.uuid, **{name: getattr(card, name) for name in names}}
    if energy is not None:
        entry |= {
            "energy_mj_per_image": latency.energy_mj_per_image,
            "energy_low_mj_per_image": min(energy.mj_per_image),
            "energy_high_mj_per_image": max(energy.mj_per_image),
            "energy_saving": energy.saving[0] if energy.saving else None,
        }
    return entry


def _defused(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
