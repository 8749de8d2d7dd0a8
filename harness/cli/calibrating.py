"""`harness calibrate`: what this machine's times can tell, measured. (`harness calibration` is about INT8's ranges.)"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.runs import BASELINES, one_line_errors
from harness.errors import ConfigError
from harness.options.tolerances import value_from_text
from harness.options.values import HarnessOptions
from harness.run.calibrated import stored_night
from harness.run.calibrating import CalibrationPlan, calibrate
from harness.run.plan import plan_run
from harness.specs import DEFAULT_PRECISIONS, Precision, TimingPlan
from harness.stats.calibrated import MIN_PAIRS

ROUND_NS, WARMUP_NS = 10_000_000, 20_000_000
SECONDS_A_PAIR = 6  # of one case at two batch sizes on a CPU: two processes, and four times their rounds
SECONDS_A_MINUTE = 60
DEFAULTS = CalibrationPlan()


@one_line_errors
def calibrate_command(
    backend: Annotated[list[str] | None, typer.Option(help="Only this backend; repeatable.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only this model, name or path; repeatable.")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="Only this precision; repeatable.")] = None,
    batch_size: Annotated[list[int] | None, typer.Option(help="Only this batch size; repeatable.")] = None,
    pairs: Annotated[
        int, typer.Option(min=MIN_PAIRS, help="Pairs of fresh processes of each case.")
    ] = DEFAULTS.n_pairs,
    builds: Annotated[int, typer.Option(min=1, help="Builds of each engine.")] = DEFAULTS.n_builds,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of each process.")] = 6,
    max_slowdown: Annotated[
        str | None,
        typer.Option(help="Accepted slowdown that rates are stated for (default: 2% on a CPU, 0.5% on a GPU)."),
    ] = None,
    alpha: Annotated[str | None, typer.Option(help="False-alarm rate of one comparison (default: 0.001).")] = None,
    device: Annotated[str, typer.Option(help="Device, as cuda:0 (default: each backend's first).")] = "auto",
    engine_cache: Annotated[str, typer.Option(help="Folder of engines (default: the user's cache).")] = "",
    baseline_dir: Annotated[Path, typer.Option(help="Stored baselines.")] = BASELINES,
    extension_dir: Annotated[list[str] | None, typer.Option(help="Folder with backends of your own.")] = None,
) -> None:
    """Measure how far times scatter here, how often the latency gate cries wolf, and which slowdowns it catches.

    Unchanged engines in pairs of fresh processes, and the same slowed down by 1, 2 and 5 % inside the timed region.
    The result is stored beside the baselines, by type of device; another day's calibration adds a night.
    """
    options = HarnessOptions(
        backends=tuple(backend or ("auto",)),
        models=tuple(model or ()),
        precisions=tuple(map(_precision, precision)) if precision else DEFAULT_PRECISIONS,
        timing=TimingPlan(
            batch_sizes=tuple(batch_size or TimingPlan().batch_sizes),
            n_rounds=rounds,
            round_ns=ROUND_NS,
            warmup_ns=WARMUP_NS,
        ),
        device=device,
        engine_cache=engine_cache,
        extension_dirs=tuple(extension_dir or ()),
    )
    asked = CalibrationPlan(
        n_pairs=pairs,
        n_builds=builds,
        max_slowdown=_fraction("max_slowdown", max_slowdown),
        alpha=_fraction("alpha", alpha) or DEFAULTS.alpha,
    )
    plan = plan_run(options)
    minutes = max(1, round(len(plan.cases) * pairs * SECONDS_A_PAIR / SECONDS_A_MINUTE))
    counted = f"{_counted(len(plan.cases))}, {pairs} pairs of processes each"
    typer.echo(f"{counted}: about {minutes} min on a CPU; keep the machine idle")
    scratch = Path(tempfile.mkdtemp(prefix="harness-calibrate-"))
    try:
        tonight = calibrate(options, plan, asked, folder=scratch, echo=typer.echo)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    width = shutil.get_terminal_size((120, 24)).columns
    for calibration in tonight:
        for line in stored_night(calibration, baseline_dir, width=width):
            typer.echo(line)


def _counted(n_cases: int) -> str:
    return "1 case" if n_cases == 1 else f"{n_cases} cases"


def _precision(name: str) -> Precision:
    try:
        return Precision(name)
    except ValueError as error:
        raise ConfigError(f"--precision={name}: expected one of {', '.join(Precision)}") from error


def _fraction(name: str, text: str | None) -> float | None:
    return None if text is None else value_from_text(name, text, where=f"--{name.replace('_', '-')}")
