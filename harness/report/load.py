"""Throughput in words and as columns: its rate, at how many inferences at once, by which clock and window."""

from __future__ import annotations

from typing import Any

from harness.errors import MeasurementError
from harness.records import Record, Throughput
from harness.report.format import format_number, format_time, format_time_interval, plural
from harness.stats.throughput import ThroughputSummary, summarize_throughput


def throughput_facts(record: Record) -> tuple[tuple[str, str], ...]:
    """Return (batch, sentence) of every batch size; of void times the reason."""
    return tuple((f"batch {one.batch_size}", _sentence(record, one)) for one in record.throughput)


def throughput_line(record: Record) -> str:
    """Return the case's throughput in one short line, "" where there is none that counts."""
    told = [
        f"batch {one.batch_size} {format_number(summary.images_per_s)} {record.counted}/s ({one.concurrency} at once)"
        for one in record.throughput
        if (summary := throughput_summary(record, one)) is not None
    ]
    return f"throughput {record.case.id}: {', '.join(told)}" if told else ""


def throughput_entry(record: Record, batch_size: int) -> dict[str, Any]:
    """Return the columns of one batch size, {} where it has none that count."""
    one = next((one for one in record.throughput if one.batch_size == batch_size), None)
    summary = None if one is None else throughput_summary(record, one)
    if one is None or summary is None:
        return {}
    return {
        "throughput_images_per_s": summary.images_per_s,
        "throughput_low_images_per_s": summary.low,
        "throughput_high_images_per_s": summary.high,
        "throughput_concurrency": one.concurrency,
        "throughput_p50_ns": summary.p50_ns,
        "throughput_p99_ns": summary.p99_ns,
        "throughput_clock": one.clock,
        "throughput_window": one.window,
    }


def throughput_summary(record: Record, one: Throughput) -> ThroughputSummary | None:
    """Return the summary of one batch size; None where the times are void, or no rates."""
    if record.times_void:
        return None
    try:
        return summarize_throughput(one.rounds_images_per_s.array(), one.latencies_ns.array())
    except MeasurementError:
        return None


def _sentence(record: Record, one: Throughput) -> str:
    summary = throughput_summary(record, one)
    if summary is None:
        return f"void: {record.times_void}" if record.times_void else "its values are no rates"
    low, high = summary.low, summary.high
    width = 0.0 if low is None or high is None else (high - low) / 2
    rate = f"{format_number(summary.images_per_s, half_width=width)} {record.counted}/s"
    if low is not None and high is not None:
        rate += f" ({format_number(low, half_width=width)} to {format_number(high, half_width=width)})"
    spans = f"{format_time(summary.p50_ns)} p50"
    if summary.p99_ns is not None:
        interval = format_time_interval(summary.p99_ns, summary.p99_low_ns, summary.p99_high_ns)
        spans += f", {format_time(summary.p99_ns)} p99" + (f" ({interval})" if interval else "")
    tried = ", ".join(f"{level.concurrency}: {format_number(level.images_per_s)}" for level in one.levels)
    rounds = plural(one.rounds_images_per_s.shape[0], "round")
    return (
        f"{rate} with {plural(one.concurrency, 'inference')} at once ({one.how}); each takes {spans} under that load; "
        f"{one.clock} clock, {one.window} window, {rounds}, {plural(one.n_runs, 'inference')}; tried {tried}"
    )
