"""`harness doctor|report|compare|baseline`: the command line beside pytest. The only file that imports typer."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.doctor import doctor_lines
from harness.errors import HarnessError
from harness.options import HarnessOptions

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
    backend_dir: Annotated[list[str] | None, typer.Option(help="Folder with backends of your own.")] = None,
) -> None:
    """Say which backends, devices and data sets are usable here, with versions and reasons."""
    for line in doctor_lines(HarnessOptions(backend_dirs=tuple(backend_dir or ()))):
        typer.echo(line)
