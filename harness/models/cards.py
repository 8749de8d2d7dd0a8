"""Model cards: the TOML file beside an ONNX file that says how to use it. Never imports a runtime."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import msgspec.toml

from harness.errors import DataError
from harness.models.engine_tensors import tensors_of_engine
from harness.models.formats import ONNX, OPENVINO_IR, file_digest, model_format
from harness.models.heavy import HEAVY_MODEL, heavy_model_path
from harness.models.presets import ARITHMETIC, PreprocessTable, resolved
from harness.options.inputs import range_of_text, shape_of_text, state_of_text
from harness.specs import (
    NAME_PATTERN,
    RAW_TASK,
    ImageRange,
    InputsAsked,
    ModelSpec,
    Precision,
    Preprocess,
    ShippedEngine,
    model_name,
)

T = TypeVar("T")
PRECISIONS = ("fp16", "bf16", "int8")
CLASSIFICATION = "classification"
SHAPE_FORM = "NAME:DIMS, as ids:1x128"
FORMS = dict.fromkeys(("shapes", "min_shapes", "max_shapes"), SHAPE_FORM)
FORMS |= {"input_range": "NAME:LOW..HIGH", "state": "INPUT=OUTPUT"}
EXTERNAL_DATA_KEY = b"location"  # stands in every file whose weights lie in another


class _Section(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A table of a card; a key it does not know is an error."""


class _Model(_Section):
    file: str  # relative to the card
    sha256: str = ""  # "" = whatever the file holds is right
    description: str = ""
    how_trained: str = ""
    expects_int8_loss: bool = False
    timing_only: bool = False
    quantized: bool = False  # before it came: it runs as INT8, as given
    max_batch: int | None = None  # [images]


class _Input(_Section):
    name: str = ""
    shape: tuple[int, ...] = ()  # without the batch
    layout: str | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class _Graph(_Section):
    """What is said of the inputs of a model of any graph, each as its option has it."""

    shapes: tuple[str, ...] = ()
    min_shapes: tuple[str, ...] = ()
    max_shapes: tuple[str, ...] = ()
    input_range: tuple[str, ...] = ()
    state: tuple[str, ...] = ()


class _Output(_Section):
    name: str = ""
    classes: int = 0
    label_offset: int = 0
    kind: str = "probabilities"
    task: str = ""  # "" = classification, or of any graph raw


class _Engine(_Section):
    """Of a card whose file is a built engine."""

    backend: str
    precision: Precision
    runtime: str = ""  # that built it, with its version
    inputs: tuple[str, ...] = ()  # of any graph, each as ids:int64:1x7
    outputs: tuple[str, ...] = ()  # of any graph, by name


class _Range(_Section):
    dataset: str
    split: str
    first: int
    stop: int


class Card(_Section):
    """All keys of a card."""

    model: _Model
    input: _Input = msgspec.field(default_factory=_Input)
    output: _Output = msgspec.field(default_factory=_Output)
    graph: _Graph | None = None  # of a model that is no classifier of one image
    engine: _Engine | None = None  # of a file that is a built engine, which an option must trust
    task: dict[str, Any] = {}  # settings of the output's task
    preprocess: PreprocessTable = msgspec.field(default_factory=PreprocessTable)
    trained_on: tuple[_Range, ...] = ()
    accuracy: dict[str, float] = {}  # data set -> top-1 [fraction]
    floors: dict[str, float] = {}  # data set -> top-1 [fraction]
    max_drop: dict[str, float] = {}  # precision -> loss of top-1 [fraction]
    min_speedup: dict[str, float] = {}  # precision -> times as fast as FP32


