"""What goes into a built engine of any graph and comes out, as its card says it: no ONNX file tells. Pure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.errors import DataError
from harness.specs import InputsAsked, ModelInput, ModelOutput, ModelTensors

SCALAR = "scalar"
FORM = "NAME:TYPE:DIMS, as ids:int64:1x128"


def tensors_of_engine(
    inputs: tuple[str, ...], outputs: tuple[str, ...], asked: InputsAsked | None, card: Path
) -> ModelTensors | None:
    """Return the inputs and outputs of an engine of any graph, None where its card names none: an image classifier.

    An engine runs at the shapes of its card: one run is one sample. `asked`: ranges and states, from [graph].
    Raises: DataError that names the key.
    """
    if not inputs:
        if outputs or asked is not None:
            raise DataError(f"{card}: [engine] has no inputs, each {FORM}; an engine of any graph names them")
        return None
    if not outputs:
        raise DataError(f"{card}: [engine] has no outputs; name them")
    asked = asked or InputsAsked()
    if asked.shapes or asked.min_shapes or asked.max_shapes:
        raise DataError(f"{card}: [graph] shapes: those of an engine stand in [engine] inputs")
    found = tuple(_input(text, asked, card) for text in inputs)
    for what, named in asked.names:
        for name in named:
            if name not in {one.name for one in found}:
                raise DataError(f"{card}: [graph] {what.replace('-', '_')}: [engine] has no input {name!r}")
    axis = 0 if all(one.shape[:1] == (1,) for one in found) else None  # as of a file whose first axes all say 1
    return ModelTensors(
        inputs=tuple(replace(one, batch_axis=axis) for one in found),
        outputs=tuple(ModelOutput(name=name, batch_axis=axis) for name in outputs),
    )


def text_of_input(tensor: ModelInput) -> str:
    """Return an input as a card has it."""
    return f"{tensor.name}:{tensor.dtype}:{'x'.join(map(str, tensor.shape)) or SCALAR}"


def _input(text: str, asked: InputsAsked, card: Path) -> ModelInput:
    name, _, rest = text.rpartition(":")
    name, _, dtype = name.rpartition(":")
    try:
        shape = () if rest == SCALAR else tuple(int(size) for size in rest.split("x"))
        kind = np.dtype(dtype)
    except (TypeError, ValueError):
        raise DataError(f"{card}: [engine] inputs = {text!r}; expected {FORM}") from None
    if not name or kind.kind not in "biuf" or any(size < 1 for size in shape):
        raise DataError(f"{card}: [engine] inputs = {text!r}; expected {FORM}")
    low, high = dict(asked.ranges).get(name, (0.0, 1.0))
    return ModelInput(
        name=name, dtype=kind.name, shape=shape, low=low, high=high, state=dict(asked.states).get(name, "")
    )
