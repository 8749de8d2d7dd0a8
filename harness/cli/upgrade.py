"""`harness ab`: the same cases under two interpreters with other versions of a runtime."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.runs import exit_as, one_line_errors
from harness.cli.words import options_of_words
from harness.report.upgrade_table import upgrade_table
from harness.run.upgrading import run_upgrade

MODELS = Path("models")
# Fields of a run that mean nothing where two sides are compared.
MEANINGLESS = (
    *("worker_python", "resume", "shard", "shard_plan", "shard_attempt", "report_url"),
    *("baseline", "update_baselines", "accept_regressions"),
    *("strict", "floor", "allow_chance", "require_precision"),
    *("control_python", "timing.throughput", "timing.concurrency", "timing.energy_loops"),
)


@one_line_errors
def ab_command(
    ctx: typer.Context,
    a: Annotated[str, typer.Option("--a", help="Side A, what was accepted: a Python, or a venv's or tox folder.")],
    b: Annotated[str, typer.Option("--b", help="Side B, what is to follow it.")],
    a_label: Annotated[str, typer.Option(help="Name of side A (default: its versions).")] = "",
    b_label: Annotated[str, typer.Option(help="Name of side B (default: its versions).")] = "",
    timing: Annotated[bool, typer.Option("--timing/--no-timing", help="Compare times, too.")] = True,
) -> None:
    """Run the same cases under two interpreters and judge side B against side A: an upgrade before it is made.

    Takes the options of a run too, --backend, --model, --precision, ...: docs/options.md. Exits with 1 when something
    is worse, and with 2 when nothing could be compared.
    """
    options = options_of_words(
        ctx.args, root=Path.cwd(), meaningless=MEANINGLESS, where="between two sides of an upgrade"
    )
    upgrade = run_upgrade(
        options,
        (a, b),
        (a_label, b_label),
        models_dir=MODELS,
        command=shlex.join(["harness", *sys.argv[1:]]),
        echo=typer.echo,
        has_times=timing,
    )
    width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else None
    told = upgrade_table(upgrade.report, color=sys.stdout.isatty(), width=width)
    for line in (*told, *upgrade.files):
        typer.echo(line)
    exit_as(upgrade.verdicts)
