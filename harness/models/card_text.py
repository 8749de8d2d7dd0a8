"""A card for a model: TOML that `harness.models.load_card` reads, for a person to complete."""

from __future__ import annotations

import json

from harness.specs import ModelSpec


def card_text(spec: ModelSpec, *, file: str, provenance: str) -> str:
    """Return the card of a model; `provenance` says what it was made from. A model without a sha256 has none in it."""
    extra = f"max_batch = {spec.max_batch}  # the file's own batch [images]\n" if spec.max_batch else ""
    extra += "timing_only = true  # never scored\n" if spec.timing_only else ""
    extra += "quantized = true  # runs as INT8, as given\n" if spec.is_quantized else ""
    digest = f"sha256 = {_text(spec.sha256)}\n" if spec.sha256 else ""
    return f"""[model]
file = {_text(file)}
{digest}description = {_text(spec.description)}
how_trained = {_text(provenance)}
{extra}
[input]  # (pixel x scale - mean) / std, pixel 0..255
name = {_text(spec.input_name)}
shape = {list(spec.input_shape)}
layout = {_text(spec.layout)}
scale = {spec.scale!r}
mean = {list(spec.mean)}
std = {list(spec.std)}

[output]
name = {_text(spec.output_name)}
classes = {spec.num_classes}
kind = {_text(spec.output_kind)}
"""


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # a JSON string is a TOML one
