"""`harness import FORMAT SOURCE... -o FOLDER`: a model of another framework becomes an ONNX file and a card."""

from __future__ import annotations

import sys
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.runs import BAD_FILE_STATUS, one_line_errors
from harness.errors import ConfigError
from harness.models.importers import list_importers
from harness.models.importers._running import TIME_LIMIT_S, ImportOrder, import_model


@partial(one_line_errors, bad_file_status=BAD_FILE_STATUS)
def import_command(
    importer: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of {', '.join(list_importers())}.")],
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Files; docs/importing.md lists them.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for NAME.onnx and NAME.toml.")],
    name: Annotated[str, typer.Option(help="Model's name (default: the first file's).")] = "",
    input_shape: Annotated[str, typer.Option(help="Shape of one image, as 1,28,28, where the source lacks it.")] = "",
    input_name: Annotated[str, typer.Option(help="Input, where the source has several.")] = "",
    output_name: Annotated[str, typer.Option(help="Output, where the source has several.")] = "",
    scale: Annotated[str, typer.Option(help="Scale of pixels in the card, 0.00390625 or 1/256.")] = "",
    mean: Annotated[str, typer.Option(help="Mean in the card: one value, or one a channel.")] = "",
    std: Annotated[str, typer.Option(help="Standard deviation in the card, as the mean.")] = "",
    time_limit: Annotated[float, typer.Option(help="Longest conversion [s].")] = TIME_LIMIT_S,
    python: Annotated[str, typer.Option(help="Interpreter of an environment that has the framework.")] = sys.executable,
    extension_dir: Annotated[list[str] | None, typer.Option(help="Folder with importers of your own.")] = None,
) -> None:
    """Convert a model of another framework to ONNX and write its card.

    Exits with 4 when a file cannot be taken, and with 2 for any other error.
    """
    scales = _numbers("--scale", scale)
    order = ImportOrder(
        importer=importer,
        sources=tuple(sources),
        folder=output,
        name=name,
        input_name=input_name,
        output_name=output_name,
        input_shape=_sizes(input_shape),
        scale=scales[0] if scales else None,
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        limit_s=time_limit,
        python=python,
        extension_dirs=tuple(extension_dir or ()),
    )
    spec, remarks = import_model(order)
    shape = " x ".join(map(str, spec.input_shape))
    typer.echo(f"wrote {spec.onnx_path} and its card {spec.name}.toml")
    typer.echo(
        f"input {spec.input_name}: {shape} ({spec.layout}), scale {spec.scale:g}; output {spec.output_name}: "
        f"{spec.num_classes} classes, {spec.output_kind}"
    )
    for remark in remarks:
        typer.echo(f"note: {remark}")


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(Fraction(part)) for part in text.split(",")) if text else ()
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"{flag}={text}: expected numbers, as 0.5 or 1/256, with commas between them") from error


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in text.split(",") if part.isdecimal()) if text else ()
    if text and (len(sizes) != text.count(",") + 1 or 0 in sizes):
        raise ConfigError(f"--input-shape={text}: expected whole numbers of at least 1, as 1,28,28")
    return sizes
