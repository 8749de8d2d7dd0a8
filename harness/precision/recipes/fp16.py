"""FP16: weights and arithmetic cast by onnxruntime.transformers.float16; inputs and outputs stay FP32.

Not onnxconverter_common's converter, which clips every weight beyond 1e4 by default.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import BuildError
from harness.models.feeds import seeded_feeds
from harness.models.onnx_graph import (
    INSTALL_HINT,
    constants_to_initializers,
    forget_types_of_weights,
    load_model,
    mend_old_constants,
    one_line,
    raise_ir,
    sort_nodes,
    state_kernels,
)
from harness.precision.activations import ActivationReader
from harness.precision.calibration import implied_range
from harness.precision.keeping import name_kept
from harness.precision.recipe import CAST, Conversion, ConversionRequest, Recipe
from harness.protocols import Images, Tensors
from harness.specs import ModelSpec, Precision

if TYPE_CHECKING:
    from onnx import ModelProto

FP16_MAX = 65504.0  # largest finite float16. Source: IEEE 754-2019, binary16
N_PROBE_IMAGES = 10
FP16_TINY = 5.96e-8  # smallest positive float16, 2**-24


def convert(request: ConversionRequest) -> Conversion:
    """Write the FP16 file of a model.

    Weights beyond 65504 are clipped, those below 2**-24 are raised to it; both are counted in the warnings.
    Raises: BuildError when the converter refuses the graph.
    """
    import onnx

    float16 = importlib.import_module("onnxruntime.transformers.float16")

    model = load_model(request.source)
    raise_ir(model)
    mend_old_constants(model)
    forget_types_of_weights(model)  # the converter changes them all, and leaves weights that nothing reads as they are
    state_kernels(model)
    if request.kept_float:
        constants_to_initializers(model)  # the converter casts every Constant, whoever reads it
    warnings = (*_weight_warnings(model), *_activation_warnings(model, request))
    try:
        converted = float16.convert_float_to_float16(
            model, keep_io_types=True, node_block_list=name_kept(model, request.kept_float)
        )
    except (ValueError, AssertionError, onnx.shape_inference.InferenceError) as error:
        raise BuildError(f"model {request.spec.name}: FP16 conversion failed: {one_line(error)}") from error
    sort_nodes(converted)  # the converter appends its casts at the end
    onnx.save(converted, str(request.target))
    return Conversion(warnings=warnings)


class _ProbeImages:
    """A few images that fill the range the card implies: black, white and seeded noise."""

    fingerprint = ""
    n_images = N_PROBE_IMAGES

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec

    def feeds(self, batch_size: int) -> Iterator[Tensors]:
        """Yield the seeded inputs of one run after the other, of a model of any graph."""
        if self._spec.tensors is not None:
            for index in range(self.n_images):
                yield seeded_feeds(self._spec.tensors, batch_size, first=index * batch_size)

    def batches(self, batch_size: int) -> Iterator[Images]:
        """Yield float32[<= batch_size, ...]."""
        low, high = implied_range(self._spec)
        images = np.random.default_rng(0).uniform(low, high, (self.n_images, *self._spec.input_shape))
        images[0], images[1] = low, high
        for first in range(0, self.n_images, batch_size):
            yield images[first : first + batch_size].astype(np.float32)


def _activation_warnings(model: ModelProto, request: ConversionRequest) -> Iterator[str]:
    """Yield one line per activation that leaves FP16's range on images within the card's range."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    reader = ActivationReader(inferred, _computed_floats(inferred), request.spec, request.work_dir)
    for name, largest in reader.largest(_ProbeImages(request.spec)).items():
        if not largest <= FP16_MAX:
            yield (
                f"activation {name} reaches {largest:g} on an image within the card's range and overflows FP16 "
                f"(largest {FP16_MAX:.0f})"
            )


def _computed_floats(model: ModelProto) -> tuple[str, ...]:
    import onnx

    values = (*model.graph.value_info, *model.graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    computed = {name for node in model.graph.node for name in node.output}
    return tuple(sorted(floats & computed))


def _weight_warnings(model: ModelProto) -> Iterator[str]:
    """Yield one line per tensor that FP16 cannot hold."""
    from onnx import TensorProto, numpy_helper

    for tensor in model.graph.initializer:
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
        writes=CAST,
        precision=Precision.FP16,
        summary="weights and arithmetic cast to FP16, inputs and outputs FP32",
        convert=convert,
        tool_versions=tool_versions,
        weight_bits=16,
        required_modules=("onnx", "onnxruntime"),
        install_hint=INSTALL_HINT,
    ),
)
