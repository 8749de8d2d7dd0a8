"""The report in the terminal: one table at the end of a run, the lines below it, and what two runs differ in."""

from __future__ import annotations

import io
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.records import TIMED_OTHERWISE, Outcome, Run, Verdict
from harness.report.drill import drill_text
from harness.report.flags import ENQUEUE_BOUND, TOLD_IN_TERMINAL, latency_flag_text
from harness.report.format import (
    MISSING,
    NO_BREAK,
    format_bytes,
    format_fraction,
    format_fraction_interval,
    format_lost_gained,
    format_quantile,
    format_ratio,
    format_time,
    plural,
)
from harness.report.load import throughput_line
from harness.report.model import Report
from harness.report.rows import Change, Row, Timing, rows_by_reason, timing_modes
from harness.report.samples import MetricChange, worst_slices
from harness.report.standing import NEEDS_A_LOOK, Standing, outcome_word

UNBOUNDED_WIDTH = 1_000  # of a log: a row is one line
GAP = 2  # between columns
FLAGGED = "‡"
STYLES = {"good": "green", "bad": "bold red", "warn": "yellow", "quiet": "yellow"}
TOLD_BELOW = (*NEEDS_A_LOOK, Standing.WAIVED, Standing.EXPECTED_LOSS, Standing.UNSUPPORTED)
MAX_NAMED = 4  # cases of one reason


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """One column: what it is called, what it shows, and how soon it goes where the terminal is narrow."""

    name: str
    cell: Callable[[Row], str]
    goes: int = 0  # the highest goes first; 0 stays
    is_number: bool = True
    short: Callable[[Row], str] | None = None  # what it shows where columns had to go


def summary_lines(report: Report, *, color: bool = False, width: int | None = None) -> list[str]:
    """Return the table of a run, one row a case, a line for what did not pass, and the headline.

    width: of the terminal [characters]; columns that do not fit are left out, and lines are wrapped. None: no bound.
    """
    bound = width or UNBOUNDED_WIDTH
    columns, are_all = _fitting(_columns(report), report.rows, bound)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for column in columns:
        table.add_column(column.name, justify="right" if column.is_number else "left", no_wrap=True)
    for row in report.rows:
        cells = [column.cell(row) if are_all or column.short is None else column.short(row) for column in columns]
        # Text, not markup: a model may be called "[red]".
        table.add_row(*(Text(cell) for cell in cells[:-1]), Text(cells[-1], style=STYLES[row.standing.tone]))
    below = [*_explanations(report.rows), f"fire drill: {drill_text(report.run)}", report.sentence]
    return [*rendered(table, color=color, width=bound), *(line for text in below for line in wrapped(text, width))]


def comparison_lines(runs: Sequence[Run], found: Sequence[tuple[str, Sequence[Verdict]]]) -> list[str]:
    """Return what was compared, a count per outcome, and a line for every verdict but "same", failures first."""
    counts = Counter(verdict.outcome for _, verdicts in found for verdict in verdicts)
    lines = [f"{run.id}  {run.environment.machine}  {run.command}" for run in runs]
    told = [f"{counts[outcome]} {outcome_word(outcome)}" for outcome in Outcome if counts[outcome]]
    lines.append(", ".join(told) or "nothing to compare")
    every = [(case_id, verdict) for case_id, verdicts in found for verdict in verdicts]
    for case_id, verdict in sorted(every, key=lambda one: not one[1].is_failure):
        if verdict.outcome is Outcome.SAME and not verdict.is_failure:
            continue
        lines.append(f"{outcome_word(verdict.outcome)} ({verdict.gate}) {case_id}: {verdict.message}")
        if verdict.advice:
            lines.append(f"    {verdict.advice}")
    return lines


def _columns(report: Report) -> list[_Column]:
    rows = report.rows
    columns = [
        _Column(name="model", cell=lambda row: row.record.case.model, is_number=False),
        _Column(name="backend", cell=lambda row: row.record.case.backend, is_number=False),
        _Column(name="precision", cell=_precision, is_number=False),
    ]
    if any(row.samples or row.top1 is not None for row in rows) or not any(row.drift for row in rows):
        columns += [
            _Column(name="metric" if any(row.samples for row in rows) else "top-1 %", cell=_top1),
            _Column(name="95 % interval", cell=_interval, goes=6),
        ]
    columns.append(_Column(name="vs FP32", cell=_against_fp32))
    if any(row.record.loss_split for row in rows):
        columns.append(_Column(name="by quantization + kernels", cell=_split, goes=7))
    if any(row.has_baseline for row in rows):
        columns.append(_Column(name="vs baseline", cell=_against_baseline, goes=1))
    for place, size in enumerate(report.sizes):
        is_first = place == 0
        columns += [
            _Column(name=f"b{size} p50", cell=_at(size, _p50), goes=2 if is_first else 4),
            _Column(name="p99", cell=_at(size, _p99), goes=9),
            _Column(name="speed-up", cell=_at(size, _speed_up), goes=3 if is_first else 5),
        ]
    columns.append(_Column(name="size", cell=_size, goes=8))
    word = _Column(name="verdict", cell=lambda row: row.word, is_number=False, short=lambda row: row.standing.word)
    return [*columns, word]