def load_card(path: str | Path, *, trusts_engine: bool = False) -> ModelSpec:
    """Read a card and check that its file is the one it was written for, if it says which.

    `trusts_engine`: a built engine was asked for as one; a card of one is refused otherwise.
    Raises: DataError for a missing card or file, TOML that cannot be read, a missing, unknown or wrong key, or another
        sha256; ConfigError for values that contradict each other.
    """
    path = Path(path)
    card = _read_card(path)
    if card.engine is not None and not trusts_engine:
        raise DataError(
            f"{path}: is the card of a built engine, which may run any code; "
            f"trust it by --engine={path.parent / card.model.file}"
        )
    _check_tables(card, path)
    file = Path(card.model.file)
    if file.is_absolute() or ".." in file.parts or "\0" in card.model.file:
        raise DataError(
            f"{path}: file = {card.model.file!r} leads out of the card's folder; put the file beside its card"
        )
    onnx_path = (path.parent / file).resolve()
    asked = None if card.graph is None else _asked(card.graph, path)
    tensors = tensors_of_engine(card.engine.inputs, card.engine.outputs, asked, path) if card.engine else None
    is_classifier = card.graph is None and tensors is None
    _check_keys(card, path, is_classifier=is_classifier)
    preprocess, arithmetic = _prepared(card, path)
    return ModelSpec(
        name=model_name(path),
        onnx_path=str(onnx_path),
        sha256=_checked_sha256(onnx_path, card.model.sha256, path, is_engine=card.engine is not None),
        input_name=card.input.name,
        input_shape=card.input.shape,
        output_name=card.output.name,
        num_classes=card.output.classes,
        preprocess=preprocess,
        **arithmetic,  # type: ignore[arg-type]
        label_offset=card.output.label_offset,
        output_kind=card.output.kind,
        task=card.output.task or (CLASSIFICATION if is_classifier else RAW_TASK),
        task_settings=dict(card.task),
        card_dir=str(path.parent.resolve()),  # the model's file may be a link to elsewhere
        graph=asked if card.engine is None else None,
        tensors=tensors,
        engine=_shipped(card),
        max_batch=card.model.max_batch,
        timing_only=card.model.timing_only or not is_classifier,
        is_quantized=card.model.quantized,
        trained_on=tuple(
            ImageRange(dataset=r.dataset, split=r.split, first=r.first, stop=r.stop) for r in card.trained_on
        ),
        floors=dict(card.floors),
        accuracy=dict(card.accuracy),
        max_drop=dict(card.max_drop),
        min_speedup=dict(card.min_speedup),
        expects_int8_loss=card.model.expects_int8_loss,
        description=card.model.description,
    )


def _check_tables(card: Card, path: Path) -> None:
    """Refuse a fraction that is none, and an unknown precision. Raises: DataError."""
    for table in (card.accuracy, card.floors, card.max_drop):
        for key, value in table.items():
            if not 0 <= value <= 1:
                raise DataError(f"{path}: {key} = {value} is no fraction from 0 to 1; write 0.99 for 99 %")
    by_precision = {"max_drop": card.max_drop.keys(), "min_speedup": card.min_speedup.keys()}
    unknown = [
        f"[{name}] names {key!r}" for name, keys in by_precision.items() for key in keys if key not in PRECISIONS
    ]
    if unknown:
        raise DataError(f"{path}: {unknown[0]}; expected one of {', '.join(PRECISIONS)}")


def _check_keys(card: Card, path: Path, *, is_classifier: bool) -> None:
    """Refuse a classifier's card without what it must say. Raises: DataError."""
    if not is_classifier:
        return
    needed = {
        "input.name": card.input.name,
        "input.shape": card.input.shape,
        "output.name": card.output.name,
        "output.classes": card.output.classes,
    }
    missing = [name for name, value in needed.items() if not value]
    is_of_samples = card.output.task not in ("", CLASSIFICATION) and bool(missing)
    if card.task or is_of_samples:
        what = f"[output] task = {card.output.task!r}" if is_of_samples else "[task]"
        raise DataError(
            f"{path}: {what} is of a model of any graph: add a table [graph], empty where the file tells its inputs"
        )
    if missing:
        raise DataError(
            f"{path}: Object missing required field `{missing[0].partition('.')[2]}` - at "
            f"`$.{missing[0].partition('.')[0]}`; fix the card, docs/datasets.md lists its keys; a model that is no "
            "classifier of one image has a table [graph]"
        )


def _shipped(card: Card) -> ShippedEngine | None:
    engine = card.engine
    if engine is None:
        return None
    return ShippedEngine(backend=engine.backend, precision=engine.precision, runtime=engine.runtime)


def load_engine(file: str | Path) -> ModelSpec:
    """Read the card beside a built engine, FILE's name with .toml. Raises: DataError, as `load_card`."""
    path = Path(file)
    if not path.is_file():
        raise DataError(f"--engine={file}: no such file")
    card = path.with_suffix(".toml")
    if not card.is_file():
        raise DataError(f"--engine={file}: needs a card beside it, {card.name}, with a table [engine]")
    spec = load_card(card, trusts_engine=True)
    if spec.engine is None:
        raise DataError(f"--engine={file}: {card.name} has no table [engine]; a model goes to --model")
    if Path(spec.onnx_path) != path.resolve():
        raise DataError(f"--engine={file}: {card.name} is the card of {Path(spec.onnx_path).name}")
    return spec


