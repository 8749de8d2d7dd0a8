"""What a case found, as the properties of its test in junit.xml: CI systems show and trend them."""

from __future__ import annotations

from harness.records import Record
from harness.report.model import rows_of_cases
from harness.report.rows import Change, Row


def properties_of_record(record: Record) -> list[tuple[str, str]]:
    """Return what junit.xml shall say of a case."""
    return junit_properties(*rows_of_cases([record]))


def junit_properties(row: Row) -> list[tuple[str, str]]:
    """Return (name, value) pairs of one case; raw numbers with their unit in the name, nothing that is missing."""
    record, case = row.record, row.record.case
    pairs: list[tuple[str, object]] = [
        ("case", case.id),
        ("model", case.model),
        ("backend", case.backend),
        ("precision_asked", case.precision.value),
        ("precision_ran", row.ran_as),
        ("status", record.status.value),
        ("verdict", row.standing.word),
        ("gate", row.gate),
        ("finding", row.finding),
        ("command", record.command),
    ]
    if record.accuracy is not None:
        pairs += [("top1", row.top1), ("top1_low", row.top1_low), ("top1_high", row.top1_high)]
        pairs += [("top5", record.accuracy.top5), ("n_images", record.accuracy.n_images)]
    if record.samples is not None:
        pairs += [(f"metric_{metric.name}", metric.value) for metric in record.samples.metrics]
        pairs.append(("n_samples", record.samples.n_samples))
    pairs += _change_pairs("fp32", row.against_fp32) + _change_pairs("baseline", row.against_baseline)
    for timing in row.timings:
        batch = f"b{timing.latency.batch_size}"
        if timing.summary is not None:
            summary = timing.summary
            pairs += [
                (f"timed_{batch}", timing.mode),
                (f"p50_ns_{batch}", summary.p50),
                (f"p90_ns_{batch}", summary.p90),
                (f"p99_ns_{batch}", summary.p99),
            ]
        if timing.speed_up is not None:
            ratio = timing.speed_up
            pairs += [(f"speed_up_{batch}", ratio.value), (f"speed_up_low_{batch}", ratio.low)]
            pairs.append((f"speed_up_high_{batch}", ratio.high))
    if record.engine is not None:
        pairs += [("build_ns", record.engine.build_ns), ("engine_bytes", record.engine.engine_bytes)]
    pairs += [(f"gate_{verdict.gate}", f"{verdict.outcome}: {verdict.message}") for verdict in record.verdicts]
    return [(name, _text(value)) for name, value in pairs if value is not None and value != ""]


def _change_pairs(name: str, change: Change | None) -> list[tuple[str, object]]:
    if change is None:
        return []
    return [(f"lost_{name}", change.n_lost), (f"gained_{name}", change.n_gained)]


def _text(value: object) -> str:
    text = repr(value) if isinstance(value, float) else str(value)
    # XML 1.0 has no form for most control characters, and a writer that meets one fails.
    return "".join(character if character.isprintable() else " " for character in text)
