"""TensorFlow: a SavedModel folder, or a frozen graph (.pb) as TensorFlow 1 wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.models.importers._importer import Imported, Importer, ImportRequest, only_source
from harness.models.importers._tensorflow import (
    INSTALL_HINT,
    MODULES,
    Source,
    convert_source,
    tensorflow,
    uses_channels_first,
)

VARIABLES = ("Variable", "VariableV2", "VarHandleOp")
SIGNATURE = "serving_default"
FED = ("Placeholder", "PlaceholderWithDefault")
WITHOUT_RESULT = ("Const", "NoOp", "Assert", *FED)


def convert(request: ImportRequest) -> Imported:
    """Write the ONNX file of a SavedModel or a frozen graph. Raises: DataError."""
    path = only_source(request, TAKES)
    return convert_source(saved_model(path, request) if path.is_dir() else _frozen_graph(path, request), request)


def saved_model(path: Path, request: ImportRequest) -> Source:
    """Return the function of a SavedModel folder. Raises: DataError."""
    tf = tensorflow()
    if not (path / "saved_model.pb").is_file():
        raise DataError(f"{path}: holds no saved_model.pb; expected a SavedModel folder")
    loaded = tf.saved_model.load(str(path))
    signatures = dict(loaded.signatures)
    if SIGNATURE not in signatures and len(signatures) != 1:
        raise DataError(f"{path}: has the signatures {', '.join(signatures) or 'none'}; expected {SIGNATURE}")
    function = signatures.get(SIGNATURE) or next(iter(signatures.values()))
    inputs = function.structured_input_signature[1]
    name = _chosen("input", list(inputs), request.input_name, path)
    output = _chosen("output", list(function.structured_outputs), request.output_name, path)

    def call(images: Any, _keep: object = loaded) -> Any:  # without it the variables are gone
        return function(**{name: images})[output]

    return Source(
        call=call,
        shape=_shape_of(inputs[name].shape),
        input_name=name,
        output_name=output,
        is_channels_first=uses_channels_first(function.graph),
        title=path.name,
    )


def _frozen_graph(path: Path, request: ImportRequest) -> Source:
    tf = tensorflow()
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    graph_def = tf.compat.v1.GraphDef()
    try:
        graph_def.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise DataError(f"{path}: is no frozen graph, or a truncated one ({path.stat().st_size} bytes)") from error
    if not graph_def.node:
        raise DataError(f"{path}: holds no node; expected a frozen graph")
    variables = sorted({node.op for node in graph_def.node if node.op in VARIABLES})
    if variables:
        raise DataError(f"{path}: holds variables ({', '.join(variables)}); freeze the graph first")
    fed = {node.name: node for node in graph_def.node if node.op in FED}
    read = {name.lstrip("^").partition(":")[0] for node in graph_def.node for name in node.input}
    ends = [node.name for node in graph_def.node if node.name not in read and node.op not in WITHOUT_RESULT]
    name = _chosen("input", list(fed), request.input_name, path)
    output = _chosen("output", ends, request.output_name, path, among=[node.name for node in graph_def.node])
    shape = _declared_shape(fed[name])
    if request.input_shape and shape is None:
        fed[name].attr["shape"].shape.CopyFrom(tf.TensorShape(None).as_proto())
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph_def, name=""), [])
    tensors = [wrapped.graph.as_graph_element(f"{tensor}:0") for tensor in (name, output)]
    function = wrapped.prune(*tensors)
    return Source(
        call=function,
        shape=shape,
        input_name=name,
        output_name=output,
        is_channels_first=uses_channels_first(wrapped.graph),
        title=path.stem,
    )


def _declared_shape(node: Any) -> tuple[int | None, ...] | None:
    """Return a Placeholder's shape without the batch, None where it has none."""
    shape = node.attr["shape"].shape
    if "shape" not in node.attr or shape.unknown_rank or not shape.dim:
        return None
    return tuple(size.size if size.size > 0 else None for size in shape.dim[1:])


def _shape_of(shape: Any) -> tuple[int | None, ...] | None:
    return tuple(shape.as_list()[1:]) if shape.rank else None


def _chosen(what: str, names: list[str], asked: str, path: Path, *, among: list[str] | None = None) -> str:
    """Return the asked name, or the only one. Raises: DataError when there is none, or several."""
    if asked:
        if asked not in (among or names):
            raise DataError(f"{path}: it has no {what} {asked!r}; its {what}s are: {', '.join(names) or 'none'}")
        return asked
    if len(names) != 1:
        raise DataError(f"{path}: has {len(names)} {what}s ({', '.join(names)}); choose one with --{what}-name")
    return names[0]


TAKES = "a SavedModel folder or FROZEN.pb"
IMPORTER = Importer(
    name="tf",
    summary="TensorFlow: a SavedModel folder or a frozen graph",
    takes=TAKES,
    convert=convert,
    required_modules=MODULES,
    install_hint=INSTALL_HINT,
)
