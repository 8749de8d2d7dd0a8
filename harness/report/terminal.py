"""The table that ends a run in the terminal, and progress while it goes on."""

from __future__ import annotations

import io
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.protocols import Progress, no_progress
from harness.records import TIMED_OTHERWISE, Latency, Outcome, Record, Run, Status, Verdict
from harness.report.flags import ENQUEUE_BOUND, TOLD_IN_TERMINAL, latency_flag_text
from harness.report.format import (
    MISSING,
    format_bytes,
    format_fraction,
    format_fraction_interval,
    format_ratio,
    format_time,
    plural,
)
from harness.stats import ratio_of_rounds, summarize_latency, wilson_interval

UNBOUNDED_WIDTH = 1_000  # a row is one line: a narrow terminal wraps it, a log keeps it whole
PROGRESS_INTERVAL_S = 0.2
MAX_PROGRESS_WIDTH = 60  # beside pytest's own line; a wrapped text could not be taken back
FLAGGED = "‡"
STYLES = {"passed": "green", "failed": "bold red", "error": "bold red", "unsupported": "yellow"}


def summary_lines(records: Sequence[Record], *, color: bool = False) -> list[str]:
    """Return the table of a run, one row a case, and below it a line for every case that did not pass."""
    batch_sizes = sorted({latency.batch_size for record in records for latency in record.latencies})
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for name in ("model", "backend", "asked", "ran as"):
        table.add_column(name, no_wrap=True)
    for name in ("top-1 %", "95 % interval", "lost/won"):
        table.add_column(name, justify="right", no_wrap=True)
    has_split = any(record.loss_split for record in records)
    if has_split:
        table.add_column("quantization + kernels", justify="right", no_wrap=True)
    for size in batch_sizes:
        table.add_column(f"b{size} p50", justify="right", no_wrap=True)
        table.add_column("p99", justify="right", no_wrap=True)
        table.add_column("speed-up", justify="right", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for record in records:
        table.add_row(*_row(record, batch_sizes, has_split=has_split))
    lines = _rendered(table, color=color)
    return lines + _explanations(records)


def _row(record: Record, batch_sizes: Sequence[int], *, has_split: bool) -> list[Text]:
    case = record.case
    cells = [case.model, case.backend, case.asked, _ran_as(record), *_accuracy_cells(record)]
    if has_split:
        split = record.loss_split
        cells.append(
            f"{split.quantization_lost}/{split.quantization_gained} + {split.kernel_lost}/{split.kernel_gained}"
            if split
            else MISSING
        )
    by_size = {latency.batch_size: latency for latency in record.latencies}
    for size in batch_sizes:
        cells += _latency_cells(by_size.get(size))
    cells.append(format_bytes(record.engine.engine_bytes) if record.engine else MISSING)
    # Text, not markup: a model may be called "[red]".
    return [*(Text(cell) for cell in cells), Text(verdict_word(record), style=STYLES[record.status.value])]


def _ran_as(record: Record) -> str:
    effective = record.effective_precision
    if effective is None:
        return MISSING
    share = (effective.by_time or effective.by_layer).get(effective.main, 0.0)
    part = "" if share > 0.995 else f" {share:.0%}"
    return effective.main + part + ("*" if _short_note(record) else "")


def _accuracy_cells(record: Record) -> list[str]:
    accuracy = record.accuracy
    if accuracy is None:
        return [MISSING] * 3
    n = accuracy.n_images
    low, high = wilson_interval(int(accuracy.hits(1).sum()), n)
    seen = "†" if accuracy.n_trained_on else ""
    against = next((v for v in record.verdicts if v.gate == "fp32" and v.n_lost is not None), None)
    change = f"{against.n_lost}/{against.n_gained}" if against else MISSING
    return [
        format_fraction(accuracy.top1, n=n).removesuffix("%").strip() + seen,
        format_fraction_interval(low, high, n=n).removesuffix("%").strip(),
        change,
    ]


def _latency_cells(latency: Latency | None) -> list[str]:
    if latency is None:
        return [MISSING] * 3
    summary = summarize_latency(latency.rounds_ns.array())
    speedup = MISSING
    if TIMED_OTHERWISE in latency.flags:
        speedup = MISSING + FLAGGED
    elif latency.paired_rounds_ns is not None:
        ratio = ratio_of_rounds(latency.paired_rounds_ns.array(), latency.rounds_ns.array())
        speedup = format_ratio(ratio.value, low=ratio.low, high=ratio.high)
        if ratio.low is None or ratio.high is None or ratio.low < 1 < ratio.high:
            speedup = "~" + speedup
    p50 = format_time(summary.p50) + (FLAGGED if ENQUEUE_BOUND in latency.flags else "")
    return [p50, format_time(summary.p99) if summary.p99 else MISSING, speedup]


def verdict_word(record: Record) -> str:
    """Return the one word a reader looks for first, and what it is about."""
    if record.status is Status.ERROR:
        return "ERROR"
    if record.status is Status.UNSUPPORTED:
        return "unsupported"
    failing = [verdict for verdict in record.verdicts if verdict.is_failure]
    if failing:
        return f"{failing[0].outcome.value} {failing[0].gate}"
    if record.status is Status.FAILED:
        return "FAILED"
    inconclusive = [v for v in record.verdicts if v.outcome is Outcome.INCONCLUSIVE and v.gate != "latency"]
    return f"passed ({plural(len(inconclusive), 'inconclusive', 'inconclusive')})" if inconclusive else "passed"


def comparison_lines(runs: Sequence[Run], found: Sequence[tuple[str, Sequence[Verdict]]]) -> list[str]:
    """Return what was compared, a count per outcome, and a line for every verdict that is not SAME."""
    counts = Counter(verdict.outcome.value for _, verdicts in found for verdict in verdicts)
    lines = [f"{run.id}  {run.environment.machine}  {run.command}" for run in runs]
    lines.append(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "nothing to compare")
    for case_id, verdicts in found:
        for verdict in verdicts:
            if verdict.outcome is Outcome.SAME and not verdict.is_failure:
                continue
            lines.append(f"{verdict.outcome.value} {case_id} ({verdict.gate}): {verdict.message}")
            if verdict.advice:
                lines.append(f"    {verdict.advice}")
    return lines


def _short_note(record: Record) -> str:
    """Return why a case ran in another precision than asked; what ran beside it is the report's business."""
    effective = record.effective_precision
    if effective is None or effective.main == record.case.precision.value:
        return ""
    return "; ".join(part for part in effective.note.split("; ") if not part.startswith("beside them"))


def _explanations(records: Sequence[Record]) -> list[str]:
    lines = []
    if any(record.accuracy and record.accuracy.n_trained_on for record in records):
        lines.append("† scored (in part) on images the model was trained on: no measure of how well it generalises")
    lines += [f"* {note}" for note in sorted({_short_note(record) for record in records} - {""})]
    if any(record.latencies for record in records):
        lines.append(
            "lost/won: images against FP32 of the same backend, by quantization and by the engine's kernels; "
            "speed-up: over that FP32, run in turn with it round by round, ~ where its interval holds 1"
        )
    lines += _flag_lines(records)
    for record in records:
        lines += [f"note {record.case.id}: {text}" for text in (record.engine.warnings if record.engine else ())]
        if record.status is not Status.PASSED:
            lines.append(f"{record.status.value.upper()} {record.case.id}: {record.reason}")
        for verdict in record.verdicts:
            if verdict.is_failure or (verdict.code.startswith("expected_loss") and verdict.gate == "fp32"):
                if record.reason != verdict.message:
                    lines.append(f"{verdict.outcome.value} {record.case.id}: {verdict.message}")
                if verdict.advice:
                    lines.append(f"    {verdict.advice}")
    return lines


def _flag_lines(records: Sequence[Record]) -> list[str]:
    """Return one line for all cases whose latencies one flag says the same of."""
    found: dict[str, dict[str, list[int]]] = {}  # text -> case -> batch sizes
    for record in records:
        for latency in record.latencies:
            for flag in latency.flags:
                if flag in TOLD_IN_TERMINAL:
                    cases = found.setdefault(latency_flag_text(flag, latency), {})
                    cases.setdefault(record.case.id, []).append(latency.batch_size)
    lines = []
    for text, cases in found.items():
        named = (f"{case} (batch {', '.join(map(str, sizes))})" for case, sizes in cases.items())
        lines.append(f"{FLAGGED} {text}: {', '.join(named)}")
    return lines


def _rendered(table: Table, *, color: bool) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=UNBOUNDED_WIDTH, force_terminal=color, color_system="standard" if color else None).print(
        table
    )
    return [line.rstrip() for line in text.getvalue().splitlines()]


class _TrailingText:
    """Progress behind the cursor of a terminal: written, and the cursor put back, so that pytest's line stays whole."""

    def __init__(self, stream: TextIO, label: str) -> None:
        self._stream, self._label, self._last = stream, label, 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if 0 < done < total and now - self._last < PROGRESS_INTERVAL_S:
            return
        self._last = now
        text = "" if done >= total else f" {self._label}" + (f" {done:,} of {total:,}" if total > 1 else " ...")
        text = text[:MAX_PROGRESS_WIDTH]
        self._stream.write(f"\x1b[K{text}" + (f"\x1b[{len(text)}D" if text else ""))
        self._stream.flush()


def progress_reporter(stream: TextIO | None) -> Callable[[str], Progress]:
    """Return `label -> Progress`: a moving text on a terminal, nothing in CI or a pipe."""
    quiet = stream is None or not stream.isatty() or os.environ.get("CI")

    def start(label: str) -> Progress:
        return no_progress if quiet or stream is None else _TrailingText(stream, label)

    return start
