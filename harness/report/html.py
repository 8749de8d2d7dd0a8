"""The page an engineer opens in the morning: one self-contained HTML file from a run and its records alone.

The same input gives the same bytes: no clock is read and no id depends on memory. Nothing is loaded from anywhere.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from harness import __version__
from harness.records import Record, Run
from harness.report import format as text_form
from harness.report.charts import sparkline
from harness.report.details import FULL_CASES, Detail, details_from_rows
from harness.report.facts import machine_facts, run_length_s, tone_of_run, version_facts
from harness.report.flags import latency_flag_text
from harness.report.plots import format_metric, metric_name, pareto_plot, speed_up_plot, trend_plots
from harness.report.rows import Change, Row, batch_sizes, missing_cases, rows_from_records, unpacked
from harness.report.standing import BAD, NEEDS_A_LOOK, Standing, finding, leading_verdict, verdict_sentence
from harness.specs import Precision
from harness.stats.changes import MIN_LEVEL_RUNS
from harness.store.history import History, Metric

MAX_BATCHES_SHOWN = 3  # in the matrix; the cases' sections show every batch size
MAX_ATTENTION = 6
MAX_OPEN = 3  # bad cases whose section stands open from the start
MAX_AGREEMENTS = 100
MAX_HISTORY_ROWS = 200
MAX_STEPS = 60
MIN_HISTORY_RUNS = 2
MIN_TREND_RUNS = 2 * MIN_LEVEL_RUNS  # fewer runs can show no change of level
MAX_OVERVIEW_MODELS = 24
COMPRESSION = 6
PRECISION_ORDER = [precision.value for precision in Precision]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How often two backends predict the same class on the same images."""

    model: str
    precision: str
    backends: tuple[str, str]
    n_images: int
    n_different: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendRow:
    """One case of the history: a thin line and the newest value of each metric."""

    case_id: str
    cells: tuple[tuple[Markup, str] | None, ...]  # (line, newest value), in the metrics' order


