"""INT8 as Q/DQ nodes in one ONNX file that ONNX Runtime, OpenVINO and TensorRT accept.

Symmetric, per-channel weights, FP32 bias, Q/DQ pairs on the inputs of Conv, ConvTranspose, Gemm and MatMul. The graph
is rewritten by onnxruntime.quantization; the ranges come from `activations` and `ranges`, because its calibrators
keep all activations in memory and its entropy search runs a single step (onnxruntime issue 9597).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import BuildError, Unsupported
from harness.models.onnx_graph import (
    INSTALL_HINT,
    constants_to_initializers,
    inner_operators,
    load_model,
    mend_old_constants,
    node_id,
    one_line,
    opset_of,
    raise_ir,
    raise_opset,
    state_kernels,
)
from harness.precision.activations import ActivationReader
from harness.precision.keeping import is_kept, name_kept
from harness.precision.ranges import MagnitudeHistogram, entropy_threshold, percentile_threshold
from harness.precision.recipe import QDQ, Conversion, ConversionRequest, Recipe
from harness.precision.view import calibration_view
from harness.protocols import CalibrationSet
from harness.specs import Precision

if TYPE_CHECKING:
    import onnx

QUANTIZED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
N_DATA_INPUTS = 2  # of these ops; a third is the bias
# What 8-bit kernels keep between products; ONNX Runtime's QDQ tools, OpenVINO and TensorRT know all of them.
WIDE_OPS = (*QUANTIZED_OPS, "Add", "AveragePool", "Concat", "GlobalAveragePool", "MaxPool", "Mul", "Resize")
MIN_OPSET = 13  # first with per-channel QuantizeLinear
REDUCED_BITS = 7
# Source: TensorRT's explicit quantization rules (symmetric, no INT32 bias) and ModelOpt 0.47's options for
# onnxruntime.quantization (onnx/quantization/ort_utils.py).
QUANTIZER_OPTIONS: dict[str, Any] = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "AddQDQPairToWeight": True,
    "DedicatedQDQPair": False,
}

Threshold = Callable[[MagnitudeHistogram], float]
THRESHOLDS: dict[str, Threshold | None] = {  # method -> how a histogram becomes a range; None: its largest value
    "minmax": None,
    "entropy": entropy_threshold,
    "percentile": percentile_threshold,
}


def convert(
    request: ConversionRequest,
    *,
    method: str,
    threshold: Threshold | None,
    quantize_outputs: bool = False,
    ops: Sequence[str] = QUANTIZED_OPS,
) -> Conversion:
    """Write the Q/DQ file of a model; `threshold=None` takes each activation's largest magnitude.

    Raises: Unsupported when there is nothing to quantize; BuildError when the model does not run; DataError for bad
    calibration images.
    """
    model = prepare_graph(request.source, request.work_dir)
    names = tensors_to_quantize(model, request, ops=ops, with_outputs=quantize_outputs)
    if request.calibration is None:
        raise BuildError(f"model {request.spec.name}: INT8 needs calibration images; none were given")
    reader = ActivationReader(model, names, request.spec, request.work_dir)
    ranges, histograms = _chosen(reader, request.calibration, threshold, name=request.spec.name)
    write_qdq(model, ranges, request, quantize_outputs=quantize_outputs, ops=ops)
    return Conversion(method=method, batch_size=reader.batch_size, tensors=calibration_view(ranges, histograms))


def activation_ranges(
    reader: ActivationReader, calibration: CalibrationSet, threshold: Threshold | None, *, name: str
) -> dict[str, float]:
    """Return the magnitude that each tensor of a reader is clipped to; `name` is the model's, for messages.

    Raises: BuildError when an activation is NaN or infinite; DataError for bad images.
    """
    return _chosen(reader, calibration, threshold, name=name)[0]


def _chosen(
    reader: ActivationReader, calibration: CalibrationSet, threshold: Threshold | None, *, name: str
) -> tuple[dict[str, float], dict[str, MagnitudeHistogram]]:
    """Return the range of each tensor, and the histogram it was chosen from where there is one."""
    ranges = finite_ranges(reader, calibration, name=name)
    if threshold is None:
        return ranges, {}
    histograms = reader.histograms(calibration, ranges)
    return {tensor: threshold(histogram) for tensor, histogram in histograms.items()}, histograms


def finite_ranges(reader: ActivationReader, calibration: CalibrationSet, *, name: str) -> dict[str, float]:
    """Return the largest magnitude of each tensor of a reader. Raises: as `activation_ranges`."""
    ranges = reader.largest(calibration)
    for tensor, largest in ranges.items():
        if not np.isfinite(largest):
            raise BuildError(
                f"model {name}: activation {tensor} becomes {largest} on calibration images; "
                "the FP32 model itself overflows"
            )
    return ranges


def prepare_graph(source: Path, work_dir: Path, *, fold: bool = True) -> onnx.ModelProto:
    """Load a model ready to be quantized: constants as initializers, batch norm folded if asked, shapes inferred.

    Raises: BuildError when the operator set is too old and cannot be raised.
    """
    import onnx

    model = load_model(source)
    raise_ir(model)
    mend_old_constants(model)
    state_kernels(model)
    model = raise_opset(model, MIN_OPSET, name=str(source), why="has no per-channel quantization")
    if fold and any(node.op_type == "BatchNormalization" for node in model.graph.node):
        model = _folded(model, work_dir)
    constants_to_initializers(model)
    return onnx.shape_inference.infer_shapes(model)


def tensors_to_quantize(
    model: onnx.ModelProto,
    request: ConversionRequest,
    *,
    ops: Sequence[str] = QUANTIZED_OPS,
    with_outputs: bool = False,
) -> tuple[str, ...]:
    """Return `quantized_tensors` of a model that must have some. Raises: Unsupported, saying where its products are."""
    names = quantized_tensors(model, kept=request.kept_float, ops=ops, with_outputs=with_outputs)
    if names:
        return names
    name, found = request.spec.name, inner_operators(model)
    inner = next((op for op in ops if op in found), "")
    if inner:
        raise Unsupported(f"model {name}: its {inner} lies within an If, Loop or Scan, where recipes do not quantize")
    if any(node.op_type in ops and is_kept(node, request.kept_float) for node in model.graph.node):
        raise Unsupported(f"model {name}: --keep-float keeps all that could be quantized; nothing to quantize is left")
    raise Unsupported(f"model {name} has none of {', '.join(ops)} on FP32 data; nothing to quantize")


def quantized_tensors(
    model: onnx.ModelProto,
    *,
    kept: Sequence[str] = (),
    ops: Sequence[str] = QUANTIZED_OPS,
    with_outputs: bool = False,
) -> tuple[str, ...]:
    """Return the names of the activations that get Q/DQ pairs; `kept`: nodes that stay in float."""
    floats = set(float_tensors(model))
    names: dict[str, None] = {}
    for node in model.graph.node:
        if node.op_type in ops and not is_kept(node, kept):
            data = node.input[:N_DATA_INPUTS] if node.op_type in QUANTIZED_OPS else node.input
            tensors = [*data, *(node.output if with_outputs else ())]
            names.update(dict.fromkeys(name for name in tensors if name in floats))
    return tuple(names)


def float_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of all FP32 tensors that are no weights: the inputs, then the outputs of the nodes in order."""
    import onnx

    floats = {
        value.name
        for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    made = [value.name for value in model.graph.input] + [name for node in model.graph.node for name in node.output]
    weights = {tensor.name for tensor in model.graph.initializer}
    return tuple(name for name in made if name in floats and name not in weights)


def _folded(model: onnx.ModelProto, work_dir: Path) -> onnx.ModelProto:
    """Fold batch norm into convolutions, where ONNX Runtime can and the operator set stays the same."""
    import onnx

    ort = importlib.import_module("onnxruntime")

    source, target = work_dir / "unfolded.onnx", work_dir / "folded.onnx"
    onnx.save(model, str(source))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    folded = load_model(target)
    own = {o.domain for o in model.opset_import}
    used = {node.domain for node in folded.graph.node}
    if opset_of(folded) != opset_of(model) or not used <= own | {"", "ai.onnx"}:
        return model
    kept = [o for o in folded.opset_import if o.domain in own]  # ONNX Runtime lists all domains it knows
    del folded.opset_import[:]
    folded.opset_import.extend(kept)
    folded.ir_version = model.ir_version
    return folded


def write_qdq(
    model: onnx.ModelProto,
    ranges: Mapping[str, float],
    request: ConversionRequest,
    *,
    quantize_outputs: bool = False,
    ops: Sequence[str] = QUANTIZED_OPS,
) -> None:
    """Write a model with Q/DQ pairs whose activations are clipped to `ranges` into `request.target`.

    Raises: BuildError when onnxruntime.quantization fails or changes more than it was asked to.
    """
    tools = importlib.import_module("onnxruntime.quantization")
    # 1.23, the last for Python 3.10, exports TensorData from here only.
    ranges_of = importlib.import_module("onnxruntime.quantization.calibrate")

    opset, ir_version = opset_of(model), model.ir_version
    data = {
        name: ranges_of.TensorData(lowest=np.float32(-value), highest=np.float32(value))
        for name, value in ranges.items()
    }
    excluded: Sequence[str] = () if quantize_outputs else QUANTIZED_OPS
    options = {**QUANTIZER_OPTIONS, "OpTypesToExcludeOutputQuantization": list(excluded)}
    with contextlib.redirect_stdout(io.StringIO()):
        quantizer = tools.QDQQuantizer(
            model,
            True,  # per_channel
            request.weight_bits == REDUCED_BITS,  # reduce_range, of the weights
            tools.QuantType.QInt8,
            tools.QuantType.QInt8,
            ranges_of.TensorsData(tools.CalibrationMethod.MinMax, data),
            [],  # nodes to quantize: all
            name_kept(model, request.kept_float),
            list(ops),
            options,
        )
        try:
            quantizer.quantize_model()
        except (ValueError, RuntimeError, KeyError) as error:
            raise BuildError(
                f"model {request.spec.name}: onnxruntime.quantization failed: {one_line(error)}"
            ) from error
        quantizer.model.save_model_to_file(str(request.target), False)
    _check_kept(request.target, opset, ir_version)


def _check_kept(target: Path, opset: int, ir_version: int) -> None:
    written = load_model(target)
    if (opset_of(written), written.ir_version) != (opset, ir_version):
        raise BuildError(
            f"{target}: quantization changed operator set {opset} / IR {ir_version} to {opset_of(written)} / "
            f"{written.ir_version}; TensorRT 8.6 and older runtimes would refuse the file"
        )
    pairs = [node_id(node) for node in written.graph.node if node.op_type == "QuantizeLinear"]
    if not pairs:
        raise BuildError(f"{target}: onnxruntime.quantization added no Q/DQ pair")


def tool_versions() -> Mapping[str, str]:
    """Return the versions of what writes the file."""
    return {name: importlib.metadata.version(name) for name in ("onnx", "onnxruntime")}


def _recipe(
    name: str, summary: str, method: str, *, outputs: bool = False, ops: Sequence[str] = QUANTIZED_OPS
) -> Recipe:
    return Recipe(
        name=name,
        precision=Precision.INT8,
        writes=QDQ,
        summary=summary,
        convert=partial(convert, method=method, threshold=THRESHOLDS[method], quantize_outputs=outputs, ops=ops),
        tool_versions=tool_versions,
        needs_calibration=True,
        required_modules=("onnx", "onnxruntime"),
        install_hint=INSTALL_HINT,
    )


RECIPES = (
    _recipe("qdq-minmax", "Q/DQ, range up to the largest activation", "minmax"),
    _recipe("qdq-entropy", "Q/DQ, range by least information loss over 2048 bins", "entropy"),
    _recipe("qdq-percentile", "Q/DQ, range up to the 99.999th percentile", "percentile"),
    _recipe(
        "qdq-outputs",
        "as qdq-minmax, with Q/DQ on outputs too: what ONNX Runtime's 8-bit kernels need",
        "minmax",
        outputs=True,
    ),
    _recipe(
        "qdq-wide",
        "as qdq-outputs, and on Add, Mul, Concat, Resize and pooling too: fewer steps back to FP32 between products",
        "minmax",
        outputs=True,
        ops=WIDE_OPS,
    ),
)
