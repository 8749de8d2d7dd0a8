"""Names of free axes in an ONNX file: TensorRT holds all axes of one name to one size."""

from __future__ import annotations

import importlib
from typing import Any

from harness.specs import ModelInput, ModelTensors


def with_names_apart(data: bytes, tensors: ModelTensors) -> bytes:
    """Return a model whose free axes share a name only where they are of one size; as it is where they do.

    Exporters name axes "?" that have nothing to do with each other. A name is kept where it joins one axis each of
    several inputs, of the same sizes.
    """
    onnx: Any = importlib.import_module("onnx")
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # no ONNX, by protobuf's own classes: TensorRT's parser says what is wrong
        return data
    known = {one.name: one for one in tensors.inputs}
    of_name: dict[str, list[tuple[str, int, Any]]] = {}
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param and value.name in known:
                of_name.setdefault(dim.dim_param, []).append((value.name, axis, dim))
    shared = [places for places in of_name.values() if len(places) > 1 and not _is_one_size(places, known)]
    for name, axis, dim in (place for places in shared for place in places):
        dim.dim_param = f"{name}.{axis}"
    return bytes(model.SerializeToString()) if shared else data


def _is_one_size(places: list[tuple[str, int, Any]], known: dict[str, ModelInput]) -> bool:
    inputs = [known[name] for name, _, _ in places]
    axes = [axis for _, axis, _ in places]
    sizes = {
        (one.batch_axis == axis, *(shape[axis] for shape in (one.shape, one.min_shape, one.max_shape) if shape))
        for one, axis in zip(inputs, axes, strict=True)
    }
    return len(sizes) == 1 and len({one.name for one in inputs}) == len(inputs)
