"""Figures over all cases, by matplotlib as SVG: text stays text, and colours are the page's, light or dark.

matplotlib is imported here only and only when a figure is drawn; a case's own small charts are `charts`' business.
"""

from __future__ import annotations

import datetime
import io
import itertools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from harness.report.format import (
    format_bytes,
    format_fraction,
    format_number,
    format_ratio,
    format_time,
    moment_from_iso,
)
from harness.report.rows import Row, Timing
from harness.specs import Precision
from harness.store.history import History, Metric, Step

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib needs true colours: these stand for variables of the page's style sheet and are replaced on the way out.
INK, MUTED, GRID, PANEL = "#010101", "#020202", "#030303", "#040404"
SERIES = {
    Precision.FP32: "#010201",
    Precision.FP16: "#010301",
    Precision.BF16: "#010701",
    Precision.INT8: "#010401",
}
ACCENT, BAD = "#010501", "#010601"
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    PANEL: "var(--panel)",
    SERIES[Precision.FP32]: "var(--fp32)",
    SERIES[Precision.FP16]: "var(--fp16)",
    SERIES[Precision.BF16]: "var(--bf16)",
    SERIES[Precision.INT8]: "var(--int8)",
    ACCENT: "var(--accent)",
    BAD: "var(--bad)",
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # one a backend: never colour alone
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # a name with "$" is a name
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.unicode_minus": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
MAX_BARS = 45
LABEL_WIDTH, LABEL_HEIGHT = 150, 18  # room of a name in a plot [pixels at 100 dpi]
LEFT_OF_POINT = 0.6  # of the axis: names of points further right stand to their left
ERROR_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
MAX_TRENDS = 6
N_DATE_TICKS = 5
FLAT_SHARE = 1e-3
DAYS_WITH_TIME = 4  # a shorter history is labelled with the time of day
NAME_CHAR_INCHES = 0.068  # width of an average character of 9 points
RIGHT_MARGIN = 0.3  # inches


def pareto_plot(rows: Sequence[Row], batch_size: int) -> Markup:
    """Draw top-1 over latency for all cases, with the front of those that nothing beats in both.

    Empty when fewer than two cases have both numbers.
    """
    points = [(row, timing) for row in rows if row.top1 is not None and (timing := _timed(row, batch_size))]
    if len(points) < 2:
        return Markup()
    xs = np.array([timing.summary.p50 for _, timing in points if timing.summary])
    ys = -np.array([_error_percent(row) for row, _ in points])
    backends = sorted({row.record.case.backend for row, _ in points})
    with _styled(f"pareto-{batch_size}") as (figure, axes):
        _lay_out(figure, width=6.4, height=4.4, left=0.75, top=0.62)
        front = pareto_front(xs, ys)
        axes.step(
            xs[front],
            -ys[front],
            "o",
            where="post",
            color=ACCENT,
            linestyle="-",
            linewidth=1.6,
            markersize=11,
            markerfacecolor="none",
            zorder=2,
        )
        _draw_points(axes, [row for row, _ in points], xs, -ys, backends)
        axes.set_xscale("log")
        _error_axis(axes, -ys)
        _label_front(axes, [points[index][0] for index in front], xs[front], -ys[front])
        axes.xaxis.set_major_locator(_log_ticks())
        axes.xaxis.set_major_formatter(lambda value, _: re.sub(r"\.0+(?!\d)", "", format_time(value)))
        axes.xaxis.set_minor_formatter(lambda *_: "")
        axes.set_xlabel(f"latency p50 of a batch of {batch_size} (left is faster)")
        axes.set_ylabel("top-1 in % (up is better)")
        axes.margins(x=0.08)
        axes.grid(True)
        _add_key(axes, sorted({row.record.case.precision for row, _ in points}, key=list(Precision).index), backends)
        return _svg(
            figure, f"Top-1 against latency of {len(points)} cases at batch {batch_size}; the table has them all"
        )


