"""Names of classes -> labels, the same for every kind of data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.datasets._paths import natural_key
from harness.errors import DataError

CLASSES_FILE = "classes.txt"
NUMBER = re.compile(r"[0-9]{1,9}\Z")


def read_classes(folder: Path) -> tuple[str, ...]:
    """Return the names in a folder's `classes.txt`, one a line, in order; () without the file. Raises: DataError."""
    path = folder / CLASSES_FILE
    if not path.is_file():
        return ()
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from error
    if len(set(names)) < len(names):
        raise DataError(f"{path}: a class stands in it twice; expected one name a line")
    return names


def class_order(names: Iterable[str], listed: Sequence[str] = ()) -> dict[str, int]:
    """Return the label of every class.

    `listed` gives the order where it is known; names that are all whole numbers are their own labels; others are
    numbered in their natural order.
    """
    if listed:
        return {name: index for index, name in enumerate(listed)}
    known = sorted(set(names), key=natural_key)
    if all(NUMBER.match(name) for name in known):
        return {name: int(name) for name in known}
    return {name: index for index, name in enumerate(known)}


def labels_of(names: Sequence[str], order: dict[str, int], *, source: object) -> NDArray[np.int64]:
    """Return int64[N]: the label of each name. Raises: DataError for one that the order lacks."""
    unknown = next((name for name in names if name not in order), None)
    if unknown is not None:
        raise DataError(f"{source}: class {unknown!r} is not in {CLASSES_FILE}; add it there")
    return np.asarray([order[name] for name in names], np.int64)
