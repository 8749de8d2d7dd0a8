"""What is said of a graph's inputs, as it is typed or stands in a card: shapes, ranges of values, states."""

from __future__ import annotations


def shape_of_text(text: str) -> tuple[str, tuple[int, ...]]:
    """Return (input, shape) of `NAME:1x3x224x224`, as trtexec's --shapes has it. Raises: ValueError."""
    name, _, sizes = text.rpartition(":")
    shape = tuple(map(int, sizes.split("x")))
    if not name or min(shape) < 1:
        raise ValueError(text)
    return name, shape


def range_of_text(text: str) -> tuple[str, tuple[float, float]]:
    """Return (input, (low, high)) of `NAME:LOW..HIGH`. Raises: ValueError."""
    name, _, ends = text.rpartition(":")
    low, separator, high = ends.partition("..")
    if not (name and separator):
        raise ValueError(text)
    return name, (float(low), float(high))


def state_of_text(text: str) -> tuple[str, str]:
    """Return (input, output) of `INPUT=OUTPUT`. Raises: ValueError."""
    name, _, output = text.partition("=")
    if not (name and output):
        raise ValueError(text)
    return name, output
