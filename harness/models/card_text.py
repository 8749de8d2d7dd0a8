"""A card for a model: TOML that `harness.models.load_card` reads, for a person to complete."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace

import msgspec

from harness.models.engine_tensors import text_of_input
from harness.models.guesses import guessed_task, picture_input
from harness.specs import RAW_TASK, Case, ModelSpec, ModelTensors, Precision, Preprocess, ShippedEngine

COLOUR_CHANNELS = 3
HINT = """
# [preprocess]  # for images of another size; the preset brings mean and std: remove those above
# preset = "imagenet"  # or "yolo"
"""


def engine_spec(model: ModelSpec, case: Case, *, sha256: str, runtime: str, batch_size: int | None) -> ModelSpec:
    """Return what the card of a case's engine says. `batch_size`: the only one that it takes [images]; None: free."""
    is_fp32 = case.precision is Precision.FP32  # floors are FP32's; what is accepted against FP32 means nothing here
    return replace(
        model,
        sha256=sha256,
        description=model.description or f"{case.id}, exported",
        engine=ShippedEngine(backend=case.backend, precision=case.precision, runtime=runtime),
        is_quantized=False,
        max_batch=batch_size if model.tensors is None and batch_size else model.max_batch,
        floors=model.floors if is_fp32 else {},
        max_drop={},
        min_speedup={},
    )


def prepared_spec(model: ModelSpec, case: Case, *, sha256: str) -> ModelSpec:
    """Return what the card of a case's prepared model says."""
    description = model.description or f"{case.id}, exported"
    return replace(model, sha256=sha256, description=description, is_quantized=case.precision is Precision.INT8)


def card_text(spec: ModelSpec, *, file: str, provenance: str) -> str:
    """Return the card of a model; `provenance` says what it was made from. A model without a sha256 has none in it."""
    extra = f"max_batch = {spec.max_batch}  # the file's own batch [images]\n" if spec.max_batch else ""
    is_classifier = spec.tensors is None  # of others a task says whether they are scored
    extra += "timing_only = true  # never scored\n" if spec.timing_only and is_classifier else ""
    extra += "expects_int8_loss = true\n" if spec.expects_int8_loss else ""
    extra += "quantized = true  # runs as INT8, as given\n" if spec.is_quantized else ""
    digest = f"sha256 = {_text(spec.sha256)}\n" if spec.sha256 else ""
    head = f"""[model]
file = {_text(file)}
{digest}description = {_text(spec.description)}
how_trained = {_text(provenance)}
{extra}{_engine_text(spec)}"""
    body = _graph_text(spec) if spec.tensors is not None else _classifier_text(spec)
    return head + body + _history_text(spec)


def _history_text(spec: ModelSpec) -> str:
    """Return what a model was trained on, and what is expected of it."""
    tables = {
        "accuracy": spec.accuracy,
        "floors": spec.floors,
        "max_drop": spec.max_drop,
        "min_speedup": spec.min_speedup,
    }
    lines = [
        line
        for name, values in tables.items()
        if values
        for line in ("", f"[{name}]", *(f"{_text(key)} = {value!r}" for key, value in values.items()))
    ]
    for used in spec.trained_on:
        lines += ["", "[[trained_on]]", f"dataset = {_text(used.dataset)}", f"split = {_text(used.split)}"]
        lines += [f"first = {used.first}", f"stop = {used.stop}"]
    return "\n".join([*lines, ""]) if lines else ""


def _classifier_text(spec: ModelSpec) -> str:
    return (
        f"""
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
{f"label_offset = {spec.label_offset}" if spec.label_offset else ""}
""".rstrip("\n")
        + "\n"
    )


def _engine_text(spec: ModelSpec) -> str:
    """Return what a card says of a built engine, "" of a model."""
    engine, tensors = spec.engine, spec.tensors
    if engine is None:
        return ""
    lines = [
        "\n[engine]",
        f"backend = {_text(engine.backend)}",
        f"precision = {_text(engine.precision)}",
        f"runtime = {_text(engine.runtime)}",
    ]
    if tensors is not None:
        lines.append(f"inputs = {_texts(text_of_input(one) for one in tensors.inputs)}")
        lines.append(f"outputs = {_texts(one.name for one in tensors.outputs)}")
    return "\n".join(lines) + "\n"


def _graph_text(spec: ModelSpec) -> str:
    """Return what a card says of the inputs of any graph, and of what its outputs are."""
    inputs = spec.tensors.inputs if spec.tensors is not None else ()
    ranges = [f"{one.name}:{one.low:g}..{one.high:g}" for one in inputs]
    states = [f"{one.name}={one.state}" for one in inputs if one.state]
    shapes = [f"{one.name}:{'x'.join(map(str, one.shape))}" for one in inputs if one.shape]
    own = [] if spec.engine is not None else [f"shapes = {_texts(shapes)}"]
    lines = ["\n[graph]", *own, f"input_range = {_texts(ranges)}", *([f"state = {_texts(states)}"] if states else [])]
    lines += ["", "[output]", f"task = {_text(spec.task)}"]
    lines += _guess_lines(spec.tensors) if spec.tensors is not None and spec.task == RAW_TASK else []
    picture = picture_input(spec.tensors) if spec.tensors is not None else None
    if picture is not None and spec.input_name == picture.name:  # images are prepared for it
        lines += ["", "[input]", f"name = {_text(spec.input_name)}", f"scale = {spec.scale!r}"]
        lines += [f"mean = {list(spec.mean)}", f"std = {list(spec.std)}", f"layout = {_text(spec.layout)}"]
        lines += _preprocess_text(spec).removeprefix(HINT).splitlines()
    settings = [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in spec.task_settings.items()]
    return "\n".join([*lines, *(["", "[task]", *settings] if settings else [])]) + "\n"


def _guess_lines(tensors: ModelTensors) -> list[str]:
    """Return what the outputs look like, as comments."""
    guess = guessed_task(tensors)
    if guess is None:
        return []
    settings = (
        ["", "# [task]  # docs/tasks.md has all", *(f"# {one}" for one in guess.settings)] if guess.settings else []
    )
    return [f"# task = {_text(guess.task)}  # a guess: {guess.why}", *settings]


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


def _texts(values: Iterable[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # a JSON string is a TOML one
