"""Data sets: labelled images in a fixed order, by name or by path. Nothing here knows a model."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from harness.datasets.download import Progress
from harness.datasets.ranges import RangeFingerprint, check_range, fingerprint_range
from harness.errors import DataError
from harness.protocols import Dataset

__all__ = ["Progress", "RangeFingerprint", "check_range", "dataset_names", "fingerprint_range", "open_dataset"]

STROKES, TRT_BATCHES = "strokes", "trt-batches"


def dataset_names() -> tuple[str, ...]:
    """Return the names that `open_dataset` knows; beside them it takes paths."""
    from harness.datasets.idx import PUBLISHED

    return (STROKES, *PUBLISHED, TRT_BATCHES)


def open_dataset(
    name_or_path: str, *, split: str, data_dir: str | Path | None = None, progress: Progress | None = None
) -> Dataset:
    """Open a data set by name, or by the path of an IDX images file or a folder of TensorRT batches.

    Named IDX sets are looked for in `data_dir`; without it they are downloaded into the user's cache, and `progress`
    gets (bytes done, bytes in all). A path's data set has split "all" unless its file names tell train from test.
    Raises: DataError when it does not exist or is damaged; the message says what to do.
    """
    # Imported when chosen: an IDX set costs strokes nothing, and the other way round.
    if name_or_path == STROKES:
        from harness.datasets.strokes import Strokes

        return Strokes(split=split)
    from harness.datasets import idx, trt_batches

    if name_or_path in idx.PUBLISHED:
        return idx.open_named(name_or_path, split=split, data_dir=data_dir, progress=progress)
    if name_or_path == TRT_BATCHES:
        if data_dir is None:
            raise DataError(f"{TRT_BATCHES} needs --data-dir, the folder that holds batch0, batch1, ...")
        return trt_batches.TrtBatches(data_dir)
    path = Path(name_or_path)
    if path.is_dir():
        return trt_batches.TrtBatches(path)
    if path.exists():
        return idx.open_pair(path, split=split)
    if os.sep in name_or_path or path.suffix:
        raise DataError(f"{path}: no such file or folder; give an IDX images file or a folder of batch files")
    raise DataError(f"no data set is called {name_or_path!r}; {_nearest(name_or_path)}")


def _nearest(name: str) -> str:
    names = dataset_names()
    near = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}"
