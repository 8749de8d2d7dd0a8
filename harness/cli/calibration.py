"""`harness calibration export|import|diff|show`: calibration tables, so that one serves a fleet and drift is seen."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from harness import errors
from harness.cli.runs import BAD_FILE_STATUS, one_line_errors, run_folder
from harness.errors import BuildError, ConfigError
from harness.machine.child import run_python
from harness.options.tolerances import value_from_text
from harness.precision.tables import (
    DEFAULT_HEADER,
    CalibrationTable,
    Drift,
    check_header,
    drift,
    json_text,
    read_table,
    table_text,
)
from harness.report.quantization import calibration_lines
from harness.run.folders import models_folder
from harness.run.stored import load_judged_run
from harness.specs import DatasetRequest
from harness.worker.ranges import CODE, METHODS, Measured, asked_text

app = typer.Typer(help="Calibration tables: the range of every tensor in INT8.", no_args_is_help=True)
TIME_LIMIT_S = 600.0
DEFAULTS = DatasetRequest()
told = partial(one_line_errors, bad_file_status=BAD_FILE_STATUS)


@app.command("export")
@told
def export_table(
    model: Annotated[str, typer.Argument(help="A model's name, card or ONNX file; one with Q/DQ nodes gives its own.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Table to write; JSON where it ends in .json.")],
    method: Annotated[str, typer.Option(help=f"How a range is chosen: {', '.join(METHODS)}.")] = METHODS[0],
    dataset: Annotated[str, typer.Option(help="Data set whose images calibrate.")] = DEFAULTS.name,
    data_dir: Annotated[str | None, typer.Option(help="Where its files lie.")] = None,
    calibration_split: Annotated[str, typer.Option(help="Its split.")] = DEFAULTS.calibration_split,
    calibration_from: Annotated[int, typer.Option(help="First image.")] = DEFAULTS.calibration_first,
    calibration_images: Annotated[int, typer.Option(help="How many.")] = DEFAULTS.calibration_images,
    header: Annotated[str, typer.Option(help="First line of the table: TRT-VERSION-CALIBRATOR.")] = DEFAULT_HEADER,
    time_limit: Annotated[float, typer.Option(help="Longest measurement [s].")] = TIME_LIMIT_S,
) -> None:
    """Write the range of every FP32 tensor of a model, measured on calibration images."""
    if method not in METHODS:
        raise ConfigError(f"--method={method}: expected one of {', '.join(METHODS)}")
    check_header(header)
    data = DatasetRequest(
        name=dataset,
        data_dir=data_dir,
        split="none",  # nothing is scored
        calibration_split=calibration_split,
        calibration_first=calibration_from,
        calibration_images=calibration_images,
    )
    table = _measured(
        Measured(model=model, models_dir=str(models_folder(Path.cwd())), method=method, data=data), time_limit
    )
    _write(output, json_text(table) if output.suffix == ".json" else table_text(table, header))
    typer.echo(f"wrote {output}: {len(table.ranges)} tensors")


@app.command("import")
@told
def import_table(
    table: Annotated[Path, typer.Argument(help="A calibration table of TensorRT's.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="JSON to write, of tensor name to magnitude.")],
) -> None:
    """Turn a table into JSON that a person can read and edit; the recipe trt-ranges takes either."""
    read = read_table(table)
    _write(output, json_text(read))
    typer.echo(f"wrote {output}: {len(read.ranges)} tensors, made by the {read.made_by}")


@app.command("diff")
@told
def diff_tables(
    before: Annotated[Path, typer.Argument(help="The earlier table, or JSON.")],
    after: Annotated[Path, typer.Argument(help="The later one.")],
    max_drift: Annotated[str | None, typer.Option(help="Accepted change of a scale, 0.05 or 5%.")] = None,
) -> None:
    """Say how far every tensor's scale lies from the earlier table's, the largest change first.

    Exits with 1 when one drifted by more than accepted or is missing, and with 2 when the tables share no tensor.
    """
    accepted = None if max_drift is None else value_from_text("max_drift", max_drift, where="--max-drift")
    tables = read_table(before), read_table(after)
    rows = drift(*tables)
    width = max(len(row.tensor) for row in rows)
    for path, table in zip((before, after), tables, strict=True):
        typer.echo(f"{path}: {len(table.ranges)} tensors, {table.made_by}")
    for row in rows:
        typer.echo(_line(row, width))
    if all(row.change is None for row in rows):
        typer.echo("ERROR: the tables share no tensor", err=True)
        raise typer.Exit(2)
    if accepted is not None and any(row.change is None or abs(row.change) > accepted for row in rows):
        raise typer.Exit(1)


@app.command("show")
@told
def show_calibration(
    run: Annotated[Path, typer.Argument(help="A run: its folder, or its name below reports/.")] = Path("latest"),
    case: Annotated[str | None, typer.Option(help="One case.")] = None,
) -> None:
    """Say how the range of every tensor was chosen, what is lost by it, and where the signal falls.

    Exits with 2 when no record of the run tells it.
    """
    _, records = load_judged_run(run_folder(run))
    asked = [record for record in records if case in (None, record.case.id)]
    lines = [line for record in asked for line in calibration_lines(record)]
    if not lines:
        raise ConfigError(f"{run}: no case{f' {case}' if case else ''} tells how its ranges were chosen")
    for line in lines:
        typer.echo(line)


def _line(row: Drift, width: int) -> str:
    if row.change is None:
        return f"{row.tensor:<{width}}  only in the {'later' if row.before is None else 'earlier'} table"
    return f"{row.tensor:<{width}}  {row.before:12.6g}  {row.after:12.6g}  {row.change:+9.2%}"


def _measured(asked: Measured, limit_s: float) -> CalibrationTable:
    end = run_python(CODE, asked_text(asked), limit_s=limit_s, python=sys.executable)
    answer = end.answers[-1] if end.answers else {}
    if answer.get("step") == "done":
        return CalibrationTable(ranges=answer["ranges"])
    if answer.get("step") == "error":
        raise getattr(errors, str(answer["kind"]))(answer["message"])
    raise BuildError(end.reason(asked.model, "while its ranges were measured"))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); choose another --output") from error
