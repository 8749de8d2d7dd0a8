"""Models timed on their own, as a table of one row a case and batch size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from harness.records import EffectivePrecision, Latency
from harness.report.format import MISSING, format_quantile, format_ratio, format_ratio_interval, format_time
from harness.report.rows import Timing, timing_of
from harness.report.terminal import GAP, rendered, wrapped
from harness.specs import Case

COLUMNS = ("backend", "asked", "batch", "p50 (95 %)", "FP32 / this (95 %)", "ran")
NUMBERS = ("batch", "p50 (95 %)", "FP32 / this (95 %)")
ALL = 0.995  # a share of the work that is told as all of it


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedCase:
    """One case that was timed on its own, or why it was not."""

    case: Case
    latencies: tuple[Latency, ...] = ()  # one a batch size
    effective_precision: EffectivePrecision | None = None
    unsupported: str = ""  # why its backend cannot do it
    error: str = ""  # what went wrong


def lines_of_times(found: Sequence[TimedCase], *, color: bool = False, width: int = 80) -> list[str]:
    """Return a table of the times of each model, and why there are none of some cases, `width` characters wide."""
    lines: list[str] = []
    for model in dict.fromkeys(one.case.model for one in found):
        timed = [(one, timing_of(latency)) for one in found if one.case.model == model for latency in one.latencies]
        if timed:
            lines += [model, *rendered(_table(timed), color=color, width=width), *_modes(timed)]
        lines += [f"{one.case.id}: batch {t.latency.batch_size}: {t.problem}" for one, t in timed if t.problem]
    for one in found:
        lines += [f"unsupported: {one.case.id}: {one.unsupported}"] if one.unsupported else []
        lines += [f"error: {one.case.id}: {one.error}"] if one.error else []
    return [line for text in lines for line in (wrapped(text, width) if len(text) > width else [text])]


def _table(timed: Sequence[tuple[TimedCase, Timing]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=name in NUMBERS)
    for one, timing in timed:
        cells = (
            one.case.backend,
            one.case.asked,
            str(timing.latency.batch_size),
            _p50(timing),
            _speed_up(timing),
            _ran(one.effective_precision),
        )
        table.add_row(*map(Text, cells))
    return table


def _p50(timing: Timing) -> str:
    times = timing.summary
    if times is None:
        return MISSING
    step = timing.latency.resolution_ns
    interval = format_quantile(times.p50, times.p50_low, times.p50_high, resolution_ns=step)
    return format_time(times.p50, resolution_ns=step) if interval == MISSING else interval


def _speed_up(timing: Timing) -> str:
    ratio = timing.speed_up
    if ratio is None:
        return MISSING
    value = ("" if timing.is_significant else "~") + format_ratio(ratio.value, low=ratio.low, high=ratio.high)
    interval = format_ratio_interval(ratio.value, ratio.low, ratio.high, short=True)
    return value if interval == MISSING else f"{value} ({interval})"


def _ran(effective: EffectivePrecision | None) -> str:
    """Return the precision that most of the work ran in, with its share where that is not all."""
    if effective is None or effective.main == "unknown":
        return MISSING
    share = (effective.by_time or effective.by_layer)[effective.main]
    return effective.main if share > ALL else f"{effective.main} {share:.0%}"


def _modes(timed: Sequence[tuple[TimedCase, Timing]]) -> list[str]:
    """Return how the times were taken, and what the signs mean."""
    modes = dict.fromkeys(timing.mode for _, timing in timed)
    lines = [f"times of seeded inputs by {'; '.join(modes)}"]
    if any(timing.speed_up is not None and not timing.is_significant for _, timing in timed):
        lines.append("~ not significant (interval includes 1×)")
    return lines
