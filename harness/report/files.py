"""The files a reader opens: index.html, report.md, tables. One report is made from records, and each prints it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import ConfigError
from harness.records import Record, Run
from harness.report.badge import render_badge
from harness.report.html import render_html
from harness.report.markdown import render_markdown
from harness.report.model import PreviousRun, Report, build_report, rows_of_cases
from harness.report.summary import summary_bytes
from harness.report.tables import write_table
from harness.store.history import load_history
from harness.store.runs import previous_run, write_atomically


def report_of_run(folder: Path, run: Run, records: Sequence[Record], *, previous: PreviousRun | None = None) -> Report:
    """Make the report of a stored run, with the history of the runs beside it, up to it.

    Without a `previous` run it is compared with the one before it. A shard is compared with none: beside it lie the
    other shards of its night.
    """
    if run.shard is not None:
        return build_report(run, records, previous=previous)
    history, notes = load_history(folder.resolve().parent, until=run.started_at), tuple[str, ...]()
    if previous is None:
        previous, notes = previous_run(folder, run, records)
    return build_report(
        replace(run, notes=(*run.notes, *notes, *history.notes)),
        records,
        previous=previous,
        history=history,
    )


def summary_of_run(run: Run, records: Sequence[Record]) -> bytes:
    """Return the content of summary.json; the history that a report tells is read from such files, its own among them.

    records: judged, references left out.
    """
    return summary_bytes(run, rows_of_cases(records))


def write_reports(folder: Path, report: Report, *, page: Path | None = None, tables: Path | None = None) -> list[str]:
    """Write page, Markdown and badge into a run's folder (or the page alone to `page`), and say where they are.

    `tables`: also all cases as one .csv or .parquet file.
    Raises: ConfigError for a file that cannot be written or a table of another kind.
    """
    target = page or folder / "index.html"
    try:
        write_atomically(target, render_html(report).encode())
        written = [target]
        if page is None:
            write_atomically(folder / "report.md", render_markdown(report).encode())
            written.append(folder / "report.md")
            write_atomically(folder / "badge.svg", render_badge(report).encode())
        if tables:
            write_table(report.rows, tables)
            written.append(tables)
    except OSError as error:
        raise ConfigError(f"{target}: the report cannot be written ({error.strerror})") from error
    return [f"report: {path}" for path in written]
