"""`harness compare A B`: two runs, or two runs of the operators suite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.runs import exit_as, one_line_errors, run_folder
from harness.gates import compare_runs
from harness.options.tolerances import value_from_text
from harness.report.files import report_of_run, write_reports
from harness.report.operators import comparison_of_operators
from harness.report.terminal import comparison_lines
from harness.run.operator_lists import compared_lists, holds_lists, write_comparison
from harness.run.stored import load_judged_run


@one_line_errors
def compare(
    run_a: Annotated[Path, typer.Argument(help="The earlier run: folder, or name below reports/.")],
    run_b: Annotated[Path, typer.Argument(help="The later run.")],
    max_drop: Annotated[str | None, typer.Option(help="Accepted loss of top-1, 0.005 or 0.5%.")] = None,
    max_slowdown: Annotated[str | None, typer.Option(help="Accepted slowdown, 0.05 or 5%.")] = None,
    alpha: Annotated[str | None, typer.Option(help="False-alarm rate of one comparison.")] = None,
    across_devices: Annotated[
        bool, typer.Option("--across-devices", help="Also compare predictions of unlike types of device.")
    ] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Also write the comparison's page.")] = None,
) -> None:
    """Judge every case of run B against the same case of run A, or every operator: reports/operators/NAME.

    Exits with 1 when something regressed or is missing, and with 2 when nothing could be compared.
    """
    folder_a, folder_b = run_folder(run_a), run_folder(run_b)
    if holds_lists(folder_a) or holds_lists(folder_b):
        _compare_operators(folder_a, folder_b, output)
        return
    (a, records_a), (b, records_b) = load_judged_run(folder_a), load_judged_run(folder_b)
    given = {
        name: value_from_text(name, text, where=f"--{name.replace('_', '-')}")
        for name, text in (("max_drop", max_drop), ("max_slowdown", max_slowdown), ("alpha", alpha))
        if text is not None
    }
    if "max_drop" in given:
        given["max_drop_baseline"] = given["max_drop"]  # between two runs of one engine, not between precisions
    later = [replace(record, tolerance=replace(record.tolerance, **given)) for record in records_b]
    found = compare_runs(records_a, later, names=(f"run {a.id}", f"run {b.id}"), across_devices=across_devices)
    for line in comparison_lines((a, b), found.verdicts):
        typer.echo(line)
    if output:
        made = report_of_run(folder_b, b, found.records, previous=(a, records_a))
        for line in write_reports(folder_b, made, page=output):
            typer.echo(line)
    exit_as(found.verdicts)


def _compare_operators(folder_a: Path, folder_b: Path, output: Path | None) -> None:
    """Tell what became of the operators; exit as `compare`. Raises: ConfigError, DataError."""
    view = compared_lists(folder_a, folder_b)
    for line in comparison_of_operators(view):
        typer.echo(line)
    if output:
        typer.echo(write_comparison(view, folder_b, output))
    if len(view.alone) == len(view.cells):
        typer.echo("ERROR: nothing could be compared", err=True)
        raise typer.Exit(2)
    if view.worse or view.gone:
        raise typer.Exit(1)
