"""The report in the terminal: one table at the end of a run, the lines below it, and what two runs differ in."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.records import TIMED_OTHERWISE, LossSplit, Outcome, Run, Verdict
from harness.report.flags import ENQUEUE_BOUND, TOLD_IN_TERMINAL, latency_flag_text
from harness.report.format import (
    MISSING,
    format_bytes,
    format_fraction,
    format_fraction_interval,
    format_lost_gained,
    format_ratio,
    format_time,
)
from harness.report.model import Report
from harness.report.rows import Row, Timing
from harness.report.standing import BAD, Standing, outcome_word

UNBOUNDED_WIDTH = 1_000  # a row is one line: a narrow terminal wraps it, a log keeps it whole
FLAGGED = "‡"
STYLES = {"good": "green", "bad": "bold red", "warn": "yellow", "quiet": "yellow"}
TOLD_BELOW = (
    *BAD,
    Standing.DID_NOT_RUN,
    Standing.EXPECTED_LOSS,
    Standing.INCONCLUSIVE,
    Standing.NOT_JUDGED,
    Standing.UNSUPPORTED,
)


def summary_lines(report: Report, *, color: bool = False) -> list[str]:
    """Return the table of a run, one row a case, a line for every case that did not pass, and the headline."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for name in ("model", "backend", "asked", "ran as"):
        table.add_column(name, no_wrap=True)
    has_split = any(row.record.loss_split for row in report.rows)
    numbers = ["top-1 %", "95 % interval", "lost/gained"]
    numbers += ["quantization + kernels"] if has_split else []
    for size in report.sizes:
        numbers += [f"b{size} p50", "p99", "speed-up"]
    for name in (*numbers, "size"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in report.rows:
        table.add_row(*_cells(row, report.sizes, has_split=has_split))
    return [*_rendered(table, color=color), *_explanations(report.rows), report.sentence]


def comparison_lines(runs: Sequence[Run], found: Sequence[tuple[str, Sequence[Verdict]]]) -> list[str]:
    """Return what was compared, a count per outcome, and a line for every verdict that is not "same"."""
    counts = Counter(verdict.outcome for _, verdicts in found for verdict in verdicts)
    lines = [f"{run.id}  {run.environment.machine}  {run.command}" for run in runs]
    told = [f"{counts[outcome]} {outcome_word(outcome)}" for outcome in Outcome if counts[outcome]]
    lines.append(", ".join(told) or "nothing to compare")
    for case_id, verdicts in found:
        for verdict in verdicts:
            if verdict.outcome is Outcome.SAME and not verdict.is_failure:
                continue
            lines.append(f"{outcome_word(verdict.outcome)} ({verdict.gate}) {case_id}: {verdict.message}")
            if verdict.advice:
                lines.append(f"    {verdict.advice}")
    return lines


def _cells(row: Row, sizes: Sequence[int], *, has_split: bool) -> list[Text]:
    case, engine = row.record.case, row.record.engine
    cells = [case.model, case.backend, case.asked, _ran_as(row), *_accuracy_cells(row)]
    if has_split:
        cells.append(_split(row.record.loss_split))
    for size in sizes:
        cells += _timing_cells(row.timing(size))
    cells.append(format_bytes(engine.engine_bytes if engine else None))
    # Text, not markup: a model may be called "[red]".
    return [*(Text(cell) for cell in cells), Text(row.word, style=STYLES[row.standing.tone])]


def _ran_as(row: Row) -> str:
    if row.ran_share is None:
        return MISSING
    part = "" if row.ran_share > 0.995 else f" {row.ran_share:.0%}"
    return row.ran_as + part + ("*" if row.why_not_as_asked else "")


def _accuracy_cells(row: Row) -> list[str]:
    accuracy, change = row.record.accuracy, row.against_fp32
    if accuracy is None or row.top1 is None:
        return [MISSING] * 3
    seen = "†" if accuracy.n_trained_on else ""
    return [
        _bare(format_fraction(row.top1, n=accuracy.n_images)) + seen,
        _bare(format_fraction_interval(row.top1_low, row.top1_high, n=accuracy.n_images)),
        format_lost_gained(change.n_lost, change.n_gained) if change else MISSING,
    ]


def _bare(percentage: str) -> str:
    return percentage.removesuffix("%").strip()


def _split(split: LossSplit | None) -> str:
    if split is None:
        return MISSING
    by_quantization = format_lost_gained(split.quantization_lost, split.quantization_gained)
    return f"{by_quantization} + {format_lost_gained(split.kernel_lost, split.kernel_gained)}"


def _timing_cells(timing: Timing | None) -> list[str]:
    if timing is None or timing.summary is None:
        return [MISSING] * 3
    times, ratio, flags = timing.summary, timing.speed_up, timing.latency.flags
    speed_up = MISSING + (FLAGGED if TIMED_OTHERWISE in flags else "")
    if ratio is not None:
        speed_up = ("" if timing.is_significant else "~") + format_ratio(ratio.value, low=ratio.low, high=ratio.high)
    p50 = format_time(times.p50, low_ns=times.p50_low, high_ns=times.p50_high)
    return [p50 + (FLAGGED if ENQUEUE_BOUND in flags else ""), format_time(times.p99), speed_up]


def _explanations(rows: Sequence[Row]) -> list[str]:
    lines = []
    if any(row.record.accuracy and row.record.accuracy.n_trained_on for row in rows):
        lines.append("† scored (in part) on images the model was trained on: no measure of how well it generalises")
    lines += [f"* {note}" for note in sorted({row.why_not_as_asked for row in rows} - {""})]
    if any(row.timings for row in rows):
        lines.append(
            "lost/gained: images against FP32 of the same backend, by quantization and by the engine's kernels; "
            "speed-up: over that FP32, run in turn with it round by round, ~ where its interval holds 1"
        )
    lines += _flag_lines(rows)
    for row in rows:
        lines += [f"note {row.record.case.id}: {text}" for text in row.warnings]
        if row.standing in TOLD_BELOW:
            lines.append(f"{row.word} {row.record.case.id}: {row.finding}")
            lines += _other_failures(row)
            lines += [f"    {row.advice}"] if row.advice else []
    return lines


def _other_failures(row: Row) -> list[str]:
    """Return what else of a case failed, or was said of it in more words than its finding has."""
    return [
        f"    {verdict.gate}: {verdict.message}"
        for verdict in row.record.verdicts
        if (verdict.is_failure or verdict.gate == row.gate) and verdict.message != row.finding
    ]


def _flag_lines(rows: Sequence[Row]) -> list[str]:
    """Return one line for all cases whose latencies one flag says the same of."""
    found: dict[str, dict[str, list[int]]] = {}  # text -> case -> batch sizes
    for row in rows:
        for timing in row.timings:
            latency = timing.latency
            for flag in latency.flags:
                if flag in TOLD_IN_TERMINAL:
                    cases = found.setdefault(latency_flag_text(flag, latency), {})
                    cases.setdefault(row.record.case.id, []).append(latency.batch_size)
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
