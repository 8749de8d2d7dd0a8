"""What a model of any graph is likely for, by its shapes alone: hints for a person who completes a card. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from harness.specs import ModelInput, ModelOutput, ModelTensors

PICTURE_AXES = 4  # batch, and three of a picture
CHANNELS = (1, 3, 4)
SMALLEST_SIDE = 8  # of a picture
ROWS = (6, 7)  # numbers a box: corners, score, class; or image, class, score, corners
PLANES, TABLE = 3, 2  # axes of an output without the batch: a score a pixel and class; boxes, or steps and classes
FEWEST_SCORED = 4  # numbers of a box without a class
MANY_BOXES, MANY_TOKENS = 100, 30
WIDE = 2  # times its height: a line of text


class Guess(NamedTuple):
    """A task that an output may be of."""

    task: str
    why: str
    settings: tuple[str, ...] = ()  # lines of [task] that it would need


def picture_input(tensors: ModelTensors) -> ModelInput | None:
    """Return the only input that pictures may go into: N x C x H x W, or N x H x W x C; None where there is none."""
    found = [one for one in tensors.inputs if _is_picture(one)]
    return found[0] if len(found) == 1 else None


def guessed_task(tensors: ModelTensors) -> Guess | None:
    """Return what the first output's shape looks like; None where it looks like nothing in particular."""
    first = tensors.outputs[0]
    if not first.axes or np.dtype(first.dtype or "float32").kind != "f":
        return None
    sizes = tuple(size for axis, size in enumerate(first.axes) if axis != (first.batch_axis or 0))
    task, settings = _of_sizes(sizes, picture_input(tensors))
    if not task:
        return None
    named = (f'output = "{first.name}"',) if len(tensors.outputs) > 1 else ()
    shape = " x ".join("?" if size is None else str(size) for size in first.axes)
    return Guess(task, f"output {first.name} is {shape}", (*named, *settings))


def likely_states(tensors: ModelTensors) -> tuple[tuple[str, str], ...]:
    """Return (input, output) of one type and shape, behind the first input: a state, if it is fed back."""
    return tuple(
        (one.name, output.name)
        for one in tensors.inputs[1:]
        if not one.state and len(one.shape) > 1 and np.dtype(one.dtype).kind == "f"
        for output in tensors.outputs
        if output.dtype == one.dtype and _may_feed(output, one)
    )


def untold_numbers(tensors: ModelTensors) -> tuple[str, ...]:
    """Return the inputs of whole numbers of which the file does not tell what they may be."""
    return tuple(
        one.name
        for one in tensors.inputs
        if np.dtype(one.dtype).kind in "iu" and (one.low, one.high) == (0, 1) and not one.state
    )


def _is_picture(one: ModelInput) -> bool:
    if len(one.shape) != PICTURE_AXES or one.dtype not in ("float32", "float16", "uint8"):
        return False
    return min(_sides(one)) >= SMALLEST_SIDE


def _sides(one: ModelInput) -> tuple[int, int]:
    """Return height and width of what lies as pictures do; (0, 0) where no axis holds channels."""
    _, first, second, third = one.shape
    return (second, third) if first in CHANNELS else (first, second) if third in CHANNELS else (0, 0)


def _of_sizes(sizes: tuple[int | None, ...], picture: ModelInput | None) -> tuple[str, tuple[str, ...]]:
    """Return task and settings by an output's sizes without the batch; ("", ()) for nothing in particular."""
    if len(sizes) == 1:
        return "regression" if sizes == (1,) else "classification", ()
    if len(sizes) == PLANES and picture is not None:
        return "segmentation", ('layout = "CHW"',)
    if len(sizes) != TABLE or picture is None:
        return "", ()
    height, width = _sides(picture)
    return _of_table(*sizes, is_line=width > WIDE * height)


def _of_table(rows: int | None, columns: int | None, *, is_line: bool) -> tuple[str, tuple[str, ...]]:
    if columns in ROWS:
        return "detection", ('format = "rows"  # or "yolo" with objectness = true',)
    if (
        not is_line
        and rows is not None
        and rows > FEWEST_SCORED
        and (columns is None or columns >= max(MANY_BOXES, rows))
    ):
        return "detection", ('format = "yolo"',)
    if columns is not None and columns >= MANY_TOKENS:
        return "tokens", ('decode = "ctc"', 'charset_file = "keys.txt"  # a character a line')
    return "", ()


def _may_feed(output: ModelOutput, one: ModelInput) -> bool:
    return len(output.axes) == len(one.shape) and all(
        made is None or made == size for made, size in zip(output.axes, one.shape, strict=True)
    )
