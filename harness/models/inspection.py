"""What an ONNX file says of itself, checked before any runtime sees it. Imports onnx: call it in a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ConfigError, DataError
from harness.models.heavy import heavy_model_path, resnet101_112
from harness.models.onnx_graph import model_digest, quantized_nodes, tensors_of
from harness.models.output_shapes import baked_batch, dimensions_of, is_column, output_dimensions
from harness.models.tensors import tensors_of_file
from harness.specs import RAW_TASK, InputsAsked, ModelSpec, model_name

if TYPE_CHECKING:
    import onnx

REMEDY = "export the model again"
IMAGE_CHANNELS = (1, 3)  # grey, RGB: tells channels-last from channels-first
WHOLE_NUMBERS = ("num_classes", "label_offset", "max_batch")  # overrides travel as floats
PASS_THROUGH = ("Identity", "Reshape", "Squeeze", "Flatten", "Cast")


def check_onnx_file(path: str | Path) -> onnx.ModelProto:
    """Return the model of a file that is a sound ONNX file, without its external weights.

    Raises: DataError when it is missing, empty, truncated, no ONNX, or its external data are missing, short, or
        outside its folder.
    """
    # onnx is slow to import and lives in workers only.
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such model file; give an ONNX file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give an ONNX file") from error
    if not content:
        raise DataError(f"{path}: is empty; {REMEDY}")
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise DataError(f"{path}: not a valid ONNX file ({len(content):,} bytes); {REMEDY}") from error
    if not model.graph.node:
        raise DataError(f"{path}: not a valid ONNX file: it holds no graph; {REMEDY}")
    _check_names(model, path)
    _check_external_data(model, path)
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError) as error:
        raise DataError(f"{path}: is no valid ONNX model ({_first_line(error)}); {REMEDY}") from error
    return model


def _check_names(model: onnx.ModelProto, path: Path) -> None:
    """Refuse names that are no text: protobuf gives them as bytes. Raises: DataError."""
    graph = model.graph
    values = [*graph.input, *graph.output]
    names = [name for node in graph.node for name in (node.name, node.op_type, node.domain, *node.input, *node.output)]
    names += [value.name for value in (*values, *graph.initializer)]
    names += [dim.dim_param for value in values for dim in value.type.tensor_type.shape.dim]
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: is no valid ONNX model (a name in it is no text); {REMEDY}")


def inspect_onnx(
    path: str | Path, *, inputs: InputsAsked | None = None, is_scored: bool = True, **overrides: object
) -> ModelSpec:
    """Return the spec of a model, read from its file; `overrides` are fields of ModelSpec.

    `is_scored`: a data set is there, so a classifier of one float image is taken for one; any other graph, and any
    with `inputs` or without a data set, gets its `tensors`. The heavy model's own path makes it first. A fixed batch in
    a classifier's file becomes `max_batch` [images].
    Raises: DataError for a file that is damaged, or as `tensors_of_file`; ConfigError for an override that is no field.
    """
    path = Path(path)
    if path == heavy_model_path():
        return resnet101_112(path.parent)
    unknown = set(overrides) - {field.name for field in fields(ModelSpec)}
    if unknown:
        raise ConfigError(f"{path}: {', '.join(sorted(unknown))} cannot be given; a ModelSpec has no such field")
    given = {k: int(v) if k in WHOLE_NUMBERS and isinstance(v, float) else v for k, v in overrides.items()}
    model = check_onnx_file(path)
    asked = inputs or InputsAsked()
    is_classifier = False
    if is_scored and not asked.is_given:
        unscored = why_no_classifier(model, path, given.get("num_classes"))
        is_classifier, given = not unscored, {"unscored": unscored, **given}
    spec: dict[str, object] = {
        "name": model_name(path),
        "onnx_path": str(path.resolve()),
        "sha256": model_digest(path),
        "is_quantized": bool(quantized_nodes(model)),
        **(_as_classifier(model, path, given) if is_classifier else _as_graph(model, path, asked)),
    }
    return ModelSpec(**{**spec, **given})  # type: ignore[arg-type]


def why_no_classifier(model: onnx.ModelProto, path: Path, num_classes: object = None) -> str:
    """Return why a graph is no classifier of one float image, "" where it is one.

    Raises: DataError for one that is, but for its number of classes, which nothing tells.
    """
    try:
        _single_input(model, path)
        _single_output(model, path, num_classes)
    except UnknownClassesError:
        raise
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")
    return ""


class UnknownClassesError(DataError):
    """Nothing tells how many classes an output has."""


def _as_classifier(model: onnx.ModelProto, path: Path, given: Mapping[str, object]) -> dict[str, object]:
    input_name, batch, shape = _single_input(model, path)
    output_name, num_classes = _single_output(model, path, given.get("num_classes"))
    baked = None if batch or given.get("max_batch") else baked_batch(model, input_name, output_name, path=path)
    return {
        "baked_by": baked[1] if baked else "",
        "input_name": input_name,
        "input_shape": shape,
        "output_name": output_name,
        "num_classes": num_classes,
        "layout": layout_of_shape(shape),
        "output_kind": _output_kind(model, output_name),
        "max_batch": baked[0] if baked else batch,
    }


def _as_graph(model: onnx.ModelProto, path: Path, asked: InputsAsked) -> dict[str, object]:
    tensors = tensors_of_file(model, path, asked)
    shape = tensors.inputs[0].shape[1:] if tensors.inputs else ()
    return {
        "tensors": tensors,
        "input_name": tensors.inputs[0].name if tensors.inputs else "",
        "input_shape": shape,
        "output_name": tensors.outputs[0].name if tensors.outputs else "",
        "num_classes": 0,
        "layout": layout_of_shape(shape) if len(shape) == 3 else "NCHW",
        **({"scale": 1.0} if tensors.inputs and tensors.inputs[0].dtype == "uint8" else {}),  # pixels as they are
        "task": RAW_TASK,
        "timing_only": True,
    }


def _check_external_data(model: onnx.ModelProto, path: Path) -> None:
    folder = path.resolve().parent
    for tensor in tensors_of(model):
        if tensor.data_location != tensor.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        file = (folder / location).resolve()
        if not location or Path(location).is_absolute() or not file.is_relative_to(folder):
            raise DataError(
                f"{path}: weights of {tensor.name} lie in {location or 'no file'!r}, outside the model's folder; "
                "put the data file beside the model and export it with a relative name"
            )
        if not file.is_file():
            raise DataError(f"{path}: external data file {location} is missing; put it into {folder}")
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
        if offset + length > file.stat().st_size:
            raise DataError(
                f"{path}: external data file {location} has {file.stat().st_size} bytes, {tensor.name} needs "
                f"{offset + length}; copy it again"
            )


def _single_input(model: onnx.ModelProto, path: Path) -> tuple[str, int | None, tuple[int, ...]]:
    """Return the input's name, fixed batch (None: free) and shape without the batch."""
    import onnx

    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise DataError(f"{path}: has {len(inputs)} inputs ({names}); expected one, the images")
    image = inputs[0]
    element = image.type.tensor_type.elem_type
    if element != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(element).lower() if element else "of no tensor type"
        raise DataError(f"{path}: input {image.name} is {kind}; expected float32, keep float inputs when converting")
    dimensions = dimensions_of(image)
    if dimensions is None or len(dimensions) not in (2, 3, 4):
        found = "no known rank" if dimensions is None else f"rank {len(dimensions)} ({_text(dimensions)})"
        raise DataError(
            f"{path}: input {image.name} has {found}; expected N x C x H x W, N x H x W x C, N x H x W or N x K"
        )
    batch, *rest = dimensions
    shape = tuple(size for size in rest if size is not None)
    if len(shape) != len(rest):
        raise DataError(
            f"{path}: input {image.name} is {_text(dimensions)}; only the batch may be free, fix the image's size"
        )
    return image.name, batch, shape