def _draw_points(
    axes: Axes, rows: Sequence[Row], xs: NDArray[np.float64], ys: NDArray[np.float64], backends: Sequence[str]
) -> None:
    """Draw one series a backend and precision: a thousand lines of one point each would take a second."""
    groups: dict[tuple[str, Precision], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault((row.record.case.backend, row.record.case.precision), []).append(index)
    for (backend, precision), members in groups.items():
        axes.plot(
            xs[members],
            ys[members],
            MARKERS[backends.index(backend) % len(MARKERS)],
            color=SERIES[precision],
            markersize=6.5,
            markeredgecolor=PANEL,
            markeredgewidth=0.7,
            zorder=3,
        )


def pareto_front(xs: NDArray[np.float64], ys: NDArray[np.float64]) -> list[int]:
    """Return the indices of the points that no other is both left of and above, from left to right."""
    front: list[int] = []
    best = -np.inf
    for index in np.lexsort((-ys, xs)):
        if ys[index] > best:
            front.append(int(index))
            best = ys[index]
    return front


def speed_up_plot(rows: Sequence[Row], batch_size: int) -> tuple[Markup, int]:
    """Draw speed-up bars over FP32 with their intervals, fastest first; also return how many had no room.

    Empty without a case that was timed in turn with FP32.
    """
    found = [(row, timing) for row in rows if (timing := _timed(row, batch_size)) and timing.speed_up is not None]
    if not found:
        return Markup(), 0
    found.sort(key=lambda pair: -pair[1].speed_up.value if pair[1].speed_up else 0.0)
    half = MAX_BARS // 2
    shown = found if len(found) <= MAX_BARS else found[:half] + found[-half:]
    names = [_short_name(row) for row, _ in shown]
    with _styled(f"speed-up-{batch_size}") as (figure, axes):
        left = 0.25 + NAME_CHAR_INCHES * max(len(name) for name in names)
        _lay_out(figure, width=6.4, height=0.75 + 0.24 * len(shown), left=left, top=0.05)
        ratios = [timing.speed_up for _, timing in shown if timing.speed_up]
        values = np.array([ratio.value for ratio in ratios])
        lows = np.array([ratio.low or ratio.value for ratio in ratios])
        highs = np.array([ratio.high or ratio.value for ratio in ratios])
        places = np.arange(len(ratios))
        axes.barh(
            places, values - 1, left=1, height=0.66, color=[SERIES[row.record.case.precision] for row, _ in shown]
        )
        axes.hlines(places, lows, highs, color=INK, linewidth=1.3, zorder=3)
        for ends in (lows, highs):
            axes.plot(ends, places, "|", color=INK, markersize=7, zorder=3)
        for place, ratio in enumerate(ratios):
            text = format_ratio(ratio.value, low=ratio.low, high=ratio.high)
            spot = (max(float(highs[place]), 1.0), place)
            axes.annotate(text, spot, (6, 0), textcoords="offset points", va="center", fontsize=9)
        axes.axvline(1, color=INK, linewidth=1)
        axes.set_yticks(range(len(shown)), names, fontsize=9)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        left_edge = min(1.0, float(lows.min()))
        reach = max(float(highs.max()), 1.0) - left_edge or 0.1
        start = left_edge - (0.04 * reach if left_edge < 1 else 0.0)
        axes.set_xlim(max(0.0, start), left_edge + 1.16 * reach)
        axes.grid(True, axis="x")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"times faster than FP32 at batch {batch_size}, with 95 % interval")
        return _svg(figure, f"Speed-up over FP32 of {len(shown)} cases at batch {batch_size}"), len(found) - len(shown)


def trend_plots(history: History) -> list[tuple[str, Metric, Markup]]:
    """Draw the series whose level changed, the newest change first; a level line says no more than a word."""
    chosen = dict.fromkeys((step.case_id, step.metric) for step in history.steps)
    return [(case_id, metric, _trend(history, case_id, metric)) for case_id, metric in list(chosen)[:MAX_TRENDS]]


def metric_name(metric: Metric) -> str:
    """Return a metric in words with its unit's kind."""
    is_named = metric.name in ("score", "error") and metric.of
    words = metric.of if is_named else " ".join(part for part in (metric.kind.words, metric.of) if part)
    return f"{words}, batch {metric.batch_size}" if metric.batch_size else words


def format_metric(metric: Metric, value: float, n_images: float | None = None) -> str:
    """Return a metric's value with its unit."""
    if metric.is_share:
        known = int(n_images) if n_images is not None and np.isfinite(n_images) else None
        return format_fraction(value, n=known)
    if metric.unit:
        return f"{format_number(value)} {metric.unit}"
    told: dict[str, Callable[[float], str]] = {
        "ns": format_time,
        "bytes": format_bytes,
        "fraction": lambda share: f"{100 * share:.3g} %",
        "images/s": lambda rate: f"{rate:,.0f} images/s",
        "number": lambda number: f"{number:.4g}",
    }
    return told[metric.kind.unit](value)


