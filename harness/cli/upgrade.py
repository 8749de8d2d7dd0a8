"""`harness ab`: the same cases under two interpreters with other versions of a runtime."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from harness.cli.runs import exit_as, one_line_errors
from harness.errors import ConfigError
from harness.options.parsing import add_options, options_from_namespace
from harness.options.table import all_rows
from harness.options.values import HarnessOptions
from harness.run.upgrading import run_upgrade

MODELS = Path("models")
# Fields of a run that mean nothing where two sides are compared.
MEANINGLESS = (
    *("worker_python", "resume", "shard", "shard_plan", "shard_attempt", "report_url"),
    *("baseline", "baseline_dir", "update_baselines", "accept_regressions"),
    *("strict", "floor", "allow_chance", "require_precision"),
)


@one_line_errors
def ab_command(
    ctx: typer.Context,
    a: Annotated[str, typer.Option("--a", help="Side A, what was accepted: a Python, or a venv's or tox folder.")],
    b: Annotated[str, typer.Option("--b", help="Side B, what is to follow it.")],
    a_label: Annotated[str, typer.Option(help="Name of side A (default: its versions).")] = "",
    b_label: Annotated[str, typer.Option(help="Name of side B (default: its versions).")] = "",
) -> None:
    """Run the same cases under two interpreters and judge side B against side A: an upgrade before it is made.

    Takes the options of a run too, --backend, --model, --precision, ...: docs/options.md. Exits with 1 when something
    is worse, and with 2 when nothing could be compared.
    """
    options = options_of_words(ctx.args, root=Path.cwd())
    upgrade = run_upgrade(
        options,
        (a, b),
        (a_label, b_label),
        models_dir=MODELS,
        command=shlex.join(["harness", *sys.argv[1:]]),
        echo=typer.echo,
    )
    for line in upgrade.lines:
        typer.echo(line)
    exit_as(upgrade.verdicts)


def options_of_words(words: list[str], *, root: Path) -> HarnessOptions:
    """Return the options of a run from words of a command line, harness.toml and the defaults.

    Raises: ConfigError for a word that is none of them, or an option that means nothing between two sides.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    add_options(parser.add_argument)
    typed, others = parser.parse_known_args(words)
    if others:
        raise ConfigError(f"{others[0]}: no option of a run; docs/options.md has them")
    for row in all_rows():
        if not row.group and row.field in MEANINGLESS and getattr(typed, row.dest, None) is not None:
            raise ConfigError(f"{row.flag} means nothing between two sides of an upgrade; leave it out")
    return options_from_namespace(typed, root=root)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        """Raise an error of argparse's as a wrong request."""
        raise ConfigError(message)
