"""`harness doctor|report|baseline`: what is here, and what a run found."""

from __future__ import annotations

import datetime
import getpass
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from harness import __version__, fleet
from harness.errors import ConfigError, DataError, HarnessError
from harness.gates import CaseVerdicts, JudgeOptions, baseline_gates, judge_records
from harness.options.values import HarnessOptions
from harness.report.files import report_of_run, write_reports
from harness.report.terminal import comparison_lines
from harness.run.accepting import accepted_lines
from harness.run.doctor import doctor_lines
from harness.run.stored import load_judged_run, refuse_unfinished
from harness.store.baselines import BaselineStore, baseline_lines
from harness.store.selecting import prune_baselines as prune_stored

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
baseline_app = typer.Typer(help="Stored baselines: what last night's accuracy and latency were.", no_args_is_help=True)
app.add_typer(baseline_app, name="baseline")
fleet_app = typer.Typer(help="The shards of a plan, run here.", no_args_is_help=True)
app.add_typer(fleet_app, name="fleet")

BAD_FILE_STATUS = 4  # as pytest ends for a model file that cannot be used
REPORTS = Path("reports")
BASELINES = Path("suites/baselines")


def one_line_errors(command: Callable[..., Any], *, bad_file_status: int = 2) -> Callable[..., Any]:
    """Show our own errors as one line and exit with 2, for a file that cannot be used with `bad_file_status`."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except HarnessError as error:
            typer.echo(f"ERROR: {error}", err=True)
            raise typer.Exit(bad_file_status if isinstance(error, DataError) else 2) from error

    return run


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"nn-engine-harness {__version__}")
        raise typer.Exit


@app.callback()
def harness(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Benchmarking and accuracy-regression harness for inference engines. The suites run under pytest."""


@app.command()
@one_line_errors
def doctor(
    extension_dir: Annotated[list[str] | None, typer.Option(help="Folder with backends of your own.")] = None,
) -> None:
    """Say which backends, devices and data sets are usable here, with versions and reasons."""
    for line in doctor_lines(HarnessOptions(extension_dirs=tuple(extension_dir or ()))):
        typer.echo(line)


def run_folder(run: Path) -> Path:
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
    shard: Annotated[int | None, typer.Option(help="Of a merged run: the page of this shard.")] = None,
) -> None:
    """Regenerate a run's report from its records."""
    folder = run_folder(run)
    found, records = load_judged_run(folder)
    if found.n_shards and tables is None:
        for line in fleet.write_report(folder, found, records, shard):
            typer.echo(line)
        return
    earlier = load_judged_run(run_folder(previous)) if previous else None
    made = report_of_run(folder, found, records, previous=earlier)
    for line in write_reports(folder, made, page=output, tables=tables):
        typer.echo(line)


@app.command()
@one_line_errors
def plan(
    fleet_file: Annotated[Path, typer.Option("--fleet", help="What to run on which types of device.")] = Path(
        "fleet.toml"
    ),
    output: Annotated[Path, typer.Option("-o", "--output", help="The plan.")] = Path("shards.json"),
    reports: Annotated[Path, typer.Option(help="Folder of merged runs: what shards took on earlier nights.")] = REPORTS,
) -> None:
    """Cut a fleet's cases into shards, one for all cases of a model on a type of device, the longest first."""
    for line in fleet.write_fleet_plan(fleet_file, output, reports=reports):
        typer.echo(line)


@fleet_app.command("run")
@one_line_errors
def run_fleet(
    device: Annotated[str, typer.Option(help="The device of the plan that this host has.")] = "",
    gpus: Annotated[str, typer.Option(help="Its cards, 0,1,...: one chain of shards each.")] = "",
    ray: Annotated[str | None, typer.Option(help="Instead: address of a Ray cluster, or auto.")] = None,
    checkout: Annotated[str, typer.Option(help="The checkout on the cluster's nodes (default: this path).")] = "",
    deadline: Annotated[float, typer.Option(min=1, help="Seconds after which a shard is tried again.")] = 3600,
    attempts: Annotated[int, typer.Option(min=1, help="Tries of a shard.")] = 3,
    shard_plan: Annotated[Path, typer.Option(help="The plan.")] = Path("shards.json"),
    report_dir: Annotated[Path, typer.Option(help="Where the shards' folders go.")] = Path("shards"),
) -> None:
    """Run a plan's shards on this host's devices or on Ray; what was run to its end before is not run again.

    Exits with 1 when a shard was lost. Verdicts are told by `harness merge`.
    """
    lost = fleet.run_fleet(
        shard_plan,
        report_dir,
        device=device,
        cards=[card.strip() for card in gpus.split(",") if card.strip()],
        ray_address=ray,
        checkout=checkout,
        deadline_s=deadline,
        max_attempts=attempts,
        echo=typer.echo,
    )
    if lost:
        typer.echo(f"ERROR: no try of the shards {', '.join(map(str, lost))} ran to its end", err=True)
        raise typer.Exit(1)


@app.command()
@one_line_errors
def merge(
    shards: Annotated[list[Path], typer.Argument(help="Folders of shards, or folders that hold such folders.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The merged run's folder, which is made.")],
    shard_plan: Annotated[Path, typer.Option(help="The plan of the shards.")] = Path("shards.json"),
) -> None:
    """Merge shards into one run, judged as one family.

    Exits with 1 when a case failed, broke or never came, and with 2 when nothing could be merged.
    """
    merged = fleet.merge_folders(shards, shard_plan, output)
    for line in merged.lines:
        typer.echo(line)
    if merged.is_red:
        raise typer.Exit(1)