def _trend(history: History, case_id: str, metric: Metric) -> Markup:
    series = history.series(case_id)[metric]
    moments = [moment_from_iso(run.started_at) for run in history.runs]
    is_dated = all(moment is not None for moment in moments)
    days = (
        np.array([moment.timestamp() / 86_400 for moment in moments if moment is not None])
        if is_dated
        else np.arange(float(series.size))
    )
    steps = [step for step in history.steps if (step.case_id, step.metric) == (case_id, metric)]
    scale, unit = _axis_scale(metric, series)
    with _styled(f"trend-{case_id}-{metric.name}-{metric.batch_size}") as (figure, axes):
        _lay_out(figure, width=6.4, height=2.4, left=0.85, top=0.45, bottom=0.3 if is_dated else 0.5)
        axes.plot(days, series * scale, ".", color=SERIES[Precision.FP32], markersize=3.5)
        _draw_levels(axes, days, series * scale, steps)
        _draw_version_changes(axes, history, days)
        if is_dated:
            _date_axis(axes, days)
        else:
            axes.set_xlabel("run")
        name = f"p50 in {unit}, batch {metric.batch_size}" if metric.batch_size else f"{metric_name(metric)} in {unit}"
        axes.set_ylabel(name)
        axes.grid(True, axis="y")
        axes.ticklabel_format(axis="y", useOffset=False)
        _widen_flat_axis(axes, series * scale)
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))  # no time, size or rate is below 0
        return _svg(figure, f"{metric_name(metric)} of {case_id} over {series.size} runs, {len(steps)} level changes")


def _widen_flat_axis(axes: Axes, shown: NDArray[np.float64]) -> None:
    """Give a series that hardly moves an axis of a few per mille, not one that magnifies or dwarfs it."""
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    if high - low < FLAT_SHARE * high:
        middle = (low + high) / 2
        axes.set_ylim(middle * (1 - FLAT_SHARE), middle * (1 + FLAT_SHARE))


def _draw_levels(axes: Axes, days: NDArray[np.float64], series: NDArray[np.float64], steps: Sequence[Step]) -> None:
    edges = [0, *sorted(step.run_index for step in steps), series.size]
    for start, stop in itertools.pairwise(edges):
        level = series[start:stop]
        if np.isfinite(level).any():
            color = BAD if any(step.run_index == start and step.is_worse for step in steps) else ACCENT
            axes.hlines(float(np.nanmedian(level)), days[start], days[stop - 1], color=color, linewidth=2)


