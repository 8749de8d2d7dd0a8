"""Keras: a .keras or .h5 file of Keras 3 or tf.keras, or the SavedModel folder that `model.export` writes."""

from __future__ import annotations

import importlib
from pathlib import Path

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
from harness.models.importers.tf import saved_model


def convert(request: ImportRequest) -> Imported:
    """Write the ONNX file of a Keras model. Raises: DataError."""
    path = only_source(request, TAKES)
    return convert_source(saved_model(path, request) if path.is_dir() else _model(path, request), request)


def _model(path: Path, request: ImportRequest) -> Source:
    tf = tensorflow()
    keras = importlib.import_module("keras")

    model = keras.models.load_model(str(path), compile=False)  # a file with code of its own is refused by Keras
    if len(model.inputs) != 1:
        names = ", ".join(tensor.name for tensor in model.inputs)
        raise DataError(f"{path}: has {len(model.inputs)} inputs ({names}); expected one, the images")
    outputs = list(getattr(model, "output_names", ()) or (model.layers[-1].name,))  # a Sequential has no list of them
    if len(outputs) > 1 and request.output_name not in outputs:
        raise DataError(f"{path}: has {len(outputs)} outputs ({', '.join(outputs)}); choose one with --output-name")
    place = outputs.index(request.output_name) if len(outputs) > 1 else 0
    shape = tuple(model.inputs[0].shape[1:])

    def call(images: object) -> object:
        found = model(images, training=False)
        return found[place] if isinstance(found, list | tuple) else found

    graph = tf.function(call).get_concrete_function(tf.TensorSpec([None, *shape], tf.float32)).graph
    return Source(
        call=call,
        shape=shape,
        input_name=model.inputs[0].name,
        output_name=outputs[place],
        is_channels_first=uses_channels_first(graph),
        title=model.name,
        # It scales the pixels itself.
        scale=1.0 if any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers) else None,
    )


TAKES = "MODEL.keras, MODEL.h5 or a SavedModel folder"
IMPORTER = Importer(
    name="keras",
    summary="Keras 3: a .keras or .h5 file, or a SavedModel folder",
    takes=TAKES,
    convert=convert,
    required_modules=MODULES,
    install_hint=INSTALL_HINT,
)
