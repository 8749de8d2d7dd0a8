"""What an importer is: which files it takes, and how it writes an ONNX file. No framework is imported here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DataError
from harness.specs import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """What is to be imported, and what its files may not tell."""

    sources: tuple[str, ...]  # paths, or PATH:NAME where an importer takes an object of a file
    target: Path  # the file to write
    input_name: str = ""  # of the source, where it has several
    output_name: str = ""
    input_shape: tuple[int, ...] = ()  # without the batch; C, H, W or K


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What a conversion has to say beside the file.

    `scale` and `mean` are what the source says of its preprocessing, as a card has them; None where it says nothing.
    `difference` is the largest one of any output to the source's own, on random images; None where it was not measured.
    """

    title: str = ""  # of the net
    tools: str = ""  # what converted it, with versions
    scale: float | None = None
    mean: tuple[float, ...] | None = None  # one per channel, or one for all
    difference: float | None = None
    spec: ModelSpec | None = None  # of a file that is no ONNX file, and cannot be asked what it is
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Importer:
    """One source format; a file in harness/models/importers/ offers it as IMPORTER.

    `convert` runs in a process of its own, imports its framework itself, writes `request.target` and raises DataError
    for a file that it cannot take: a line that names the file.
    """

    name: str
    summary: str
    takes: str  # its sources, as a user types them
    convert: Callable[[ImportRequest], Imported]
    suffix: str = ".onnx"  # of the file that it writes
    required_modules: tuple[str, ...] = ()
    install_hint: str = ""


def only_source(request: ImportRequest, takes: str) -> Path:
    """Return the path of the one file or folder that is to be imported. Raises: DataError."""
    if len(request.sources) != 1:
        raise DataError(f"{len(request.sources)} files given; expected one, {takes}")
    path = Path(request.sources[0])
    if not path.exists():
        raise DataError(f"{path}: no such file; expected {takes}")
    return path
