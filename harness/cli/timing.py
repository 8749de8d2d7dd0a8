"""`harness time my.onnx`: one line times any model, on every backend and precision that takes it."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.runs import one_line_errors
from harness.cli.words import names_and_options
from harness.errors import ConfigError
from harness.options.table import all_rows
from harness.report.alone import lines_of_times
from harness.report.terminal import wrapped
from harness.run.timing_alone import plan_alone, time_cases
from harness.specs import DatasetRequest

# Fields of a run that mean nothing where nothing is scored, judged or kept.
MEANINGLESS = (
    *("models", "data.score_images", "score_batch"),
    *("resume", "shard", "shard_plan", "shard_attempt", "report_url", "report_dir", "control_python"),
    *("baseline", "baseline_dir", "update_baselines", "accept_regressions", "strict", "floor", "allow_chance"),
    *("require_precision", "max_drop", "max_drift", "max_slowdown", "max_build_slowdown", "max_engine_growth"),
    *("max_memory_growth", "alpha", "timing.throughput", "timing.concurrency", "timing.energy_loops"),
)
DATASET = next(row.flag for row in all_rows() if row.field == "data.name")


@one_line_errors
def time_command(
    words: Annotated[list[str], typer.Argument(metavar="MODEL [OPTIONS OF A RUN]", show_default=False)],
) -> None:
    """Time models on every usable backend, in FP32, FP16 and INT8: ONNX files of any graph, cards, or bundled names.

    Inputs are seeded by type and shape, or those of a --dataset that is typed here; nothing is scored and no run is
    written. Takes the options of a run that bear on times: --backend, --precision, --shapes, --input-range, --state,
    --batch-size, --timing-window, --threads, ...: docs/options.md. Exits with 1 when a case ends in an error or none
    can be timed, and with 2 for a wrong request.
    """
    names, typed = names_and_options(
        words, root=Path.cwd(), meaningless=MEANINGLESS, where="where a model is only timed"
    )
    if not names and not typed.engines:
        raise ConfigError("MODEL: give an ONNX file, a card, or a bundled model's name")
    options = replace(typed, models=tuple(names))
    if any(word.partition("=")[0] == DATASET for word in words):
        options = replace(options, data=replace(options.data, score_images=1))  # of which batches are made
    else:  # whatever data set harness.toml names for a run
        options = replace(options, named=options.named - {"data.name"}, data=DatasetRequest())
    plan = plan_alone(options)
    found = time_cases(plan, options, _told if sys.stderr.isatty() else lambda name: None)
    width = shutil.get_terminal_size((80, 24)).columns
    left_out = [part for line in plan.lines_left_out() for part in wrapped(line, width)]
    for line in (*lines_of_times(found, color=sys.stdout.isatty(), width=width), *left_out):
        typer.echo(line)
    if any(one.error for one in found) or not any(one.latencies for one in found):
        raise typer.Exit(1)


def _told(case_id: str) -> None:
    typer.echo(f"timing {case_id}", err=True)