def render_html(
    run: Run,
    records: Sequence[Record],
    *,
    baseline: tuple[Run, Sequence[Record]] | None = None,
    history: History | None = None,
    full_cases: int = FULL_CASES,
    machine_calibration: str = "",
) -> str:
    """Return the report of one run as one HTML file.

    `full_cases`: how many cases, worst first, keep pictures, confusion matrix and all layers.
    `machine_calibration`: one line on this machine's measured false-alarm rate and power, "" when never measured.
    """
    rows = rows_from_records(records, baseline=baseline)
    details = details_from_rows(rows, full_cases=full_cases)
    missing = missing_cases(run, records, baseline)
    sizes = batch_sizes(rows)
    context = {
        "run": run,
        "rows": rows,
        "details": details,
        "sentence": verdict_sentence(run, records, missing=missing),
        "tone": tone_of_run(run, rows, missing),
        "missing": missing,
        "counts": Counter(row.standing for row in rows),
        "standings": list(Standing),
        "attention": [row for row in sorted(rows, key=_worst_first) if row.standing in NEEDS_A_LOOK][:MAX_ATTENTION],
        "n_attention": sum(row.standing in NEEDS_A_LOOK for row in rows),
        "open_anchors": {row.anchor for row in [row for row in rows if row.standing in BAD][:MAX_OPEN]},
        "baseline_run": baseline[0] if baseline else None,
        "baseline_has_changes": any(row.against_baseline for row in rows),
        "machine": machine_facts(run, records, machine_calibration),
        "versions": version_facts(run, baseline),
        "length_s": run_length_s(run),
        "batches": sizes if len(sizes) <= MAX_BATCHES_SHOWN else [sizes[0], sizes[len(sizes) // 2], sizes[-1]],
        "choices": _choices(rows),
        **_overview(rows),
        **_stored_sections(details),
        **_across(rows, sizes),
        **_history_context(history, rows),
    }
    text = _environment().get_template("page.html.j2").render(context)
    # A lone surrogate in a name from a file has no UTF-8 form; the page shows its escape instead.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def agreements_from_rows(rows: Sequence[Row]) -> list[Agreement]:
    """Return, for every model and precision, how often each two backends agree; least agreement first."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.record.accuracy is not None:
            case = row.record.case
            groups.setdefault((case.model, case.precision.value, case.recipe), []).append(row)
    found = []
    for (model, precision, _), members in groups.items():
        for one, other in combinations(members, 2):
            ours, theirs = one.record.accuracy, other.record.accuracy
            if ours is None or theirs is None or ours.fingerprint != theirs.fingerprint:
                continue
            found.append(
                Agreement(
                    model=model,
                    precision=precision,
                    backends=(one.record.case.backend, other.record.case.backend),
                    n_images=ours.n_images,
                    n_different=int(np.count_nonzero(unpacked(ours.predictions) != unpacked(theirs.predictions))),
                )
            )
    return sorted(found, key=lambda pair: -pair.n_different / pair.n_images)


def _worst_first(row: Row) -> tuple[int, int]:
    lost = row.against_fp32.n_lost if row.against_fp32 and row.against_fp32.n_lost else 0
    return row.standing.rank, -lost


def _choices(rows: Sequence[Row]) -> dict[str, list[str]]:
    return {
        "backend": sorted({row.record.case.backend for row in rows}),
        "precision": sorted({row.record.case.precision.value for row in rows}),
    }


def _stored_sections(details: Sequence[Detail]) -> dict[str, Any]:
    """Return the sections that are not in the page's tree: their escaped HTML as JSON, deflated, in base64.

    A section is mostly what all sections are, so a thousand of them take a fifth of the room, and none of their nodes
    is made before the page's script unfolds it.
    """
    module: Any = _environment().get_template("body.html.j2").module
    stored = {detail.row.anchor: str(module.body(detail)) for detail in details if not detail.is_inline}
    packed = zlib.compress(json.dumps(stored).encode("ascii"), COMPRESSION) if stored else b""
    return {"stored": base64.b64encode(packed).decode("ascii"), "n_brief": sum(not x.is_full for x in details)}


def _overview(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the grid of models against backends and precisions; models without a fault give way to others."""
    found = {_column(row) for row in rows}
    columns = sorted(found, key=lambda column: (column[0], PRECISION_ORDER.index(column[1]), column[2]))
    models: dict[str, dict[tuple[str, str, str], Row]] = {}
    for row in rows:
        cells = models.setdefault(row.record.case.model, {})
        other = cells.get(_column(row))
        if other is None or row.standing.rank < other.standing.rank:
            cells[_column(row)] = row
    worst_first = sorted(models, key=lambda model: min(row.standing.rank for row in models[model].values()))
    shown = set(worst_first[:MAX_OVERVIEW_MODELS])
    backends = Counter(column[0] for column in columns)
    return {
        "overview_columns": [(backend, " ".join(filter(None, rest))) for backend, *rest in columns],
        "overview_backends": list(backends.items()),
        "overview_rows": [
            (model, [cells.get(column) for column in columns]) for model, cells in models.items() if model in shown
        ],
        "n_models_left_out": len(models) - len(shown),
    }


def _column(row: Row) -> tuple[str, str, str]:
    case = row.record.case
    extra = case.id[len(f"{case.model}-{case.backend}-{case.precision}") :].strip("-")
    return case.backend, case.precision.value, extra


def _across(rows: Sequence[Row], sizes: Sequence[int]) -> dict[str, Any]:
    ends = list(dict.fromkeys([*sizes[:1], *sizes[-1:]]))
    agreements = agreements_from_rows(rows)
    bars = [(size, *speed_up_plot(rows, size)) for size in ends]
    return {
        "paretos": [(size, plot) for size in ends if (plot := pareto_plot(rows, size))],
        "speed_ups": [bar for bar in bars if bar[1]],
        "agreements": [pair for pair in agreements if pair.n_different][:MAX_AGREEMENTS],
        "n_differing": sum(pair.n_different > 0 for pair in agreements),
        "n_agreed": sum(pair.n_different == 0 for pair in agreements),
    }


def _history_context(history: History | None, rows: Sequence[Row]) -> dict[str, Any]:
    if history is None or len(history.runs) < MIN_HISTORY_RUNS:
        return {"history": None}
    here = [row.record.case.id for row in sorted(rows, key=_worst_first)]
    metrics = list(history.values)
    return {
        "history": history,
        "metrics": metrics,
        "trends": trend_plots(history, here) if len(history.runs) >= MIN_TREND_RUNS else [],
        "steps": history.steps[:MAX_STEPS],
        "trend_rows": [_trend_row(history, case_id, metrics) for case_id in history.case_ids[:MAX_HISTORY_ROWS]],
    }


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


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
    )
    environment.filters |= {
        name: getattr(text_form, name) for name in dir(text_form) if name.startswith("format_") or name == "plural"
    }
    environment.filters |= {"metric_name": metric_name, "latency_flag_text": latency_flag_text}
    environment.globals |= {
        "finding": finding,
        "leading_verdict": leading_verdict,
        "format_metric": format_metric,
        "format_change_of": _change_in_words,
        "source": _source,
        "min_trend_runs": MIN_TREND_RUNS,
        "generator": f"nn-engine-harness {__version__}",
    }
    return environment


def _source(name: str) -> Markup:
    """Return a style sheet or script of ours as it is; no name or text from a run is ever in it."""
    loader = jinja2.PackageLoader("harness.report")
    return Markup(loader.get_source(jinja2.Environment(autoescape=True), name)[0])


def _change_in_words(change: Change) -> str:
    return text_form.format_images(change.n_lost, change.n_gained)
