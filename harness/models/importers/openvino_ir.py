"""OpenVINO IR: a graph (.xml) with its weights (.bin), kept as it is and given a card.

IR has no way back to ONNX, so that the model runs on OpenVINO alone, in the precision that its file holds.
"""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import DataError
from harness.models.formats import IR_WEIGHTS_SUFFIX, file_digest
from harness.models.importers._compare import random_images
from harness.models.importers._importer import Imported, Importer, ImportRequest
from harness.models.inspection import layout_of_shape
from harness.specs import IR_SUFFIX, ModelSpec

RANKS = (2, 4)
PASS_THROUGH = ("Reshape", "Squeeze", "Convert")


def convert(request: ImportRequest) -> Imported:
    """Copy both files beside the target, run them once, and return what the card must say. Raises: DataError."""
    if len(request.sources) != 1 or Path(request.sources[0]).suffix != IR_SUFFIX:
        raise DataError(f"{', '.join(request.sources)}: expected one file, {TAKES}")
    path = Path(request.sources[0])
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected {TAKES}")
    weights = path.with_suffix(IR_WEIGHTS_SUFFIX)
    if not weights.is_file():
        raise DataError(f"{path}: its weights, {weights.name}, do not lie beside it; copy both files")
    shutil.copyfile(path, request.target)
    shutil.copyfile(weights, request.target.with_suffix(IR_WEIGHTS_SUFFIX))
    ov = importlib.import_module("openvino")
    try:
        model = ov.Core().read_model(str(path))
        spec = _spec(model, path, request.target)
        _run_once(ov, model, spec, path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()  # the lines before say where in OpenVINO
        raise DataError(f"{path}: OpenVINO cannot read it ({reason}); export it again") from error
    return Imported(title=model.get_friendly_name(), tools=f"OpenVINO {ov.__version__}, unchanged", spec=spec)


def _spec(model: Any, path: Path, target: Path) -> ModelSpec:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise DataError(
            f"{path}: has {len(model.inputs)} inputs and {len(model.outputs)} outputs; expected one of each"
        )
    (image,), (scores,) = model.inputs, model.outputs
    for noun, port in (("input", image), ("output", scores)):
        kind = port.get_element_type().get_type_name()
        if kind != "f32":
            raise DataError(f"{path}: {noun} {port.get_any_name()} is {kind}; expected f32")
    batch, *shape = _sizes(image.get_partial_shape(), "input", path)
    _, *classes = _sizes(scores.get_partial_shape(), "output", path)
    if None in shape or len(shape) + 1 not in RANKS or len(classes) != 1 or classes[0] is None:
        shapes = f"takes {image.get_partial_shape()} and gives {scores.get_partial_shape()}"
        raise DataError(f"{path}: {shapes}; expected images or rows of a fixed size, and N x classes")
    sizes = tuple(int(size or 0) for size in shape)
    return ModelSpec(
        name="model",
        onnx_path=str(target),
        sha256=file_digest(target),
        input_name=image.get_any_name(),
        input_shape=sizes,
        output_name=scores.get_any_name(),
        num_classes=int(classes[0]),
        layout=layout_of_shape(sizes),
        output_kind="probabilities" if _ends_in_softmax(scores) else "logits",
        max_batch=batch,
    )


def _sizes(shape: Any, noun: str, path: Path) -> list[int | None]:
    if shape.rank.is_dynamic:
        raise DataError(f"{path}: the rank of its {noun} is unknown; export it with shapes")
    return [size.get_length() if size.is_static else None for size in shape]


def _ends_in_softmax(output: Any) -> bool:
    node = output.get_node().input_value(0).get_node()  # of the Result
    while node.get_type_name() in PASS_THROUGH:
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() in ("Softmax", "SoftMax"))


def _run_once(ov: Any, model: Any, spec: ModelSpec, path: Path) -> None:
    """Compile and run the model: a file whose weights are cut short is read without a word."""
    images = random_images(spec.input_shape)
    images = images if spec.max_batch is None else np.resize(images, (spec.max_batch, *spec.input_shape))
    found = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([images])[0]
    if not np.isfinite(found).all():
        raise DataError(f"{path}: gives NaN or infinite scores for random images; export it again")


TAKES = "MODEL.xml with MODEL.bin beside it"
IMPORTER = Importer(
    name="openvino-ir",
    summary="OpenVINO IR, kept as it is: it runs on OpenVINO alone",
    takes=TAKES,
    convert=convert,
    suffix=IR_SUFFIX,
    required_modules=("openvino",),
    install_hint="pip install 'nn-engine-harness[cpu]'",
)
