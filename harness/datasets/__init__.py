"""Data sets: labelled images in a fixed order, by name or by path; one file a kind. Nothing here knows a model."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from harness.datasets._kind import DatasetKind, OpenRequest
from harness.datasets._ranges import RangeFingerprint, check_range, fingerprint_range
from harness.errors import DataError
from harness.options.discovery import Room
from harness.protocols import Dataset, Progress

__all__ = [
    "DatasetKind",
    "OpenRequest",
    "RangeFingerprint",
    "check_range",
    "dataset_names",
    "dataset_state",
    "fingerprint_range",
    "open_dataset",
]

ROOM = Room("datasets", noun="kind of data set", package=__name__, path=__path__, offers="DATASETS")


def dataset_names() -> tuple[str, ...]:
    """Return the names that `open_dataset` knows; beside them it takes paths."""
    return tuple(_kinds_by_name())


def dataset_state(name: str) -> str:
    """Say whether a named data set can be opened without the network, and what it needs otherwise."""
    return _kinds_by_name()[name].state(name)


def open_dataset(
    name_or_path: str, *, split: str, data_dir: str | Path | None = None, progress: Progress | None = None
) -> Dataset:
    """Open a data set by name, or by the path of an IDX images file or a folder of TensorRT batches.

    Named IDX sets are looked for in `data_dir`; without it they are downloaded into the user's cache, and `progress`
    gets (bytes done, bytes in all). A path's data set has split "all" unless its file names tell train from test.
    Raises: DataError when it does not exist or is damaged; the message says what to do.
    """
    kind = _kinds_by_name().get(name_or_path)
    if kind is not None and kind.open is not None:
        folder = None if data_dir is None else Path(data_dir)
        return kind.open(OpenRequest(name=name_or_path, split=split, data_dir=folder, progress=progress))
    path = Path(name_or_path)
    if path.exists():
        offered: DatasetKind
        for offered in sorted(ROOM.load_all().values(), key=lambda kind: kind.is_last):
            if offered.open_path is not None and offered.takes_path(path):
                return offered.open_path(path, split)
        raise DataError(f"{path}: no kind of data set reads it; there are: {', '.join(ROOM.names())}")
    if os.sep in name_or_path or path.suffix:
        raise DataError(f"{path}: no such file or folder; give an IDX images file or a folder of batch files")
    raise DataError(f"no data set is called {name_or_path!r}; {_nearest(name_or_path)}")


def _kinds_by_name() -> dict[str, DatasetKind]:
    return {name: kind for kind in ROOM.load_all().values() for name in kind.names}


def _nearest(name: str) -> str:
    names = dataset_names()
    near = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}"