def _fitting(columns: list[_Column], rows: Sequence[Row], width: int) -> tuple[list[_Column], bool]:
    """Return the columns that fit, and whether all do; those that tell least of a verdict go first."""
    widths = {id(c): max(map(cell_len, [c.name, *(c.cell(row) for row in rows)])) for c in columns}
    short = {id(c): max(map(cell_len, [c.name, *(c.short(row) for row in rows)])) for c in columns if c.short}
    kept = columns
    while sum(widths[id(c)] + GAP for c in kept) - GAP > width:
        leaving = max(column.goes for column in kept)
        if leaving == 0:
            break
        widths |= short
        kept = [column for column in kept if column.goes != leaving]
    return kept, kept is columns


def _at(size: int, cell: Callable[[Timing | None], str]) -> Callable[[Row], str]:
    return lambda row: cell(row.timing(size))


def _precision(row: Row) -> str:
    """Return the precision asked, and what ran where that is another: "int8 -> fp32", "int8 71 %"."""
    asked = row.record.case.asked
    if row.ran_share is None:
        return asked
    if row.why_not_as_asked:
        return f"{asked} -> {row.ran_as}*"
    return asked if row.ran_share > 0.995 else f"{asked} {row.ran_share:.0%}"


def _top1(row: Row) -> str:
    if row.samples is not None:
        return f"{row.samples.leading.name} {row.samples.leading.text}"
    accuracy = row.record.accuracy
    if accuracy is None or row.top1 is None:
        return MISSING
    return _bare(format_fraction(row.top1, n=accuracy.n_images)) + ("†" if accuracy.n_trained_on else "")


def _interval(row: Row) -> str:
    if row.samples is not None:
        return row.samples.leading.interval
    accuracy = row.record.accuracy
    if accuracy is None or row.top1 is None:
        return MISSING
    return _bare(format_fraction_interval(row.top1_low, row.top1_high, n=accuracy.n_images))


def _bare(percentage: str) -> str:
    return percentage.removesuffix("%").strip()


def _against_fp32(row: Row) -> str:
    if row.samples:
        return _metric_change(row.samples.leading.against_fp32)
    return row.drift or _lost_gained(row.against_fp32)


def _against_baseline(row: Row) -> str:
    return _metric_change(row.samples.against_baseline) if row.samples else _lost_gained(row.against_baseline)


def _metric_change(change: MetricChange | None) -> str:
    return (change.text if change else "") or MISSING


def _lost_gained(change: Change | None) -> str:
    return format_lost_gained(change.n_lost, change.n_gained) if change else MISSING


def _split(row: Row) -> str:
    split = row.record.loss_split
    if split is None:
        return MISSING
    by_quantization = format_lost_gained(split.quantization_lost, split.quantization_gained)
    return f"{by_quantization} + {format_lost_gained(split.kernel_lost, split.kernel_gained)}"


def _p50(timing: Timing | None) -> str:
    if timing is None or timing.summary is None:
        return MISSING
    times = timing.summary
    step = timing.latency.resolution_ns
    p50 = format_time(times.p50, low_ns=times.p50_low, high_ns=times.p50_high, resolution_ns=step)
    return p50 + (FLAGGED if ENQUEUE_BOUND in timing.latency.flags else "")


def _p99(timing: Timing | None) -> str:
    if timing is None or timing.summary is None:
        return MISSING
    times = timing.summary
    return format_quantile(times.p99, times.p99_low, times.p99_high, resolution_ns=timing.latency.resolution_ns)


def _speed_up(timing: Timing | None) -> str:
    if timing is None or timing.summary is None:
        return MISSING
    ratio = timing.speed_up
    if ratio is None:
        return MISSING + (FLAGGED if TIMED_OTHERWISE in timing.latency.flags else "")
    return ("" if timing.is_significant else "~") + format_ratio(ratio.value, low=ratio.low, high=ratio.high)


