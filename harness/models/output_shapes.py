"""What shape inference tells of a classifier's output: N x classes, N x classes x 1 x 1, or a batch baked in."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.models.onnx_graph import node_id

if TYPE_CHECKING:
    import onnx

TRIED_BATCH = 2
LARGE = 1 << 12  # elements; a tensor beyond holds weights, which no shape hangs on
Dimensions = list[int | None]


def dimensions_of(value: onnx.ValueInfoProto) -> Dimensions | None:
    """Return a value's shape, None for a free dimension, or None when not even its rank is known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim]


def output_dimensions(model: onnx.ModelProto, name: str) -> Dimensions | None:
    """Return an output's shape as its file declares it; inferred where that leaves its rank or classes open."""
    import onnx

    declared = next((dimensions_of(value) for value in model.graph.output if value.name == name), None)
    if declared is not None and all(size is not None for size in declared[1:]):
        return declared
    inferred = onnx.shape_inference.infer_shapes(_without_weights(model)).graph.output
    return next((dimensions_of(value) for value in inferred if value.name == name), None) or declared


def is_column(dimensions: Dimensions | None) -> bool:
    """Tell whether an output is N x classes with axes of size 1 behind."""
    return dimensions is not None and len(dimensions) > 2 and all(size == 1 for size in dimensions[2:])


def baked_batch(
    model: onnx.ModelProto, input_name: str, output_name: str, *, path: str | Path
) -> tuple[int, str] | None:
    """Return the batch that a graph gives whatever it is fed, and the node that fixes it; None where it follows.

    Found by inferring shapes with a batch of 2. Where that does not reach the output but a node has fixed the batch
    before, the file at `path` is run at batches 1 and 2; without ONNX Runtime it counts as free.
    """
    import onnx

    tried = _without_weights(model)
    batch = next((v.type.tensor_type.shape.dim for v in tried.graph.input if v.name == input_name), None)
    if not batch or batch[0].HasField("dim_value"):
        return None
    batch[0].dim_value = TRIED_BATCH
    del tried.graph.value_info[:]
    for value in tried.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        found = onnx.shape_inference.infer_shapes(tried, data_prop=True).graph
    except onnx.shape_inference.InferenceError:
        return None
    shapes = {value.name: dimensions_of(value) for value in (*found.value_info, *found.input, *found.output)}
    first = {name: sizes[0] for name, sizes in shapes.items() if sizes}
    size = first.get(output_name)
    if size == TRIED_BATCH:
        return None
    node = next((node for node in found.node if _fixes(node, first, size or 1)), None)
    if size is None and (node is None or _follows_when_run(path, input_name, output_name, shapes[input_name] or [])):
        return None
    return size or 1, "its output" if node is None else f"{node.op_type} {node_id(node)}"


def _follows_when_run(path: str | Path, input_name: str, output_name: str, sizes: Dimensions) -> bool:
    """Tell whether a file gives 2 rows of 2 images, or cannot be run at all."""
    try:
        ort = importlib.import_module("onnxruntime")
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception:  # not installed, or a file that it refuses: a backend says so later
        return True
    n_rows = []
    for n_images in (1, TRIED_BATCH):
        image = np.zeros((n_images, *(size or 1 for size in sizes[1:])), np.float32)
        try:
            n_rows.append(len(session.run([output_name], {input_name: image})[0]))
        except Exception:  # vendor's classes; at batch 1 it is no question of the batch
            n_rows.append(0)
    return n_rows[0] != 1 or n_rows[1] == TRIED_BATCH


def _fixes(node: onnx.NodeProto, first: dict[str, int | None], size: int) -> bool:
    """Tell whether a node takes the batch that was tried and gives another one."""
    return any(first.get(name) == TRIED_BATCH for name in node.input) and first.get(node.output[0]) == size


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose large tensors hold no values: shapes do not hang on them."""
    import onnx

    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name
    for part in ("node", "input", "output", "value_info"):
        getattr(light.graph, part).extend(getattr(model.graph, part))
    for tensor in model.graph.initializer:
        n_values = 1
        for size in tensor.dims:
            n_values *= size
        if n_values < LARGE:
            light.graph.initializer.add().CopyFrom(tensor)
        elif tensor.name not in {value.name for value in light.graph.input}:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light
