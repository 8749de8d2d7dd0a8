"""A net of one operator as a file in a precision, and what ONNX's reference evaluator makes of it."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import BuildError, Unsupported
from harness.models.onnx_graph import one_line, sort_nodes
from harness.models.operator_nets import OperatorNet
from harness.models.tensors import tensors_of_file
from harness.specs import InputsAsked, ModelTensors, Precision

if TYPE_CHECKING:
    import onnx


def reference_outputs(net: OperatorNet) -> dict[str, NDArray[Any]]:
    """Return what ONNX's reference evaluator makes of a net. Raises: Unsupported where it has no such operator."""
    if net.expected is not None:
        return {net.model.graph.output[0].name: net.expected}
    evaluator = importlib.import_module("onnx.reference").ReferenceEvaluator
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            model, feeds = net.plain or (net.model, net.feeds)
            values = evaluator(model).run(None, dict(feeds))
    except Exception as error:  # it raises anything
        raise Unsupported(f"ONNX's reference evaluator cannot run it ({type(error).__name__})") from error
    return {output.name: np.asarray(v) for output, v in zip(net.model.graph.output, values, strict=True)}


def write_net(net: OperatorNet, precision: Precision, path: Path) -> ModelTensors:
    """Write a net and return what goes in and out. Raises: BuildError when it cannot be cast."""
    import onnx

    model = _in_precision(net, precision)
    onnx.save(model, str(path))
    return tensors_of_file(model, path, InputsAsked())


def _in_precision(net: OperatorNet, precision: Precision) -> onnx.ModelProto:
    """Return a net cast as the recipe casts it. Raises: BuildError."""
    if precision is not Precision.FP16:
        return net.model
    float16 = importlib.import_module("onnxruntime.transformers.float16")
    try:
        converted: onnx.ModelProto = float16.convert_float_to_float16(net.model, keep_io_types=True)
    except Exception as error:  # it raises anything
        raise BuildError(f"{net.name}: FP16 conversion failed: {one_line(error)}") from error
    sort_nodes(converted)
    return converted
