"""`harness export CASE -o FILE`: the engine of a case in a file of its own, with its card."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.runs import BAD_FILE_STATUS, one_line_errors
from harness.cli.words import names_and_options
from harness.errors import ConfigError
from harness.run.exporting import export_case

MEANINGLESS = ("resume", "shard", "shard_plan", "report_dir", "report_url", "update_baselines", "accept_regressions")


@partial(one_line_errors, bad_file_status=BAD_FILE_STATUS)
def export_command(
    words: Annotated[list[str], typer.Argument(metavar="CASE [OPTIONS OF A RUN]", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write: .plan, .blob, .ort or .onnx.")],
) -> None:
    """Write the engine of a case, as lenet5-trt-fp16, and beside it a card, so that --engine=FILE takes it.

    TensorRT's plan, OpenVINO's exported model (of the smallest --batch-size), ONNX Runtime's optimized model; of other
    backends the prepared ONNX file. Takes the options of a run too, --model, --batch-size, --recipe, ...:
    docs/options.md. Exits with 4 for a file that cannot be used, and with 2 for any other error.
    """
    names, options = names_and_options(
        words, root=Path.cwd(), meaningless=MEANINGLESS, where="where a case is exported"
    )
    if len(names) != 1:
        raise ConfigError(f"CASE: give one, not {len(names)}")
    for line in export_case(names[0], output, options):
        typer.echo(line)
