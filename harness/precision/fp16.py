"""FP16: weights and arithmetic cast by onnxruntime.transformers.float16; inputs and outputs stay FP32.

Not onnxconverter_common's converter, which clips every weight beyond 1e4 by default.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping

import numpy as np

from harness.errors import BuildError
from harness.onnx_graph import INSTALL_HINT, load_model, one_line, sort_nodes
from harness.precision.recipe import Conversion, ConversionRequest, Recipe
from harness.specs import Precision

FP16_MAX = 65504.0  # largest finite float16. Source: IEEE 754-2019, binary16
FP16_TINY = 5.96e-8  # smallest positive float16, 2**-24


def convert(request: ConversionRequest) -> Conversion:
    """Write the FP16 file of a model.

    Weights beyond 65504 are clipped, those below 2**-24 are raised to it; both are counted in the warnings.
    Raises: BuildError when the converter refuses the graph.
    """
    import onnx

    float16 = importlib.import_module("onnxruntime.transformers.float16")

    model = load_model(request.source)
    warnings = tuple(_weight_warnings(model))
    try:
        converted = float16.convert_float_to_float16(model, keep_io_types=True)
    except (ValueError, AssertionError, onnx.shape_inference.InferenceError) as error:
        raise BuildError(f"model {request.spec.name}: FP16 conversion failed: {one_line(error)}") from error
    sort_nodes(converted)  # the converter appends its casts at the end
    onnx.save(converted, str(request.target))
    return Conversion(warnings=warnings)


def _weight_warnings(model: object) -> Iterator[str]:
    """Yield one line per tensor that FP16 cannot hold."""
    from onnx import TensorProto, numpy_helper

    for tensor in model.graph.initializer:  # type: ignore[attr-defined]
        if tensor.data_type != TensorProto.FLOAT:
            continue
        size = np.abs(numpy_helper.to_array(tensor))
        n_beyond = int((size > FP16_MAX).sum())
        if n_beyond:
            yield (
                f"{n_beyond} of {size.size} weights of {tensor.name} overflow FP16 and are clipped to {FP16_MAX:.0f} "
                f"(largest {size.max():g})"
            )
        n_tiny = int(((size > 0) & (size < FP16_TINY)).sum())
        if n_tiny:
            yield f"{n_tiny} of {size.size} weights of {tensor.name} are below FP16's smallest value {FP16_TINY:g}"


def tool_versions() -> Mapping[str, str]:
    """Return the versions of what writes the file."""
    return {name: importlib.metadata.version(name) for name in ("onnx", "onnxruntime")}


RECIPES = (
    Recipe(
        name="cast",
        precision=Precision.FP16,
        summary="weights and arithmetic cast to FP16, inputs and outputs FP32",
        convert=convert,
        tool_versions=tool_versions,
        weight_bits=16,
        required_modules=("onnx", "onnxruntime"),
        install_hint=INSTALL_HINT,
    ),
)
