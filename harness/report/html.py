"""The page an engineer opens in the morning: one self-contained HTML file, printed from a report.

The same report gives the same bytes: no clock is read and no id depends on memory. Nothing is loaded from anywhere.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jinja2
from markupsafe import Markup

from harness import __version__
from harness.report import format as text_form
from harness.report.details import Detail
from harness.report.flags import latency_flag_text
from harness.report.model import Report
from harness.report.plots import format_metric, metric_name
from harness.report.rows import Change, Row, timing_modes
from harness.report.standing import BAD, Standing, outcome_word
from harness.report.trends import MIN_TREND_RUNS
from harness.report.trust import trust_lines

MAX_BATCHES_SHOWN = 3  # in the matrix; the cases' sections show every batch size
MAX_ATTENTION = 6  # reasons
MAX_NAMED = 8  # cases of one reason
MAX_OPEN = 3  # bad cases whose section stands open from the start
COMPRESSION = 6


def render_html(report: Report) -> str:
    """Return a report as one HTML file."""
    sizes, rows = report.sizes, report.rows
    context = {
        "report": report,
        "run": report.run,
        "rows": rows,
        "details": report.details,
        "standings": list(Standing),
        "attention": report.attention[:MAX_ATTENTION],
        "max_named": MAX_NAMED,
        "open_anchors": {row.anchor for row in [row for row in rows if row.standing in BAD][:MAX_OPEN]},
        "has_baseline": any(row.has_baseline for row in rows),
        "has_scores": any(row.samples or row.top1 is not None for row in rows),
        "has_metrics": any(row.samples for row in rows),
        "has_previous": any(row.against_previous or (row.samples and row.samples.against_previous) for row in rows),
        "batches": sizes if len(sizes) <= MAX_BATCHES_SHOWN else [sizes[0], sizes[len(sizes) // 2], sizes[-1]],
        "choices": _choices(rows),
        "modes": timing_modes(rows),
        **_stored_sections(report.details),
    }
    text = page_environment().get_template("page.html.j2").render(context)
    # A lone surrogate in a name from a file has no UTF-8 form; the page shows its escape instead.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


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
    module: Any = page_environment().get_template("body.html.j2").module
    stored = {detail.row.anchor: str(module.body(detail)) for detail in details if not detail.is_inline}
    packed = zlib.compress(json.dumps(stored).encode("ascii"), COMPRESSION) if stored else b""
    return {"stored": base64.b64encode(packed).decode("ascii"), "n_brief": sum(not x.is_full for x in details)}


@lru_cache(maxsize=1)
def page_environment() -> jinja2.Environment:
    """Return what the templates are read and filled with."""
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
    environment.filters |= {
        "metric_name": metric_name,
        "latency_flag_text": latency_flag_text,
        "trust_lines": trust_lines,
        "outcome_word": outcome_word,
    }
    environment.globals |= {
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
