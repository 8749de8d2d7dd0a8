"""The page of a run of the operators suite: one self-contained HTML file, as the page of a run of cases."""

from __future__ import annotations

from harness.report.html import page_environment
from harness.report.operators import OperatorsView


def render_operators(view: OperatorsView, *, title: str) -> str:
    """Return a view as one HTML file. `title`: which run it is of."""
    text = page_environment().get_template("operators.html.j2").render(view=view, title=title)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
