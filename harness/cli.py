"""`harness doctor|report|compare|baseline`: the command line beside pytest. The only file that imports typer."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.errors import BaselineError, ConfigError, HarnessError
from harness.gates import CaseVerdicts, JudgeOptions, baseline_gates, compare_runs, judge_records
from harness.options.tolerances import value_from_text
from harness.options.values import HarnessOptions
from harness.report.files import report_of_run, write_reports
from harness.report.terminal import comparison_lines
from harness.run.cases import utc_now
from harness.run.doctor import doctor_lines
from harness.run.stored import load_judged_run, refuse_unfinished
from harness.store.baseline_files import line_from_baseline, text_from_baseline
from harness.store.baselines import BaselineStore, replaced_lines
from harness.store.selecting import prune_baselines as prune_stored

app = typer.Typer(
    help="Benchmarking and accuracy-regression harness for inference engines. The suites run under pytest.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
baseline_app = typer.Typer(help="Stored baselines: what last night's accuracy and latency were.", no_args_is_help=True)
app.add_typer(baseline_app, name="baseline")

REPORTS = Path("reports")
BASELINES = Path("suites/baselines")


def main() -> None:
    """Run the command line."""
    app()


def one_line_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Show our own errors as one line and exit with 2."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except HarnessError as error:
            typer.echo(f"ERROR: {error}", err=True)
            raise typer.Exit(2) from error

    return run


@app.command()
@one_line_errors
def doctor(
    extension_dir: Annotated[list[str] | None, typer.Option(help="Folder with backends of your own.")] = None,
) -> None:
    """Say which backends, devices and data sets are usable here, with versions and reasons."""
    for line in doctor_lines(HarnessOptions(extension_dirs=tuple(extension_dir or ()))):
        typer.echo(line)


def _runs(run: Path) -> Path:
    """Return a run's folder: a path, or a name below reports/ (`latest` is the newest)."""
    return run if run.exists() else REPORTS / run


@app.command()
@one_line_errors
def report(
    run: Annotated[Path, typer.Argument(help="A run: its folder, or its name below reports/.")] = Path("latest"),
    previous: Annotated[
        Path | None, typer.Option(help="The earlier run to compare with (default: the one before it).")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page (default: index.html of the run).")
    ] = None,
    tables: Annotated[Path | None, typer.Option(help="Also write all cases as .csv or .parquet.")] = None,
) -> None:
    """Regenerate a run's report from its records."""
    folder = _runs(run)
    found, records = load_judged_run(folder)
    earlier = load_judged_run(_runs(previous)) if previous else None
    made = report_of_run(folder, found, records, previous=earlier)
    for line in write_reports(folder, made, page=output, tables=tables):
        typer.echo(line)


@app.command()
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
    """Judge every case of run B against the same case of run A.

    Exits with 1 when something regressed or is missing, and with 2 when nothing could be compared.
    """
    (a, records_a), (b, records_b) = load_judged_run(_runs(run_a)), load_judged_run(_runs(run_b))
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
        made = report_of_run(_runs(run_b), b, found.records, previous=(a, records_a))
        for line in write_reports(_runs(run_b), made, page=output):
            typer.echo(line)
    _exit_as(found.verdicts)


@baseline_app.command("show")
@one_line_errors
def show_baselines(
    case: Annotated[str | None, typer.Option(help="One case in full.")] = None,
    folder: Annotated[Path, typer.Option("--baseline-dir", help="Stored baselines.")] = BASELINES,
) -> None:
    """List stored baselines, or show one."""
    baselines = [b for b in BaselineStore(folder).load_all() if case in (None, b.case.id)]
    if not baselines:
        raise BaselineError(f"{folder} holds no baseline{f' of {case}' if case else ''}; see harness baseline accept")
    for baseline in baselines:
        typer.echo(text_from_baseline(baseline) if case else line_from_baseline(baseline))


@baseline_app.command("accept")
@one_line_errors
def accept_baselines(
    run: Annotated[Path, typer.Argument(help="The run to accept.")] = Path("latest"),
    case: Annotated[
        list[str] | None, typer.Option(help="Only this case, even if it regressed against its baseline; repeatable.")
    ] = None,
    by: Annotated[str, typer.Option(help="Who accepts it.")] = "",
    folder: Annotated[Path, typer.Option("--baseline-dir", help="Stored baselines.")] = BASELINES,
) -> None:
    """Make a run's cases the baselines of later runs.

    A case that regressed against its baseline, or could not be compared with it, is accepted by name only.
    """
    found, records = load_judged_run(_runs(run))
    refuse_unfinished(found)
    written = BaselineStore(folder).accept(
        records, case_ids=case or (), accepted_by=by or getpass.getuser(), accepted_at=utc_now()
    )
    for line in replaced_lines(records, written):
        typer.echo(line)
    for path in written:
        typer.echo(f"wrote {path}")


@baseline_app.command("diff")
@one_line_errors
def diff_baselines(
    run: Annotated[Path, typer.Argument(help="The run to compare.")] = Path("latest"),
    folder: Annotated[Path, typer.Option("--baseline-dir", help="Stored baselines.")] = BASELINES,
) -> None:
    """Compare a run with the stored baselines.

    Exits with 1 when something regressed, and with 2 when nothing could be compared.
    """
    found, records = load_judged_run(_runs(run))
    baselines, errors = BaselineStore(folder).load_for(records)
    if errors:
        raise next(iter(errors.values()))
    stored = baseline_gates()
    judged = judge_records(records, baselines, JudgeOptions(gates=stored, stored_in=str(folder)))
    verdicts = [(record.case.id, record.verdicts) for record in judged if not record.is_reference]
    for line in comparison_lines((found,), verdicts):
        typer.echo(line)
    _exit_as(verdicts)


def _exit_as(verdicts: Sequence[CaseVerdicts]) -> None:
    given = [verdict for _, verdicts_of_case in verdicts for verdict in verdicts_of_case]
    if not any(verdict.was_compared for verdict in given):
        typer.echo("ERROR: nothing could be compared", err=True)
        raise typer.Exit(2)
    if any(verdict.is_failure for verdict in given):
        raise typer.Exit(1)


@baseline_app.command("prune")
@one_line_errors
def prune_baselines(
    case: Annotated[list[str] | None, typer.Option(help="A case that is given up; repeatable.")] = None,
    backend: Annotated[list[str] | None, typer.Option(help="A backend that is given up; repeatable.")] = None,
    folder: Annotated[Path, typer.Option("--baseline-dir", help="Stored baselines.")] = BASELINES,
) -> None:
    """Delete the baselines of cases or backends that are given up: no later run expects them."""
    if not (case or backend):
        raise ConfigError("name what is given up: --case or --backend")
    for path in prune_stored(BaselineStore(folder), case_ids=case or (), backends=backend or ()):
        typer.echo(f"deleted {path}")