def _single_output(model: onnx.ModelProto, path: Path, num_classes: object) -> tuple[str, int]:
    """Return the output's name and number of classes, by shape inference where the file leaves it open."""
    import onnx

    if len(model.graph.output) != 1:
        names = ", ".join(value.name for value in model.graph.output) or "none"
        raise DataError(f"{path}: has {len(model.graph.output)} outputs ({names}); expected one, the classes")
    output = model.graph.output[0]
    element = output.type.tensor_type.elem_type
    if element not in (onnx.TensorProto.FLOAT, onnx.TensorProto.UNDEFINED):
        kind = onnx.TensorProto.DataType.Name(element).lower()
        raise DataError(f"{path}: output {output.name} is {kind}; expected float32 scores, one a class")
    dimensions = output_dimensions(model, output.name)
    if dimensions is not None and len(dimensions) != 2 and not is_column(dimensions):
        raise DataError(f"{path}: output {output.name} is {_text(dimensions)}; expected N x classes")
    classes = dimensions[1] if dimensions is not None else None
    if classes is None:
        if not isinstance(num_classes, int):
            raise UnknownClassesError(
                f"{path}: the shape of output {output.name} is unknown; give --num-classes, or a card"
            )
        classes = num_classes
    return output.name, classes


def _text(dimensions: list[int | None]) -> str:
    return " x ".join("?" if size is None else str(size) for size in dimensions)


def layout_of_shape(shape: tuple[int, ...]) -> str:
    """Return the layout of an image of this shape, told by where a count of colours stands."""
    if len(shape) == 1:
        return "flat"
    if len(shape) == 2:  # height and width alone
        return "NCHW"
    return "NHWC" if shape[0] not in IMAGE_CHANNELS and shape[-1] in IMAGE_CHANNELS else "NCHW"


def _output_kind(model: onnx.ModelProto, output_name: str) -> str:
    """Return "probabilities" for the output of a Softmax, reshaped or not, "logits" for any other."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(output_name)
    while node is not None and node.op_type in PASS_THROUGH:
        node = makers.get(node.input[0])
    return "probabilities" if node is not None and node.op_type == "Softmax" else "logits"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
