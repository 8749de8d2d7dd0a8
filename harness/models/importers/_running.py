"""A model of another framework -> an ONNX file and a card in a folder. The conversion runs in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from harness import errors
from harness.errors import BuildError, ConfigError
from harness.machine.child import ChildEnd, run_python
from harness.models.card_text import card_text
from harness.models.cards import load_card
from harness.models.importers import Imported, ImportRequest, find_importer
from harness.models.importers._child import CODE, Done, Order, encode_order
from harness.options.discovery import add_extension_dir
from harness.specs import NAME_PATTERN, ModelSpec, model_name
from harness.store.cache import sha256_of_file

TIME_LIMIT_S = 600.0
SHORT_DIGEST = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOrder:
    """One import as a user asked for it; None and () leave what the source says."""

    importer: str
    sources: tuple[str, ...]
    folder: Path
    name: str = ""  # of the model; "" is that of the first file
    input_name: str = ""
    output_name: str = ""
    input_shape: tuple[int, ...] = ()
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    limit_s: float = TIME_LIMIT_S
    python: str = sys.executable
    extension_dirs: tuple[str, ...] = ()


def import_model(order: ImportOrder) -> tuple[ModelSpec, tuple[str, ...]]:
    """Write `folder`/`name`.onnx and its card, and return the model and what the user should hear of.

    Raises: DataError for a source that cannot be taken, ConfigError for a wrong request or a file that exists already,
    BackendUnavailable when the importer's framework is not installed, BuildError when it crashes or takes too long.
    """
    for folder in order.extension_dirs:
        add_extension_dir(folder)
    suffix = find_importer(order.importer).suffix
    name = order.name or model_name(_path(order.sources[0]))
    if not NAME_PATTERN.match(name):
        raise ConfigError(f"--name={name}: use letters, digits, '_' and '.' only")
    if shutil.which(order.python) is None:
        raise ConfigError(f"--python={order.python}: there is no such program")
    model_path, card = order.folder / f"{name}{suffix}", order.folder / f"{name}.toml"
    for path in (model_path, card):
        if path.exists():
            raise ConfigError(f"{path} exists; remove it, or choose another --name or --output")
    with tempfile.TemporaryDirectory(prefix="harness-import-") as work:
        target = Path(work) / f"{name}{suffix}"
        done = _converted(order, target)
        spec = _completed(replace(done.spec, name=name), done.imported, order)
        text = card_text(spec, file=model_path.name, provenance=_provenance(order, done.imported))
        _put(order.folder, model_path, card, text, target)
    return load_card(card), (*_comparison(done.imported), *done.imported.warnings, *_cautions(order, done.imported))


def _converted(order: ImportOrder, target: Path) -> Done:
    request = ImportRequest(
        sources=order.sources,
        target=target,
        input_name=order.input_name,
        output_name=order.output_name,
        input_shape=order.input_shape,
    )
    asked = Order(importer=order.importer, request=request, extension_dirs=order.extension_dirs)
    text = encode_order(asked)
    with tempfile.TemporaryDirectory(prefix="harness-import-") as scratch:  # frameworks leave files behind
        own = {"TMPDIR": scratch}
        end = run_python(CODE, text, limit_s=order.limit_s, python=order.python, environment=own)
    answer = end.answers[-1] if end.answers else {}
    if answer.get("step") == "done":
        return msgspec.convert(answer["done"], type=Done)
    if answer.get("step") == "error":
        raise getattr(errors, str(answer["kind"]))(answer["message"])
    raise BuildError(f"{order.sources[0]}: {_end_of(end, order)}")


def _end_of(end: ChildEnd, order: ImportOrder) -> str:
    if end.returncode is None:
        return f"importer {order.importer} took longer than {end.limit_s:.0f} s; raise --time-limit"
    if end.returncode < 0:
        return f"importer {order.importer} crashed ({signal.Signals(-end.returncode).name}); the file may be damaged"
    return f"importer {order.importer} ended without a result ({end.last_words})"


def _completed(spec: ModelSpec, imported: Imported, order: ImportOrder) -> ModelSpec:
    """Return the spec with the preprocessing of the order, the source, or the default, in this order."""
    scale = order.scale if order.scale is not None else imported.scale
    return replace(
        spec,
        scale=spec.scale if scale is None else scale,
        mean=order.mean or imported.mean or spec.mean,
        std=order.std or spec.std,
        description=f"{imported.title or spec.name}, imported from {order.importer}",
    )


def _cautions(order: ImportOrder, imported: Imported) -> Iterator[str]:
    if order.scale is None and imported.scale is None:
        yield "the source does not say how pixels are scaled; the card says 1/255 (--scale, --mean and --std set it)"


def _comparison(imported: Imported) -> Iterator[str]:
    if imported.difference is not None:
        yield f"outputs differ by {imported.difference:.2g} at most from the source's own, on random images"


def _provenance(order: ImportOrder, imported: Imported) -> str:
    files = []
    for source in order.sources:
        path = _path(source)
        digest = f" sha256 {sha256_of_file(path)[:SHORT_DIGEST]}" if path.is_file() else ""
        files.append(f"{path.name}{digest}")
    return f"imported from {', '.join(files)} by {imported.tools or order.importer}"


def _path(source: str) -> Path:
    """Return the path of a source; PATH:NAME names an object of a file."""
    before, _, _ = source.rpartition(":")
    return Path(before) if before and not Path(source).exists() else Path(source)


def _put(folder: Path, model_path: Path, card: Path, text: str, target: Path) -> None:
    """Move the file and its external data into the folder, and write the card last: without it there is no model."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for made in target.parent.iterdir():
            if made != target:
                shutil.move(made, folder / made.name)
        shutil.move(target, model_path)
        fresh = card.with_suffix(".toml.new")
        fresh.write_text(text)
        os.replace(fresh, card)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror}); choose another --output") from error
