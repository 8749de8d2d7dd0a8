"""Small charts drawn by hand as SVG: a case's rounds over time, a trend in a table cell.

A thousand cases must be drawn in a second, which matplotlib cannot do (about 40 ms a figure). Everything printed here
is a number of ours or a class name, so nothing needs escaping. Colours come from the page's style sheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from harness.records import Latency, TensorCalibration
from harness.report.format import format_time
from harness.stats import LatencySummary

WIDTH, HEIGHT = 400, 150
LEFT, RIGHT, TOP, BOTTOM = 62, 300, 10, 126  # the run chart; the samples' histogram stands right of it
HISTOGRAM_LEFT, HISTOGRAM_WIDTH, N_BINS = 312, 80, 29
SPREAD = 0.1  # a round's bar spans this quantile to one less this
VIEW_QUANTILE = 0.995  # samples beyond are counted in the text, not drawn: one of 40 ms would flatten the rest
SPARK_WIDTH, SPARK_HEIGHT = 120, 26
MAGNITUDES_WIDTH, MAGNITUDES_HEIGHT = 256, 56
SMALLEST_DIVERGENCE = 1e-12  # [nat]; drawn for 0, which has no logarithm


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arm:
    rounds: NDArray[np.float64]  # float64[rounds, samples], each round sorted
    kind: str  # css class

    def at(self, quantile: float) -> NDArray[np.float64]:
        return np.asarray(self.rounds[:, round(quantile * (self.rounds.shape[1] - 1))])


def rounds_chart(latency: Latency, summary: LatencySummary) -> Markup:
    """Draw each round's median and spread over the time of the run, and the histogram of all samples.

    The FP32 reference, timed in turn, is drawn beside it: where both move together, the machine moved.
    """
    arms = [_Arm(rounds=np.sort(latency.rounds_ns.array().astype(float), axis=1), kind="a")]
    if latency.reference_rounds_ns is not None:
        arms.append(_Arm(rounds=np.sort(latency.reference_rounds_ns.array().astype(float), axis=1), kind="b"))
    drawn = np.concatenate([_within_view(arm.rounds) for arm in arms])
    low, high = float(drawn.min()), float(drawn.max())
    margin = 0.06 * (high - low) or 0.05 * high
    scale = _Scale(low=low - margin, high=high + margin)
    seconds = _start_seconds(latency)
    xs = np.rint(LEFT + 8 + (RIGHT - LEFT - 16) * seconds / (seconds.max() or 1.0)).astype(int)
    parts = [_axes(scale, float(seconds.max()), latency.started_ns is not None), _median_band(summary, scale)]
    for arm in reversed(arms):
        parts.append(_histogram(arm, scale))
        parts.append(_round_marks(arm, xs, scale))
    step = latency.resolution_ns
    median = format_time(summary.p50, low_ns=summary.p50_low, high_ns=summary.p50_high, resolution_ns=step)
    label = f"{summary.n_rounds} rounds, median {median}"
    return Markup(
        f'<svg class="rounds" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )


def sparkline(series: NDArray[np.float64], steps: Sequence[int] = ()) -> Markup:
    """Draw float64[runs] as a thin line with a dot on the newest value and a tick at each level change."""
    known = np.flatnonzero(np.isfinite(series))
    if known.size == 0:
        return Markup('<span class="none">—</span>')
    low, high = float(np.nanmin(series)), float(np.nanmax(series))
    height = SPARK_HEIGHT - 8
    column = np.rint(3 + (SPARK_WIDTH - 6) * np.arange(series.size) / max(series.size - 1, 1)).astype(int)
    values = (series - low) / (high - low) if high > low else np.where(np.isfinite(series), 0.5, np.nan)
    rows = np.full(series.size, -1)
    rows[known] = np.rint(4 + height * (1 - values[known])).astype(int)
    path = _thin_path(column[known], rows[known])
    ticks = "".join(f"M{column[step]} 1v{SPARK_HEIGHT - 2}" for step in steps)
    last = known[-1]
    return Markup(
        f'<svg class="spark" viewBox="0 0 {SPARK_WIDTH} {SPARK_HEIGHT}" aria-hidden="true">'
        + (f'<path class="tick" d="{ticks}"/>' if ticks else "")
        + f'<path d="{path}"/><circle cx="{column[last]}" cy="{rows[last]}" r="2.2"/></svg>'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeMark:
    """Where one recipe clips a tensor."""

    place: int  # of the recipe: 0 is the case's own
    threshold: float


def magnitudes_chart(tensor: TensorCalibration, marks: Sequence[RangeMark]) -> Markup:
    """Draw a tensor's magnitudes (logarithm of counts), each candidate's divergence and the thresholds chosen."""
    largest = tensor.largest or max((mark.threshold for mark in marks), default=0.0)
    if not largest or not any(tensor.counts):
        return Markup()
    counts = np.log1p(np.asarray(tensor.counts, float))
    step = MAGNITUDES_WIDTH / counts.size
    heights = np.rint(MAGNITUDES_HEIGHT * 0.92 * counts / counts.max()).astype(int)
    floor = MAGNITUDES_HEIGHT
    bars = "".join(f"M{step * (k + 0.5):.1f} {floor}v-{height}" for k, height in enumerate(heights) if height)
    lines = "".join(
        f'<path class="clip r{mark.place}" d="M{_column(mark.threshold, largest):.1f} 0V{floor}"/>'
        for mark in reversed(marks)
    )
    return Markup(
        f'<svg class="magnitudes" viewBox="0 0 {MAGNITUDES_WIDTH} {MAGNITUDES_HEIGHT}" aria-hidden="true">'
        f'<path class="hist" d="{bars}"/>{_divergences(tensor, largest)}{lines}</svg>'
    )


def _column(value: float, largest: float) -> float:
    return min(MAGNITUDES_WIDTH * value / largest, MAGNITUDES_WIDTH - 1.0)


def _divergences(tensor: TensorCalibration, largest: float) -> str:
    """Return the candidates' divergences as a line, the smallest at the floor, on a logarithmic scale."""
    lost = np.log10(np.maximum(np.asarray(tensor.divergences, float), SMALLEST_DIVERGENCE))
    if lost.size < 2:
        return ""
    span = float(lost.max() - lost.min()) or 1.0
    rows = np.rint(MAGNITUDES_HEIGHT - 2 - (MAGNITUDES_HEIGHT - 4) * (lost - lost.min()) / span).astype(int)
    columns = (_column(value, largest) for value in tensor.candidates)
    points = "L".join(f"{column:.1f} {row}" for column, row in zip(columns, rows, strict=True))
    return f'<path class="lost" d="M{points}"/>'


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    low: float
    high: float

    def row(self, value: float) -> int:
        return round(BOTTOM - (BOTTOM - TOP) * (value - self.low) / (self.high - self.low))

    def rows(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        share = np.clip((values - self.low) / (self.high - self.low), 0, 1)
        return np.rint(BOTTOM - (BOTTOM - TOP) * share).astype(np.int64)


def _within_view(rounds: NDArray[np.float64]) -> NDArray[np.float64]:
    samples = np.sort(rounds, axis=None)
    shown = samples[: max(int(np.ceil(VIEW_QUANTILE * samples.size)), 1)]
    return np.array([shown[0], shown[-1]])


def _start_seconds(latency: Latency) -> NDArray[np.float64]:
    n_rounds = latency.rounds_ns.shape[0]
    if latency.started_ns is None or latency.started_ns.shape[0] != n_rounds:
        return np.arange(n_rounds, dtype=float)
    return latency.started_ns.array().astype(float) / 1e9


def _axes(scale: _Scale, last_second: float, is_time: bool) -> str:
    ticks = np.linspace(scale.low, scale.high, 5)[[0, 2, 4]]
    half = (scale.high - scale.low) / 40
    text = "".join(
        f'<text x="{LEFT - 6}" y="{scale.row(tick) + 4}" text-anchor="end">'
        f"{format_time(tick, low_ns=tick - half, high_ns=tick + half)}</text>"
        for tick in map(float, ticks)
    )
    grid = "".join(f"M{LEFT} {scale.row(float(tick))}H{WIDTH - 8}" for tick in ticks)
    name = "start of the round in s" if is_time else "round"
    end = f"{last_second:.1f}" if is_time else f"{last_second + 1:.0f}"
    return (
        f'<path class="grid" d="{grid}"/>{text}'
        f'<text x="{LEFT + 8}" y="{HEIGHT - 8}">{"0" if is_time else "1"}</text>'
        f'<text x="{(LEFT + RIGHT) // 2}" y="{HEIGHT - 8}" text-anchor="middle">{name}</text>'
        f'<text x="{RIGHT - 8}" y="{HEIGHT - 8}" text-anchor="end">{end}</text>'
        f'<text x="{HISTOGRAM_LEFT}" y="{HEIGHT - 8}">samples</text>'
    )


def _median_band(summary: LatencySummary, scale: _Scale) -> str:
    if summary.p50_low is None or summary.p50_high is None:
        return ""
    top, bottom = scale.row(summary.p50_high), scale.row(summary.p50_low)
    return f'<path class="band" d="M{LEFT} {top}H{RIGHT}V{max(bottom, top + 1)}H{LEFT}z"/>'


def _round_marks(arm: _Arm, xs: NDArray[np.int64], scale: _Scale) -> str:
    tops, bottoms = scale.rows(arm.at(1 - SPREAD)), scale.rows(arm.at(SPREAD))
    medians = scale.rows(arm.at(0.5))
    bars = "".join(f"M{x} {top}v{bottom - top}" for x, top, bottom in zip(xs, tops, bottoms, strict=True))
    # A zero-length stroke with round caps is a dot: one path draws them all.
    dots = "".join(f"M{x} {y}h0" for x, y in zip(xs, medians, strict=True))
    return f'<path class="bar {arm.kind}" d="{bars}"/><path class="dot {arm.kind}" d="{dots}"/>'


def _histogram(arm: _Arm, scale: _Scale) -> str:
    bins = np.floor(N_BINS * (arm.rounds.ravel() - scale.low) / (scale.high - scale.low)).astype(int)
    counts = np.bincount(bins[(bins >= 0) & (bins < N_BINS)], minlength=N_BINS)  # np.histogram costs 0.1 ms a call
    step = (BOTTOM - TOP) / N_BINS
    widths = np.rint(HISTOGRAM_WIDTH * counts / max(counts.max(), 1)).astype(int)
    lines = "".join(
        f"M{HISTOGRAM_LEFT} {BOTTOM - step * (index + 0.5):.0f}h{width}" for index, width in enumerate(widths) if width
    )
    return f'<path class="hist {arm.kind}" d="{lines}"/>'


def _thin_path(columns: NDArray[np.int64], rows: NDArray[np.int64]) -> str:
    """Return a path with one vertical stroke a pixel column: a year of nights in a hundred pixels."""
    parts: list[str] = []
    previous: tuple[int, int] | None = None
    for column in np.unique(columns):
        here = rows[columns == column]
        points = (int(here[0]), int(here.min()), int(here.max()), int(here[-1]))
        for row in dict.fromkeys(points):
            if (column, row) != previous:
                parts.append(f"{'L' if parts else 'M'}{column} {row}")
                previous = (column, row)
    return "".join(parts)