def _draw_version_changes(axes: Axes, history: History, days: NDArray[np.float64]) -> None:
    top = axes.get_xaxis_transform()
    for index, changed in history.version_changes():
        axes.axvline(float(days[index]), color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
        name, (_, after) = next(iter(changed.items()))
        more = f" +{len(changed) - 1}" if len(changed) > 1 else ""
        text = f"{_clipped(name, 16)} {_clipped(after, 12)}{more}"
        axes.text(float(days[index]), 1.02, text, transform=top, fontsize=8, color=MUTED, rotation=12, ha="left")


def _axis_scale(metric: Metric, series: NDArray[np.float64]) -> tuple[float, str]:
    if metric.is_share:
        return 100.0, "%"
    if metric.unit:
        return 1.0, metric.unit
    largest = float(np.nanmax(series))
    if metric.kind.unit == "bytes":
        return (1 / 2**20, "MiB") if largest >= 2**20 else (1 / 2**10, "KiB")
    if metric.kind.unit == "ns":
        return (1e-6, "ms") if largest >= 1e6 else (1e-3, "µs")
    return (100.0, "%") if metric.kind.unit == "fraction" else (1.0, metric.kind.unit)


def _date_axis(axes: Axes, days: NDArray[np.float64]) -> None:
    span = float(days[-1] - days[0])
    ticks = np.linspace(days[0], days[-1], N_DATE_TICKS if span > 0 else 1)
    pattern = "%m-%d %H:%M" if span < DAYS_WITH_TIME else "%Y-%m-%d"
    moments = [datetime.datetime.fromtimestamp(float(tick) * 86_400, datetime.timezone.utc) for tick in ticks]
    axes.set_xticks(ticks, [moment.strftime(pattern) for moment in moments])


def _log_ticks() -> Any:
    from matplotlib.ticker import LogLocator

    return LogLocator(subs=(1.0, 3.0), numticks=9)


def _error_percent(row: Row) -> float:
    """Return the share of wrong images in %, at least half an image: the axis is logarithmic."""
    n_images = row.record.accuracy.n_images if row.record.accuracy else 0
    return max(100 * (1 - (row.top1 or 0.0)), 50 / max(n_images, 1))


def _error_axis(axes: Axes, errors: NDArray[np.float64]) -> None:
    """Spread the axis by the error, so that 99.1 and 99.2 % stay apart beside a case at 60 %."""
    best, worst = float(errors.min()) / 1.25, min(float(errors.max()) * 1.25, 100.0)
    axes.set_yscale("log")
    axes.set_ylim(worst, best)
    ticks = [tick for tick in ERROR_TICKS if best <= tick <= worst] or [float(errors.min())]
    axes.set_yticks(ticks, [f"{100 - tick:g}" for tick in ticks])
    axes.set_yticks([], minor=True)


def _label_front(axes: Axes, rows: Sequence[Row], xs: NDArray[np.float64], errors: NDArray[np.float64]) -> None:
    """Name the points of the front, from the best downwards, where a name fits beside those already there."""
    to_pixels = axes.transData.transform
    taken: list[tuple[float, float]] = []
    for index in range(len(rows) - 1, -1, -1):
        x, y = to_pixels((float(xs[index]), float(errors[index])))
        if any(abs(y - other_y) < LABEL_HEIGHT and abs(x - other_x) < LABEL_WIDTH for other_x, other_y in taken):
            continue
        taken.append((float(x), float(y)))
        is_right = x > axes.transAxes.transform((LEFT_OF_POINT, 0))[0]  # its name would leave the picture
        axes.annotate(
            _short_name(rows[index]),
            (float(xs[index]), float(errors[index])),
            (-9, 5) if is_right else (9, -11),  # clear of the line, which comes from the left
            ha="right" if is_right else "left",
            textcoords="offset points",
            fontsize=8,
            color=INK,
            zorder=4,
        )


def _add_key(axes: Axes, precisions: Sequence[Precision], backends: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    entries = [Line2D([], [], color=ACCENT, linewidth=1.6, label="front")]
    entries += [
        Line2D([], [], marker="o", linestyle="", color=SERIES[precision], label=precision.value)
        for precision in precisions
    ]
    entries += [
        Line2D([], [], marker=MARKERS[index % len(MARKERS)], linestyle="", color=MUTED, label=_clipped(backend, 14))
        for index, backend in enumerate(backends)
    ]
    axes.legend(
        handles=entries,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=min(len(entries), 8),
        columnspacing=1.1,
        handletextpad=0.4,
    )


def _timed(row: Row, batch_size: int) -> Timing | None:
    timing = row.timing(batch_size)
    return timing if timing and timing.summary else None


def _short_name(row: Row) -> str:
    case = row.record.case
    return f"{_clipped(case.model, 20)} {_clipped(case.backend, 12)} {_clipped(case.asked, 20)}"


def _clipped(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _lay_out(figure: Figure, *, width: float, height: float, left: float, top: float, bottom: float = 0.5) -> None:
    """Set size and margins [inches]; matplotlib's own layout engines draw every figure twice to find them."""
    figure.set_size_inches(width, height)
    figure.subplots_adjust(
        left=left / width, right=1 - RIGHT_MARGIN / width, bottom=bottom / height, top=1 - top / height
    )


class _styled:
    """One figure with one pair of axes under our style; nothing of matplotlib's own settings is changed for good."""

    def __init__(self, salt: str) -> None:
        self._salt = salt

    def __enter__(self) -> tuple[Figure, Axes]:
        import matplotlib as mpl
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        self._context = mpl.rc_context(cast("Any", STYLE | {"svg.hashsalt": self._salt}))
        self._context.__enter__()
        figure = Figure()
        FigureCanvasSVG(figure)
        return figure, figure.add_subplot()

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)


def _svg(figure: Figure, label: str) -> Markup:
    """Return a figure as inline SVG in the page's colours and font, with no id that another figure may repeat."""
    from markupsafe import escape

    with io.StringIO() as stream:
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<g|<text) id="[^"]*"', r"\1", text)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"| version="1.1"', "", text)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = text.replace("xlink:href", "href")
    text = re.sub("#0[1-9]0[1-9]0[1-9]", lambda match: VARIABLES.get(match[0], match[0]), text)
    text = re.sub(r">\s+<", "><", text)
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text).groups()  # type: ignore[union-attr]
    opening = f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
    return Markup(opening + text[text.index(">") + 1 :])
