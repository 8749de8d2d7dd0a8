"""A card for a model: TOML that `harness.models.load_card` reads, for a person to complete."""

from __future__ import annotations

import json
from dataclasses import asdict

from harness.specs import ModelSpec, Preprocess

COLOUR_CHANNELS = 3
HINT = """
# [preprocess]  # for images of another size; the preset brings mean and std: remove those above
# preset = "imagenet"  # or "yolo"
"""


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
{_preprocess_text(spec)}
[output]
name = {_text(spec.output_name)}
classes = {spec.num_classes}
kind = {_text(spec.output_kind)}
"""


def _preprocess_text(spec: ModelSpec) -> str:
    """Return the table of what is done to images of another size; a hint where the model takes coloured ones."""
    asked, usual = asdict(spec.preprocess), asdict(Preprocess())
    values = {name: value for name, value in asked.items() if value != usual[name]}
    if not values:
        is_colour = spec.layout != "flat" and COLOUR_CHANNELS in (spec.input_shape[0], spec.input_shape[-1])
        return HINT if is_colour else ""
    written = {name: _text(value) if isinstance(value, str) else _sizes(value) for name, value in values.items()}
    return "\n[preprocess]\n" + "".join(f"{name} = {value}\n" for name, value in written.items())


def _sizes(value: int | tuple[int, ...]) -> str:
    if isinstance(value, int):
        return str(value)
    return str(value[0]) if len(value) == 1 else str(list(value))


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # a JSON string is a TOML one
