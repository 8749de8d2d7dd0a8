"""`harness init`, `card` and `comment`: a project of your own, and what its CI says on a pull request."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.runs import BAD_FILE_STATUS, one_line_errors, run_folder
from harness.errors import ConfigError
from harness.options.parsing import typed_value
from harness.options.table import INPUTS
from harness.report.terminal import wrapped
from harness.run.adopting import CI_FILES, Written, init_project, write_card
from harness.run.posting import FORGES, comment_text, post_comment
from harness.specs import InputsAsked

ROWS = {row.field: row for row in INPUTS}  # the same options as a run's


def _option(field: str) -> Any:
    row = ROWS[field]
    return typer.Option(row.flag, metavar=row.kind.metavar, help=row.help)


Shapes = Annotated[list[str] | None, _option("inputs.shapes")]
Ranges = Annotated[list[str] | None, _option("inputs.ranges")]
States = Annotated[list[str] | None, _option("inputs.states")]
told = partial(one_line_errors, bad_file_status=BAD_FILE_STATUS)


@told
def card(
    model: Annotated[Path, typer.Argument(help="An ONNX file.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The card (default: beside the file).")] = None,
    sha256: Annotated[bool, typer.Option("--sha256", help="The card is of these bytes alone.")] = False,
    shapes: Shapes = None,
    input_range: Ranges = None,
    state: States = None,
) -> None:
    """Write the card of an ONNX file: shapes, classes and what its output is are read from it.

    Exits with 4 when the file cannot be taken, and with 2 for any other error.
    """
    asked = _asked(shapes, input_range, state)
    _tell(write_card(model, output=output, with_digest=sha256, inputs=asked))


@told
def init(
    model: Annotated[Path, typer.Argument(help="An ONNX file below the current folder.")],
    ci: Annotated[str, typer.Option(help=f"CI files to write: {', '.join(CI_FILES)} with commas, or none.")] = "github",
    shapes: Shapes = None,
    input_range: Ranges = None,
    state: States = None,
) -> None:
    """Write suites, harness.toml, a card, a folder for baselines and CI files; what exists stays as it is.

    Exits with 4 when the file cannot be taken, and with 2 for any other error.
    """
    systems = () if ci == "none" else tuple(part.strip() for part in ci.split(","))
    asked = _asked(shapes, input_range, state)
    _tell(init_project(model, folder=Path.cwd(), ci=systems, inputs=asked))
    typer.echo("Next: harness run, then harness baseline accept")


@one_line_errors
def comment(
    run: Annotated[Path, typer.Argument(help="A run: its folder, or its name below reports/.")] = Path("latest"),
    post: Annotated[str, typer.Option(help=f"Post it: {' or '.join(FORGES)}.")] = "",
    number: Annotated[int, typer.Option(help="Number of the pull or merge request.")] = 0,
) -> None:
    """Print a run's text for a pull request, or post it with CI's token; a later run replaces the text of an earlier.

    Reads GITHUB_TOKEN and GITHUB_REPOSITORY, or GITLAB_TOKEN and CI_PROJECT_ID, from the environment.
    """
    text = comment_text(run_folder(run))
    if not post:
        typer.echo(text, nl=False)
    elif number < 1:
        raise ConfigError("--number: give the number of the pull or merge request")
    else:
        typer.echo(f"posted {post_comment(text, forge=post, number=number)}")


def _tell(written: Written) -> None:
    """Print what was written; paths stay whole, notes are wrapped."""
    width = shutil.get_terminal_size((80, 24)).columns
    for line in written.lines():
        for part in wrapped(line, width) if line.startswith("note: ") else (line,):
            typer.echo(part)


def _asked(shapes: list[str] | None, ranges: list[str] | None, states: list[str] | None) -> InputsAsked:
    given = {"inputs.shapes": shapes, "inputs.ranges": ranges, "inputs.states": states}
    found = {field: typed_value(ROWS[field], texts, Path.cwd()) for field, texts in given.items() if texts}
    return InputsAsked(**{field.removeprefix("inputs."): value for field, value in found.items()})