def _size(row: Row) -> str:
    engine = row.record.engine
    return format_bytes(engine.engine_bytes if engine else None)


def _explanations(rows: Sequence[Row]) -> list[str]:
    lines = _tie_lines(rows)
    if any(row.record.accuracy and row.record.accuracy.n_trained_on for row in rows):
        lines.append("† scored (in part) on images the model was trained on: no measure of how well it generalises")
    lines += [f"* {note}" for note in sorted({row.why_not_as_asked for row in rows} - {""})]
    if any(row.timings for row in rows):
        modes = timing_modes(rows)
        several = len(modes) > 1
        told = "; ".join(f"{mode} ({plural(n, 'case')})" if several else mode for mode, n in modes)
        lines.append(f"times by {told}")
        lines.append(
            f"vs FP32, vs baseline: {_what_is_compared(rows)}; speed-up: over FP32 of the same backend, "
            "interleaved with it; ~ not significant (interval includes 1×)"
        )
    lines += worst_slices([row.record for row in rows])
    lines += _flag_lines(rows)
    lines += _slower_lines(rows)
    lines += [line for row in rows if (line := throughput_line(row.record))]
    lines += [f"note {row.record.case.id}: {text}" for row in rows for text in row.warnings]
    return [*lines, *_reasons(rows)]


def _what_is_compared(rows: Sequence[Row]) -> str:
    """Say what stands in the columns of comparisons."""
    kinds = {
        "images lost/gained": any(row.record.accuracy for row in rows),
        "the metric's change": any(row.samples for row in rows),
        "median error of the farthest output": any(row.drift and not row.samples for row in rows),
    }
    return ", ".join(kind for kind, is_there in kinds.items() if is_there) or "images lost/gained"


def _tie_lines(rows: Sequence[Row]) -> list[str]:
    tied = [row for row in rows if row.record.accuracy is not None and row.record.accuracy.has_many_ties]
    if not tied:
        return []
    told = [
        f"{row.record.case.id} ({row.record.accuracy.n_ties_top1:,} of {row.record.accuracy.n_images:,} images)"
        for row in tied
        if row.record.accuracy is not None
    ]
    return [f"ties at the top: {_named(told)}: top-1 depends on the order of the classes; score the logits"]


def _slower_lines(rows: Sequence[Row]) -> list[str]:
    """Name the cases that are slower than FP32, and by how much: a speed-up that is none."""
    told = []
    for row in rows:
        slower = [
            f"batch {timing.latency.batch_size}: {format_ratio(timing.speed_up.value)}"
            for timing in row.timings
            if timing.is_slower and timing.speed_up is not None
        ]
        if slower:
            told.append(f"{row.record.case.id} ({', '.join(slower)})")
    return [f"slower than FP32: {', '.join(told)}"] if told else []


def _reasons(rows: Sequence[Row]) -> list[str]:
    """Return what did not pass and why, in the rows' order; cases of one reason share it."""
    lines = []
    for told, group in rows_by_reason((row for row in rows if row.standing in TOLD_BELOW), _told):
        # What is told of several cases is told with ID in place of their names.
        word, found, *others = told if len(group) > 1 else _told(group[0])
        lines += [f"{word}: {_named([row.record.case.id for row in group])}: {found}", *others]
    return lines


def _told(row: Row) -> tuple[str, ...]:
    """Return the word for a case, why, and the lines below that."""
    advice = (f"    {row.advice}",) if row.advice else ()
    return (row.word, row.finding, *_other_failures(row), *advice)


def _named(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")


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


def rendered(table: Table, *, color: bool, width: int) -> list[str]:
    """Return the lines of a table that is `width` characters wide at most."""
    text = io.StringIO()
    Console(file=text, width=width, force_terminal=color, color_system="standard" if color else None).print(table)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def wrapped(text: str, width: int | None) -> list[str]:
    """Return a line in as many as fit, the later ones indented; a path stays whole."""
    if width is None or text.count(" ") < 2:  # "report: PATH"
        return [text]
    indent = " " * (len(text) - len(text.lstrip()))
    kept = text.replace(" %", f"{NO_BREAK}%")
    lines = textwrap.wrap(kept, width, subsequent_indent=f"{indent}  ", break_long_words=False, break_on_hyphens=False)
    return [line.replace(f"{NO_BREAK}%", " %") for line in lines] or [""]
