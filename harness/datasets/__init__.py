"""Data sets in a fixed order, by name or by path; one file a kind. Nothing here knows a model.

Two doors: `open_dataset` for labelled images of one size, which a classifier is scored on, and `open_samples` for any
inputs. What is opened through one can be opened through the other where it has images and one class each.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from harness.datasets._kind import DatasetKind, OpenRequest
from harness.datasets._paths import lasting_name
from harness.datasets._pictures import StoredPicture, StoresPictures
from harness.datasets._ranges import RangeFingerprint, check_range, fingerprint_range
from harness.datasets._samples import DatasetSamples, FittedImages, HasLabels, LabelledImages
from harness.errors import DataError
from harness.options.discovery import Room
from harness.protocols import Dataset, FitsImages, Progress, SampleSet
from harness.store.pictures import PictureStore

__all__ = [
    "DatasetKind",
    "HasLabels",
    "OpenRequest",
    "RangeFingerprint",
    "StoredPicture",
    "StoresPictures",
    "check_range",
    "dataset_names",
    "dataset_state",
    "fingerprint_range",
    "lasting_name",
    "open_dataset",
    "open_samples",
    "path_kinds",
]

ROOM = Room("datasets", noun="kind of data set", package=__name__, path=__path__, offers="DATASETS")


def dataset_names() -> tuple[str, ...]:
    """Return the names that `open_dataset` knows; beside them it takes paths."""
    return tuple(_kinds_by_name())


def dataset_state(name: str) -> str:
    """Say whether a named data set can be opened without the network, and what it needs otherwise."""
    return _kinds_by_name()[name].state(name)


def path_kinds() -> dict[str, str]:
    """Return what can be read by path, in words, with whether it can be read here."""
    return {kind.reads: kind.readiness for kind in ROOM.load_all().values() if kind.reads}


def open_dataset(
    name_or_path: str,
    *,
    split: str,
    data_dir: str | Path | None = None,
    progress: Progress | None = None,
    fit: FitsImages | None = None,
    pictures: PictureStore | None = None,
) -> Dataset:
    """Open labelled images of one size, by name or path.

    Named IDX sets are looked for in `data_dir`; without it they are downloaded into the user's cache, and `progress`
    gets (bytes done, bytes in all). Data without splits have split "all". `fit` makes images of the model's size and
    colours of those in files; without it they must have one size. What it made of picture files is kept in `pictures`.
    Raises: DataError when it does not exist, is damaged, or has no class for each image; the message says what to do.
    """
    kind, request = _kind_of(name_or_path, split, data_dir, progress)
    if name_or_path in kind.names and kind.open is not None:
        dataset = kind.open(request)
    elif kind.open_path is not None and name_or_path not in kind.names:
        dataset = kind.open_path(request.path, split)
    elif kind.open_samples is not None:
        samples = kind.open_samples(request)
        if not isinstance(samples, Dataset):
            return LabelledImages(samples, fit, pictures)
        dataset = samples
    else:
        raise DataError(f"{name_or_path}: its kind of data set opens nothing")
    return dataset if fit is None or fit.is_plain else FittedImages(dataset, fit)


def open_samples(
    name_or_path: str, *, split: str, data_dir: str | Path | None = None, progress: Progress | None = None
) -> SampleSet:
    """Open samples of any inputs, by name or path; labelled images come as one image and its class.

    Raises: DataError when it does not exist or is damaged; the message says what to do.
    """
    kind, request = _kind_of(name_or_path, split, data_dir, progress)
    if kind.open_samples is not None:
        samples = kind.open_samples(request)
        return samples if isinstance(samples, SampleSet) else DatasetSamples(samples)
    return DatasetSamples(open_dataset(name_or_path, split=split, data_dir=data_dir, progress=progress))


def _kind_of(
    name_or_path: str, split: str, data_dir: str | Path | None, progress: Progress | None
) -> tuple[DatasetKind, OpenRequest]:
    """Return the kind that opens a name or path, and what it is asked. Raises: DataError."""
    folder = None if data_dir is None else Path(data_dir)
    request = OpenRequest(name=name_or_path, split=split, data_dir=folder, progress=progress)
    kind = _kinds_by_name().get(name_or_path) or _kind_of_path(request.path)
    kind.check_installed(name_or_path)
    return kind, request


def _kind_of_path(path: Path) -> DatasetKind:
    """Return the kind that takes a path: a user's own before the harness's. Raises: DataError."""
    kinds: dict[str, DatasetKind] = ROOM.load_all()
    for name in sorted(kinds, key=lambda name: (kinds[name].is_last, ROOM.is_own(name))):
        if kinds[name].takes_path(path):
            return kinds[name]
    if path.exists():
        raise DataError(f"{path}: not read; what is: {', '.join(path_kinds())}")
    if os.sep in str(path) or path.suffix:
        raise DataError(f"{path}: no such file or folder; what is read: {', '.join(path_kinds())}")
    raise DataError(f"no data set is called {str(path)!r}; {_nearest(str(path))}")


def _kinds_by_name() -> dict[str, DatasetKind]:
    return {name: kind for kind in ROOM.load_all().values() for name in kind.names}


def _nearest(name: str) -> str:
    names = dataset_names()
    near = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}, or give a path"
