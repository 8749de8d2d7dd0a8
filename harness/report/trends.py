"""History -> what the page shows of it: figures, lasting changes, a line a case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from harness.report.charts import sparkline
from harness.report.plots import format_metric, trend_plots
from harness.stats.changes import MIN_LEVEL_RUNS
from harness.store.history import History, Metric, Step

MAX_HISTORY_ROWS = 200
MAX_STEPS = 60
MIN_HISTORY_RUNS = 2
MIN_TREND_RUNS = 2 * MIN_LEVEL_RUNS  # fewer runs can show no change of level


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendRow:
    """One case of the history: a thin line and the newest value of each metric."""

    case_id: str
    cells: tuple[tuple[Markup, str] | None, ...]  # (line, newest value), in the metrics' order


@dataclass(frozen=True, slots=True, kw_only=True)
class Trends:
    """The history of a run's cases."""

    history: History
    metrics: tuple[Metric, ...]
    figures: tuple[tuple[str, Metric, Markup], ...]  # (case id, metric, figure)
    steps: tuple[Step, ...]  # newest first
    rows: tuple[TrendRow, ...]  # of cases with a step
    n_changed: int


def trends_from_history(history: History | None) -> Trends | None:
    """Return what is shown of a history, None where there is too little of it: cases of which something changed."""
    if history is None or len(history.runs) < MIN_HISTORY_RUNS:
        return None
    metrics = tuple(history.values)
    changed = list(dict.fromkeys(step.case_id for step in history.steps))
    return Trends(
        history=history,
        metrics=metrics,
        figures=tuple(trend_plots(history)) if len(history.runs) >= MIN_TREND_RUNS else (),
        steps=history.steps[:MAX_STEPS],
        rows=tuple(_trend_row(history, case_id, metrics) for case_id in changed[:MAX_HISTORY_ROWS]),
        n_changed=len(changed),
    )


def _trend_row(history: History, case_id: str, metrics: Sequence[Metric]) -> TrendRow:
    series = history.series(case_id)
    n_images = float(history.n_images[history.case_ids.index(case_id)])
    cells: list[tuple[Markup, str] | None] = []
    for metric in metrics:
        values = series.get(metric)
        if values is None:
            cells.append(None)
            continue
        steps = [step.run_index for step in history.steps if (step.case_id, step.metric) == (case_id, metric)]
        newest = values[-1]
        text = format_metric(metric, float(newest), n_images) if np.isfinite(newest) else "not in the newest run"
        cells.append((sparkline(values, steps), text))
    return TrendRow(case_id=case_id, cells=tuple(cells))
