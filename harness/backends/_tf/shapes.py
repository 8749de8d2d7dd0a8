"""Operators that move numbers and compute none: flatten, reshape, transpose, pad, squeeze, concatenate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.backends._tf.step import TO_NCHW, TO_NHWC, Array, Step, rank_of, to_nchw, to_nhwc


@dataclass(frozen=True, slots=True)
class HwcRows:
    """Flattened images whose order is not ONNX's."""

    rows: Any
    shape: tuple[int, int, int]

    def weights(self, matrix: Array) -> Array:
        """Return float32[C*H*W, K] in this order."""
        height, width, channels = self.shape
        ordered = matrix.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
        reordered: Array = ordered.reshape(matrix.shape)
        return reordered


def _flatten(step: Step) -> Any:
    if step.attribute("axis", 1) != 1:
        raise step.refuse(f"Flatten at axis {step.attribute('axis', 1)}")
    return _rows(step)


def _rows(step: Step) -> Any:
    """Flatten an image: in H, W, C order where the next product's weights can follow, else in ONNX's."""
    value = step.values[0]
    if rank_of(value) == 4:
        height, width, channels = value.shape[1:]
        if not (height * width > 1 and channels > 1):
            return step.tf.reshape(value, [-1, height * width * channels])
        if step.is_last_of_images:
            return HwcRows(step.tf.reshape(value, [-1, height * width * channels]), (height, width, channels))
        value = to_nchw(step.tf, value)
    return step.tf.reshape(value, [-1, math.prod(value.shape[1:])])


def _reshape(step: Step) -> Any:
    asked = step.constant(1, "shape")
    if asked is None or (step.attribute("allowzero", 0) and 0 in asked):
        raise step.refuse("Reshape to what is not told, or with sizes of 0")
    sizes, value = [int(size) for size in asked], step.values[0]
    if len(sizes) == 2 and sizes[0] in (-1, 0) and sizes[1] in (-1, math.prod(value.shape[1:])):
        return _rows(step)
    value = to_nchw(step.tf, value)
    is_first_free = sizes[0] == 0 and -1 not in sizes
    whole = [
        (-1 if place == 0 and is_first_free else step.tf.shape(value)[place] if place == 0 else value.shape[place])
        if size == 0
        else size
        for place, size in enumerate(sizes)
    ]
    made = step.tf.reshape(value, whole)
    return to_nhwc(step.tf, made)


def _transpose(step: Step) -> Any:
    value = step.values[0]
    order = list(step.attribute("perm", range(rank_of(value))[::-1]))
    if order[0] != 0:
        raise step.refuse(f"Transpose that moves the batch ({order})")
    if rank_of(value) == 4:  # there and back in one step
        order = [TO_NCHW[order[axis]] for axis in TO_NHWC]
    return value if order == sorted(order) else step.tf.transpose(value, order)


def _pad(step: Step) -> Any:
    value, mode = step.values[0], step.attribute("mode", b"constant")
    pads, fill = step.constant(1, "pads"), step.constant(2, "value")
    rank = rank_of(value)
    if mode != b"constant" or pads is None or len(pads) != 2 * rank or len(step.values) > 3:
        raise step.refuse(f"Pad in mode {mode.decode()} other than around the whole tensor")
    both = [[int(pads[axis]), int(pads[axis + rank])] for axis in range(rank)]
    ordered = [both[axis] for axis in TO_NHWC] if rank == 4 else both
    return step.tf.pad(value, ordered, constant_values=0.0 if fill is None else float(np.ravel(fill)[0]))


def _axes(step: Step) -> list[int]:
    axes = step.constant(1, "axes")
    if axes is None:
        raise step.refuse(f"{step.node.op_type} of all axes of size 1, the batch perhaps included")
    return [int(axis) for axis in np.ravel(axes)]


def _squeeze(step: Step) -> Any:
    return to_nhwc(step.tf, step.tf.squeeze(to_nchw(step.tf, step.values[0]), _axes(step)))


def _unsqueeze(step: Step) -> Any:
    axes, value = _axes(step), to_nchw(step.tf, step.values[0])
    for axis in sorted(axis % (rank_of(value) + len(axes)) for axis in axes):
        value = step.tf.expand_dims(value, axis)
    return to_nhwc(step.tf, value)


def _concat(step: Step) -> Any:
    ranks: Sequence[int] = [rank_of(value) for value in step.values]
    axis = step.attributes["axis"] % ranks[0]
    if any(isinstance(value, np.ndarray) for value in step.values):
        raise step.refuse("Concat with a constant")
    return step.tf.concat(step.values, TO_NHWC.index(axis) if ranks[0] == 4 else axis)


SHAPE_OPERATORS: dict[str, Callable[[Step], Any]] = {
    "Concat": _concat,
    "Flatten": _flatten,
    "Pad": _pad,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
