"""The engine inspector's JSON -> layers as they ran. Pure: text in, records out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from harness.errors import MeasurementError
from harness.records import Layer

# Names of kernels say what they multiply; the first pattern that matches decides.
KERNEL_PRECISIONS = (
    ("fp8", re.compile(r"e4m3|e5m2|fp8")),
    ("int8", re.compile(r"i8i8|s8s8|int8|imma|i8816|i16832|s32_s8")),
    ("bf16", re.compile(r"bf16")),
    ("tf32", re.compile(r"tf32")),
    ("fp16", re.compile(r"f16f16|h884|h16816|hmma|hgemm|hcudnn|fp16|_h1688|hhh|half")),
    ("fp32", re.compile(r"f32f32|scudnn|sgemm|fp32|ffma|sss_|float")),
)
# Words of tensor formats ("Row major linear FP32", "Half", "Int8"), searched in lower case.
FORMAT_PRECISIONS = (
    ("fp8", re.compile(r"fp8|e4m3")),
    ("bf16", re.compile(r"bf16|bfloat16")),
    ("fp16", re.compile(r"fp16|half|float16")),
    ("int8", re.compile(r"\bu?int8\b|int8")),
    ("fp32", re.compile(r"fp32|float32|\bfloat\b")),
    ("int64", re.compile(r"int64")),
    ("int32", re.compile(r"int32")),
    ("bool", re.compile(r"bool")),
)
# Layer types that move, cast or hold data only.
MOVING_KINDS = re.compile(
    r"^(reformat|noop|no_op|shuffle|constant|shape|shapehosttodevice\w*|copy|concat\w*|slice|gather|identity|cast|"
    r"quantize|dequantize|scale_quantize|memcpy\w*|signal|wait|assertion|squeeze|unsqueeze|move|fill)$",
    re.IGNORECASE,
)
ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]\x1e\x1f]+)\]")
PROFILE_SUFFIX = re.compile(r" \[profile (\d+)\]$")


def layers_from_inspector(
    text: str, *, times_ns: Mapping[str, float] | None = None, profile: int = 0
) -> tuple[Layer, ...]:
    """Return the layers of one optimization profile from `get_engine_information(JSON)`.

    Takes the JSON of 8.6 and 10.x (`Format/Datatype`) and of 11.x (`Format`, `Datatype`); raw control characters,
    which 8.6 writes, are accepted. 8.6 repeats the layers for every profile, with the profile's number in the name.
    `times_ns` maps layer names to their time [ns]. Raises: MeasurementError for text that is no inspector's.
    """
    try:
        found = json.loads(text, strict=False)
    except ValueError as error:
        raise MeasurementError(f"the engine inspector gave no JSON: {error}") from error
    if not isinstance(found, Mapping) or not isinstance(found.get("Layers"), list):
        raise MeasurementError("the engine inspector's JSON holds no list of layers")
    times = times_ns or {}
    own = [entry for entry in found["Layers"] if _profile_of(_name(entry)) == profile]
    return tuple(_layer(entry, times) for entry in own or found["Layers"])


def _name(entry: Any) -> str:
    return str(entry.get("Name", "")) if isinstance(entry, Mapping) else str(entry)


def _profile_of(name: str) -> int:
    match = PROFILE_SUFFIX.search(name)
    return int(match.group(1)) if match else 0


def _layer(entry: Any, times: Mapping[str, float]) -> Layer:
    if not isinstance(entry, Mapping):  # an engine built with layer names only
        return Layer(name=str(entry), kind="", time_ns=times.get(str(entry)))
    name, kind = _name(entry), str(entry.get("ParameterType") or entry.get("LayerType") or "")
    layer_type = str(entry.get("LayerType") or "")
    kernel = str(entry.get("TacticName") or "")
    return Layer(
        name=name,
        kind=kind,
        kernel=kernel,
        precision=_precision(entry, kernel),
        is_compute=not (MOVING_KINDS.match(kind) or MOVING_KINDS.match(layer_type)),
        onnx_nodes=tuple(dict.fromkeys(ONNX_NODE.findall(str(entry.get("Metadata", ""))))),
        time_ns=times.get(name),
    )


def _precision(entry: Mapping[str, Any], kernel: str) -> str:
    """Return the precision of the arithmetic: by kernel name, else type of weights, else the first typed input."""
    for precision, pattern in KERNEL_PRECISIONS:
        if pattern.search(kernel.lower()):
            return precision
    weights = entry.get("Weights")
    if isinstance(weights, Mapping) and (found := _format_precision(str(weights.get("Type", "")))):
        return found
    for tensor in [*entry.get("Inputs", []), *entry.get("Outputs", [])]:
        if isinstance(tensor, Mapping):
            typed = " ".join(str(tensor.get(key, "")) for key in ("Datatype", "Format/Datatype", "Format"))
            if found := _format_precision(typed):
                return found
    return ""


def _format_precision(text: str) -> str:
    lowered = text.lower()
    return next((precision for precision, pattern in FORMAT_PRECISIONS if pattern.search(lowered)), "")