@app.command()
@one_line_errors
def history(
    case: Annotated[str | None, typer.Argument(help="A case's id; without one, all that changed for good.")] = None,
    reports: Annotated[Path, typer.Option(help="The folder that runs are written to.")] = REPORTS,
    last: Annotated[int, typer.Option(help="Newest runs to look at.")] = 365,
    device: Annotated[str, typer.Option(help="Only device types whose name holds this.")] = "",
) -> None:
    """Say how a case did over the nights, on every type of device: levels, lasting changes, and what changed then."""
    if case is None:
        lines = fleet.change_lines(reports, last=last, device=device)
    else:
        lines = fleet.history_lines(reports, case, last=last, device=device)
    for line in lines:
        typer.echo(line)


@app.command()
@one_line_errors
def bisect(
    case: Annotated[str, typer.Argument(help="A case's id.")],
    good: Annotated[str, typer.Option(help="Lock file or commit of before (default: the last good night's).")] = "",
    bad: Annotated[str, typer.Option(help="Lock file or commit of after (default: the first bad night's).")] = "",
    run: Annotated[Path, typer.Option(help="A run that has the case; its command is repeated.")] = Path("latest"),
    top1: Annotated[bool, typer.Option("--top1", help="Look for lost images; without it for lost time.")] = False,
    batch_size: Annotated[int | None, typer.Option(help="Batch size of the time (default: the first).")] = None,
    reports: Annotated[Path, typer.Option(help="The folder of runs whose history tells good from bad.")] = REPORTS,
    device: Annotated[str, typer.Option(help="Only device types whose name holds this.")] = "",
) -> None:
    """Find which package or commit made a case worse: halving, each half a paired sequential test."""
    line = fleet.bisect_case(
        case,
        good,
        bad,
        run=run_folder(run),
        metric="top1" if top1 else "p50_ns",
        batch_size=batch_size,
        echo=typer.echo,
        reports=reports,
        device=device,
    )
    typer.echo(line)


@app.command()
@one_line_errors
def tidy(
    reports: Annotated[Path, typer.Argument(help="The folder that runs are written to.")] = REPORTS,
    keep_nights: Annotated[int, typer.Option(min=1, help="Nights whose records are kept whole.")] = fleet.KEEP_NIGHTS,
) -> None:
    """Thin out old runs: raw records of red cases and history stay for ever, all else for some nights."""
    now = datetime.datetime.now(datetime.timezone.utc)
    for line in fleet.tidy_runs(reports, now=now, keep_nights=keep_nights):
        typer.echo(line)


@baseline_app.command("show")
@one_line_errors
def show_baselines(
    case: Annotated[str | None, typer.Option(help="One case in full.")] = None,
    folder: Annotated[Path, typer.Option("--baseline-dir", help="Stored baselines.")] = BASELINES,
) -> None:
    """List stored baselines, or show one."""
    for line in baseline_lines(BaselineStore(folder), case):
        typer.echo(line)


@baseline_app.command("accept")
@one_line_errors
def accept_baselines(
    run: Annotated[Path, typer.Argument(help="The run to accept.")] = Path("latest"),
    case: Annotated[
        list[str] | None, typer.Option(help="Only this case, even if it regressed against its baseline; repeatable.")
    ] = None,
    by: Annotated[str, typer.Option(help="Who accepts it.")] = "",
    reason: Annotated[str, typer.Option(help="Why; kept in the baseline's history.")] = "",
    new_budget: Annotated[
        bool, typer.Option("--new-budget", help="Accepted changes add up from here on anew; needs --reason.")
    ] = False,
    folder: Annotated[Path, typer.Option("--baseline-dir", help="Stored baselines.")] = BASELINES,
    engine_cache: Annotated[
        str, typer.Option(help="Where accepted engines are kept (default: the user's cache).")
    ] = "",
) -> None:
    """Make a run's cases the baselines of later runs.

    A case that regressed against its baseline, or could not be compared with it, is accepted by name only; one whose
    accepted changes add up beyond its budget, with --new-budget only.
    """
    found, records = load_judged_run(run_folder(run))
    refuse_unfinished(found)
    lines = accepted_lines(
        BaselineStore(folder),
        records,
        case_ids=case or (),
        by=by or getpass.getuser(),
        engine_cache=engine_cache,
        reason=reason,
        new_budget=new_budget,
    )
    for line in lines:
        typer.echo(line)


@baseline_app.command("diff")
@one_line_errors
def diff_baselines(
    run: Annotated[Path, typer.Argument(help="The run to compare.")] = Path("latest"),
    folder: Annotated[Path, typer.Option("--baseline-dir", help="Stored baselines.")] = BASELINES,
) -> None:
    """Compare a run with the stored baselines.

    Exits with 1 when something regressed, and with 2 when nothing could be compared.
    """
    found, records = load_judged_run(run_folder(run))
    baselines, errors = BaselineStore(folder).load_for(records)
    if errors:
        raise next(iter(errors.values()))
    stored = baseline_gates()
    judged = judge_records(records, baselines, JudgeOptions(gates=stored, stored_in=str(folder)))
    verdicts = [(record.case.id, record.verdicts) for record in judged if not record.is_reference]
    for line in comparison_lines((found,), verdicts):
        typer.echo(line)
    exit_as(verdicts)


def exit_as(verdicts: Sequence[CaseVerdicts]) -> None:
    """Exit with 1 when something is worse, with 2 when nothing could be compared."""
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
