"""`harness calibrate`: what this machine's times can tell, measured. (`harness calibration` is about INT8's ranges.)"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.runs import one_line_errors
from harness.cli.words import options_of_words
from harness.run.calibrated import stored_night
from harness.run.calibrating import CalibrationPlan, calibrate
from harness.run.plan import plan_run
from harness.stats.calibrated import MIN_PAIRS

ROUND_NS, WARMUP_NS = 10_000_000, 20_000_000
SECONDS_A_PAIR = 6  # of one case at two batch sizes on a CPU: two processes, and four times their rounds
SECONDS_A_MINUTE = 60
DEFAULTS = CalibrationPlan()
# Fields of a run that mean nothing where no run is judged.
MEANINGLESS = (
    *("resume", "shard", "shard_plan", "shard_attempt", "report_url", "report_dir", "baseline", "control_python"),
    *("update_baselines", "accept_regressions", "strict", "floor", "allow_chance", "require_precision", "max_drop"),
    "timing.n_rounds",
)


@one_line_errors
def calibrate_command(
    ctx: typer.Context,
    pairs: Annotated[
        int, typer.Option(min=MIN_PAIRS, help="Pairs of fresh processes of each case.")
    ] = DEFAULTS.n_pairs,
    builds: Annotated[int, typer.Option(min=1, help="Builds of each engine.")] = DEFAULTS.n_builds,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of each process.")] = 6,
) -> None:
    """Measure how far times scatter here, how often the latency gate cries wolf, and which slowdowns it catches.

    Unchanged engines in pairs of fresh processes, and the same slowed down by 1, 2 and 5 % inside the timed region.
    Takes the options of a run too, --backend, --model, --precision, --batch-size, --max-slowdown (rates are stated for
    it; default: 2% on a CPU, 0.5% on a GPU), ...: docs/options.md. The result is stored beside the baselines, by type
    of device; another day's calibration adds a night.
    """
    typed = options_of_words(ctx.args, root=Path.cwd(), meaningless=MEANINGLESS, where="where times are calibrated")
    timing = replace(typed.timing, n_rounds=rounds, round_ns=ROUND_NS, warmup_ns=WARMUP_NS)
    options = replace(typed, timing=timing)
    asked = CalibrationPlan(
        n_pairs=pairs,
        n_builds=builds,
        max_slowdown=options.max_slowdown,
        alpha=options.alpha or DEFAULTS.alpha,
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
        for line in stored_night(calibration, Path(options.baseline_dir), width=width):
            typer.echo(line)


def _counted(n_cases: int) -> str:
    return "1 case" if n_cases == 1 else f"{n_cases} cases"
