"""Paths that stand in data files: they stay in their folder. And the natural order of names."""

from __future__ import annotations

import os
import re
from pathlib import Path

from harness.errors import DataError

DIGITS = re.compile(r"([0-9]+)")
WHOLE = "all"  # the split of data that have none
LISTS = ("labels.csv", "labels.json")  # in a folder whose images they name
SPLIT_NAMES = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}
NAMELESS = {*SPLIT_NAMES["train"], *SPLIT_NAMES["test"], WHOLE, *LISTS, "images", "data", "annotations"}


def lasting_name(name: str) -> str:
    """Return what a data set is called in records and baselines: of a path its end, the same on every machine.

    Ends that say nothing, such as `val` or `labels.csv`, come with the folder above. What a set holds is told by its
    fingerprint.
    """
    if "/" not in name and os.sep not in name:
        return name
    parts = Path(os.path.abspath(name)).parts[1:]
    first = len(parts) - 1
    while first > 0 and parts[first] in NAMELESS:
        first -= 1
    return "/".join(parts[first:])


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that puts `image2` before `image10`; equal numbers go by their spelling."""
    parts = DIGITS.split(name)
    numbered = ((0, int(part), part) if index % 2 else (1, 0, part) for index, part in enumerate(parts))
    return tuple(numbered)


def path_below(folder: Path, name: str, *, source: object) -> Path:
    """Return the path of a file that a data file names, relative to a folder.

    Raises: DataError for an absolute name, one with `..`, or one that a link leads out of the folder.
    """
    inner = Path(name)
    if not name or inner.is_absolute() or ".." in inner.parts or "\0" in name:
        raise DataError(f"{source}: names {name!r}; expected a file below {folder}")
    path = folder / inner
    try:
        stays = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # a circle of links
        raise DataError(f"{source}: {name!r} cannot be followed ({error})") from error
    if not stays:
        raise DataError(f"{source}: {name!r} is a link that leads out of {folder}; copy the file there")
    return path


def split_folder(folder: Path, split: str) -> tuple[Path, str]:
    """Return the folder of a split and its name: `train/`, or `test/` or `val/`; the folder itself where it has none.

    Raises: DataError where it has folders of other splits only.
    """
    found = {
        own: next((folder / name for name in names if (folder / name).is_dir()), None)
        for own, names in SPLIT_NAMES.items()
    }
    if not any(found.values()):
        return folder, WHOLE
    chosen = found.get(split)
    if chosen is None:
        has = ", ".join(own for own, path in found.items() if path is not None)
        raise DataError(f"{folder}: has no split {split!r}, only {has}; choose with --split and --calibration-split")
    return chosen, split
