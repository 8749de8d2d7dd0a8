"""A TensorFlow function -> ONNX by tf2onnx, with images N x C x H x W at the border, whatever lies inside.

Imports TensorFlow, and hence belongs into the process that converts.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import DataError
from harness.models.importers._compare import difference_of, random_images
from harness.models.importers._importer import Imported, ImportRequest

OPSET, IR_VERSION = 17, 8  # every runtime in use reads these
MODULES = ("tensorflow", "tf2onnx", "keras", "onnx", "onnxruntime")
INSTALL_HINT = "pip install 'nn-engine-harness[import-keras]'"
FREE_BATCH = "N"


def tensorflow() -> Any:
    """Import TensorFlow quietly, on the CPU, and keep it from writing into the user's home."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("KERAS_HOME", tempfile.mkdtemp(prefix="harness-keras-"))
    tf = importlib.import_module("tensorflow")
    tf.get_logger().setLevel("ERROR")
    return tf


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A function of one tensor, as it was found in a file."""

    call: Callable[[Any], Any]  # images as the source wants them -> scores
    shape: tuple[int | None, ...] | None  # of its input without the batch; None = unknown
    input_name: str
    output_name: str
    is_channels_first: bool
    title: str
    scale: float | None = None


def convert_source(source: Source, request: ImportRequest) -> Imported:
    """Write a function's ONNX file, compare its outputs, and say what was done. Raises: DataError."""
    tf = tensorflow()
    tf2onnx = importlib.import_module("tf2onnx")

    file = request.sources[0]
    shape, arrange = _border(source, request)
    signature = [tf.TensorSpec([None, *shape], tf.float32, name=source.input_name)]
    function = tf.function(lambda images: source.call(arrange(tf, images)), input_signature=signature)
    model = _converted(tf2onnx, function.get_concrete_function())
    _finish(model, source, file)
    import onnx

    onnx.save(model, str(request.target))
    images = random_images(shape)
    expected = np.asarray(function(tf.constant(images)), np.float32)
    tools = {name: importlib.metadata.version(name) for name in ("tf2onnx", "keras")} | {"tensorflow": tf.__version__}
    return Imported(
        title=source.title,
        tools=", ".join(f"{name} {version}" for name, version in tools.items()),
        scale=source.scale,
        difference=difference_of(expected, request.target, images, file),
    )


def _converted(tf2onnx: Any, function: Any) -> Any:
    """Return the ONNX model of a concrete function of one tensor.

    tf2onnx's own `from_function` takes for inputs, beside the images, the tensors that a model holds and that are no
    variables, such as the mean and the variance of Keras' Normalization.
    """
    inputs, outputs = [function.inputs[0].name], [tensor.name for tensor in function.outputs]
    graph = tf2onnx.tf_loader.from_function(function, inputs, outputs)
    model, _ = tf2onnx.convert.from_graph_def(graph, input_names=inputs, output_names=outputs, opset=OPSET)
    return model


def uses_channels_first(graph: Any) -> bool:
    """Tell whether a TensorFlow graph moves windows over N x C x H x W."""
    formats = [op.get_attr("data_format") for op in graph.get_operations() if "data_format" in op.node_def.attr]
    return any(found.startswith(b"NC") for found in formats)


def _border(source: Source, request: ImportRequest) -> tuple[tuple[int, ...], Callable[[Any, Any], Any]]:
    """Return the imported input's shape without the batch, and what turns such images into the source's."""
    file, given = request.sources[0], request.input_shape
    shape = source.shape
    if shape is None or None in shape:
        if not given:
            text = "unknown" if shape is None else " x ".join("?" if n is None else str(n) for n in shape)
            raise DataError(f"{file}: the shape of input {source.input_name} is {text}; give --input-shape, as 1,28,28")
        return given, _from_channels_first if len(given) == 3 and not source.is_channels_first else _as_it_is
    known = tuple(size for size in shape if size is not None)
    imported, arrange = known, _as_it_is
    if len(known) == 3 and not source.is_channels_first:
        imported, arrange = (known[2], known[0], known[1]), _from_channels_first
    elif len(known) == 2:  # rows and columns without a channel, as Keras' first tutorial has them
        imported, arrange = (1, *known), _without_channel
    elif len(known) not in (1, 3):
        raise DataError(f"{file}: input {source.input_name} is N x {known}; expected images or rows of numbers")
    if given and given != imported:
        raise DataError(f"{file}: input {source.input_name} is {imported}; --input-shape says {given}")
    return imported, arrange


def _from_channels_first(tf: Any, images: Any) -> Any:
    return tf.transpose(images, [0, 2, 3, 1])


def _without_channel(tf: Any, images: Any) -> Any:
    return tf.squeeze(images, 1)


def _as_it_is(tf: Any, images: Any) -> Any:
    del tf
    return images


def _finish(model: Any, source: Source, file: str) -> None:
    """Name input and output as the source does, free the batch, and write computed shapes out."""
    if len(model.graph.output) != 1:
        raise DataError(f"{file}: the function gives {len(model.graph.output)} outputs; choose one with --output-name")
    model.ir_version = IR_VERSION
    _rename(model, model.graph.input[0].name, source.input_name)
    _rename(model, model.graph.output[0].name, source.output_name)
    for value in (model.graph.input[0], model.graph.output[0]):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = FREE_BATCH
    _write_shapes_out(model)


def _rename(model: Any, old: str, new: str) -> None:
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)} - {old}
    if new in taken:
        return
    _read_instead(model, old, new)
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            if name == old:
                node.output[place] = new
    for value in (*model.graph.input, *model.graph.output):
        if value.name == old:
            value.name = new


def _write_shapes_out(model: Any) -> None:
    """Replace what computes the shape of a Reshape by the shape, -1 for the batch: quantizers and parsers want that."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    values = (*inferred.graph.value_info, *model.graph.input, *model.graph.output)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in values}
    weights = {tensor.name for tensor in model.graph.initializer}
    free = {value.name: _free_batch(shapes[value.name]) for value in values}
    for node in model.graph.node:
        if node.op_type != "Reshape":
            continue
        sizes = free.get(node.output[0], ())
        if sizes and sizes == free.get(node.input[0]):  # what is left of a transposition there and back
            _read_instead(model, node.output[0], node.input[0])
        elif sizes and node.input[1] not in weights:
            name = f"{node.output[0]}/shape"
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(sizes, np.int64), name))
            node.input[1] = name
    _drop_unread(model)


def _free_batch(dimensions: Any) -> tuple[int, ...]:
    """Return a shape with -1 for the batch, () where another size is unknown."""
    sizes = tuple(size.dim_value for size in dimensions)
    return (-1, *sizes[1:]) if sizes and all(sizes[1:]) and not sizes[0] else ()


def _read_instead(model: Any, old: str, new: str) -> None:
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new


def _drop_unread(model: Any) -> None:
    while True:
        read = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
        kept = [node for node in model.graph.node if read.intersection(node.output)]
        if len(kept) == len(model.graph.node):
            break
        del model.graph.node[:]
        model.graph.node.extend(kept)
    weights = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
