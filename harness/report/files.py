"""The files a reader opens: index.html, report.md, tables. Made from records alone, so any of them can be remade."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.errors import ConfigError
from harness.records import Record, Run
from harness.report.html import render_html
from harness.report.markdown import render_markdown
from harness.report.tables import write_table
from harness.store.history import load_history
from harness.store.runs import previous_run, write_atomically


def write_reports(
    folder: Path,
    run: Run,
    records: Sequence[Record],
    *,
    baseline: tuple[Run, Sequence[Record]] | None = None,
    page: Path | None = None,
    tables: Path | None = None,
) -> list[str]:
    """Write the page and its Markdown into a run's folder (or the page to `page`), and say where they are.

    Without a `baseline` it is compared with the run before it.
    `tables`: also all records as one .csv or .parquet file. The history is of the runs beside this one, up to it.
    Raises: ConfigError for a file that cannot be written or a table of another kind.
    """
    target = page or folder / "index.html"
    baseline = baseline or previous_run(folder, run, records)
    history = load_history(folder.resolve().parent, until=run.started_at)
    try:
        write_atomically(target, render_html(run, records, baseline=baseline, history=history).encode())
        written = [target]
        if page is None:
            write_atomically(
                folder / "report.md", render_markdown(run, records, baseline=baseline, history=history).encode()
            )
            written.append(folder / "report.md")
        if tables:
            write_table(records, tables)
            written.append(tables)
    except OSError as error:
        raise ConfigError(f"{target}: the report cannot be written ({error.strerror})") from error
    return [f"report: {path}" for path in written]
