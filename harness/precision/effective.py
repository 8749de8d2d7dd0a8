"""Layers as a runtime ran them -> what precision the work was done in. Pure: no runtime, no file."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from harness.records import UNKNOWN, EffectivePrecision, Layer
from harness.specs import Precision

ROUNDING = ("fp16", "bf16")  # precisions whose cast files round the weights even where the arithmetic stays FP32
# Layers that multiply and accumulate, by the runtimes' own type names; "conversion" and "convert" are not among them.
MULTIPLYING = re.compile(
    r"conv(?!er)|gemm|mat_?mul|matrix_?mult|fully_?connected|inner_?product|einsum|attention|lstm|gru|rnn",
    re.IGNORECASE,
)
# What optimizers put around a node's name. Source: ONNX Runtime 1.20-1.31, core/optimizer (gemm_activation_fusion,
# nchwc_transformer, Graph::GenerateNodeName) and Q/DQ node names of onnxruntime.quantization.
FUSED_PREFIX = re.compile(r"^(?:fused |fused_)")
ADDED_SUFFIX = re.compile(r"(?:_nchwc|_nhwc|_token_\d+|_quant|_kernel_time|_transformed_\d+|/WithoutBiases)$")


def effective_precision(
    layers: Sequence[Layer], asked: Precision | str, note: str = "", *, has_cast_weights: bool = True
) -> EffectivePrecision:
    """Return the share of layers, and of their time where known, per precision.

    The layers that count are those that multiply and accumulate (convolutions, matrix products); a model without any
    is judged by all its compute layers. `note` leads the note; what differs from the request is added to it.
    `has_cast_weights`: whether the file's weights are of the precision asked, or FP32's own.
    """
    counted = counted_layers(layers)
    by_layer = _shares((layer.precision, 1.0) for layer in counted)
    timed = bool(counted) and all(layer.time_ns is not None for layer in counted)
    by_time = _shares((layer.precision, layer.time_ns or 0.0) for layer in counted) if timed else None
    found = EffectivePrecision(by_layer=by_layer, by_time=by_time or None, note="")
    differs = _difference(found, str(asked), has_cast_weights=has_cast_weights)
    notes = [part for part in (note, differs, _uncounted(layers, counted, str(asked))) if part]
    return EffectivePrecision(by_layer=by_layer, by_time=by_time or None, note="; ".join(notes))


def counted_layers(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Return the layers whose precision counts: those that multiply, or all compute layers if none does."""
    compute = tuple(layer for layer in layers if layer.is_compute)
    return tuple(layer for layer in compute if is_multiplying(layer.kind)) or compute


def is_multiplying(kind: str) -> bool:
    """Tell whether a layer of this kind multiplies and accumulates (convolution, matrix product, ...)."""
    return bool(MULTIPLYING.search(kind))


def onnx_nodes_of(name: str, nodes: Mapping[str, str]) -> tuple[str, ...]:
    """Return the ONNX nodes behind a runtime's layer name, () when there is none.

    `nodes` maps every node's own name and the names of its outputs to the node's name. Decorations of optimizers
    ("fused X", "X_nchwc", "X_token_7") are taken off one after the other until a name is known.
    """
    found = nodes.get(name)
    candidate = FUSED_PREFIX.sub("", name)
    while found is None:
        found = nodes.get(candidate)
        shorter = ADDED_SUFFIX.sub("", candidate)
        if shorter == candidate:
            break
        candidate = shorter
    return (found,) if found else ()


def median_times(runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the median per name over several runs [unit of the runs]."""
    times: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for name, value in run.items():
            times[name].append(value)
    return {name: median(values) for name, values in times.items()}


def _shares(weights: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for precision, weight in weights:
        sums[precision or UNKNOWN] += weight
    total = sum(sums.values())
    return {name: value / total for name, value in sorted(sums.items())} if total > 0 else {}


def _difference(found: EffectivePrecision, asked: str, *, has_cast_weights: bool) -> str:
    if not found.by_layer:
        return "no layer was read back"
    share = found.by_layer.get(asked, 0.0)
    if share >= 1.0:
        return ""
    others = ", ".join(f"{part:.0%} in {name}" for name, part in found.by_layer.items() if name != asked)
    is_rounded = has_cast_weights and asked in ROUNDING and found.main == "fp32"
    rounded = f"; its weights are rounded to {asked}" if is_rounded else ""
    return f"requested {asked}; of the compute layers ran {others}{rounded}"


def _uncounted(layers: Sequence[Layer], counted: Sequence[Layer], asked: str) -> str:
    """Say how many layers besides those counted ran in another precision than asked (pools, softmax, ...)."""
    rest = [layer for layer in layers if layer.is_compute and layer not in counted and layer.precision != asked]
    if not rest or asked == "fp32":
        return ""
    kinds = ", ".join(sorted({f"{layer.kind} {layer.precision or UNKNOWN}" for layer in rest}))
    return f"beside them: {kinds}"