def _asked(graph: _Graph, path: Path) -> InputsAsked:
    """Return what a card says of its inputs. Raises: DataError that names the key."""

    def pairs(name: str, texts: tuple[str, ...], parse: Callable[[str], T]) -> tuple[T, ...]:
        found = []
        for text in texts:
            try:
                found.append(parse(text))
            except ValueError:
                raise DataError(f"{path}: [graph] {name} = {text!r}; expected {FORMS[name]}") from None
        return tuple(found)

    return InputsAsked(
        shapes=pairs("shapes", graph.shapes, shape_of_text),
        min_shapes=pairs("min_shapes", graph.min_shapes, shape_of_text),
        max_shapes=pairs("max_shapes", graph.max_shapes, shape_of_text),
        ranges=pairs("input_range", graph.input_range, range_of_text),
        states=pairs("state", graph.state, state_of_text),
    )


def _shape_in_graph(card: Card) -> tuple[int, ...]:
    """Return the shape of the image without the batch, as [graph] has it; () where it does not."""
    shapes = dict(map(shape_of_text, card.graph.shapes)) if card.graph is not None else {}
    image = shapes.get(card.input.name) or next(iter(shapes.values()), ())
    return image[1:]


def _prepared(card: Card, path: Path) -> tuple[Preprocess, dict[str, object]]:
    """Return what is done to images, and those of scale, mean, std and layout that the card has. Raises: DataError."""
    own = {name: getattr(card.input, name) for name in ARITHMETIC}
    own = {name: value for name, value in own.items() if value is not None}
    shape = card.input.shape or _shape_in_graph(card)
    preprocess, arithmetic = resolved(card.preprocess, shape, own.get("layout", "NCHW"), source=path)
    twice = [name for name in own if name in card.preprocess.given]
    if twice:
        raise DataError(f"{path}: {twice[0]} stands in [input] and in [preprocess]; keep one")
    return preprocess, {**arithmetic, **own}


def bundled_models(models_dir: str | Path) -> tuple[ModelSpec, ...]:
    """Return the models of all cards in a folder, by name.

    Raises: DataError for a folder without cards, or as `load_card`.
    """
    cards = sorted(Path(models_dir).glob("*.toml"))
    if not cards:
        raise DataError(f"{models_dir}: no model cards (*.toml); run from a checkout, or give --model PATH")
    # Engines are taken by name alone: a folder of models trusts none.
    return tuple(load_card(card) for card in cards if _read_card(card).engine is None)


def find_model(name_or_path: str, models_dir: str | Path) -> ModelSpec | Path:
    """Return a model by its card's name, or by the path of a card or an ONNX file.

    An ONNX file without a card of its name beside it comes back as its absolute path, and so does the heavy model: a
    worker must look at it with `inspect_onnx`.
    Raises: DataError when there is none, with near names, or as `load_card`.
    """
    card = Path(models_dir) / f"{name_or_path}.toml"
    if NAME_PATTERN.match(name_or_path) and card.is_file():
        return load_card(card)
    if name_or_path == HEAVY_MODEL:
        return heavy_model_path()
    path = Path(name_or_path)
    if path.suffix == ".toml":
        return load_card(path)
    if path.is_file():
        own_card = path.with_suffix(".toml")
        if own_card.is_file() and (own_card.parent / _read_card(own_card).model.file).resolve() == path.resolve():
            return load_card(own_card)
        if model_format(path) == OPENVINO_IR:
            raise DataError(f"{path}: OpenVINO IR needs a card; `harness import openvino-ir` writes it")
        return path.resolve()
    if path.suffix or path.is_dir() or len(path.parts) > 1:
        raise DataError(f"{path}: no such model file; give an ONNX file, a card (.toml), or a bundled model's name")
    names = [*sorted(c.stem for c in Path(models_dir).glob("*.toml")), HEAVY_MODEL]
    near = difflib.get_close_matches(name_or_path, names, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}, or give a path"
    raise DataError(f"no model is called {name_or_path!r}; {hint}")


def _read_card(path: Path) -> Card:
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Card)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such model card") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        # For a wrong key msgspec names key and table: "Object contains unknown field `x` - at `$.model`".
        raise DataError(f"{path}: {error}; fix the card, docs/datasets.md lists its keys") from error


def _checked_sha256(onnx_path: Path, sha256: str, card: Path, *, is_engine: bool) -> str:
    """Return a file's digest, checked if its card has one; "" for one that may have weights in others beside it.

    Reading where those lie takes the onnx package, which is slow to import: it is done, and checked, in the worker.
    """
    try:
        if model_format(onnx_path) == ONNX and not is_engine and EXTERNAL_DATA_KEY in onnx_path.read_bytes():
            return sha256
        found = file_digest(onnx_path)
    except OSError as error:
        raise DataError(f"{card}: its file {onnx_path} cannot be read ({error.strerror}); put it there") from error
    if sha256 and found != sha256:
        raise DataError(
            f"{onnx_path}: sha256 {found[:12]}... is not the {sha256[:12]}... of its card {card.name}; "
            "restore the file, or write the card anew if you changed it on purpose"
        )
    return found
