"""A folder of NPZ or NPY files, in natural order of their names.

A file is one sample, without a batch axis, unless its name is `batch` and a number: then its first axis is samples.
NPZ files hold inputs by name. NPY files lie in a folder for each input (and for `labels`), equal names belonging
together; or flat, where they are a model's only input.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.datasets._arrays import Array, arrays_of, read_npy
from harness.datasets._kind import DatasetKind, OpenRequest
from harness.datasets._paths import natural_key, split_folder
from harness.datasets._ranges import check_range
from harness.datasets._tensors import IDS, IMAGES, TARGETS, check_lengths, ids_of, sample_of
from harness.errors import DataError
from harness.protocols import ONLY, Sample

BATCH = re.compile(r"batch[-_]?[0-9]+\Z", re.IGNORECASE)
NPZ, NPY = ".npz", ".npy"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One or several samples: the files that hold them, by input; an NPZ file holds all of them."""

    name: str
    files: dict[str, Path]
    first: int
    n_samples: int
    is_batch: bool


class ArrayFolder:
    """Samples in files of their own, or batches of them; a `SampleSet`."""

    def __init__(self, folder: Path, split: str) -> None:
        """List the files; batches are opened to count them. Raises: DataError."""
        own, self.split = split_folder(folder, split)
        self.name = str(folder)
        self._entries: list[_Entry] = []
        first = 0
        for name, files in _grouped(own).items():
            is_batch = bool(BATCH.match(name))
            n_samples = check_lengths(_arrays(files), files.get(NPZ, own / name)) if is_batch else 1
            self._entries.append(_Entry(name, files, first, n_samples, is_batch))
            first += n_samples
        self.n_samples = first

    def sample(self, index: int) -> Sample:
        """Return one sample. Raises: DataError for an index past the end, or a damaged file, by its name."""
        check_range(index, index + 1, name=self.name, split=self.split, n_images=self.n_samples)
        entry = self._entries[bisect_right(self._entries, index, key=lambda one: one.first) - 1]
        arrays = _arrays(entry.files)
        where: object = entry.files.get(NPZ, Path(self.name) / entry.name)
        place = index - entry.first
        if entry.is_batch:
            check_lengths(arrays, where)
            sample_id = f"{entry.name}[{place}]" if IDS not in arrays else ids_of(arrays, entry.n_samples)[place]
            arrays = {key: np.asarray(array[place]) for key, array in arrays.items()}
        else:
            sample_id = entry.name
        return sample_of(arrays, sample_id, image_name=_image_name(arrays), name=where)


def _image_name(arrays: dict[str, Array]) -> str | None:
    for name in IMAGES:
        if name in arrays and arrays[name].dtype == np.uint8 and arrays[name].ndim in (2, 3):
            return name
    return None


def _arrays(files: dict[str, Path]) -> dict[str, Array]:
    if NPZ in files:
        return arrays_of(files[NPZ])
    return {name: read_npy(path) for name, path in files.items()}


def _grouped(folder: Path) -> dict[str, dict[str, Path]]:
    """Return sample or batch -> its files by input, in natural order. Raises: DataError for inputs that lack files."""
    npz = _files(folder, NPZ)
    if npz:
        return {path.stem: {NPZ: path} for path in npz}
    flat = _files(folder, NPY)
    if flat:
        return {path.stem: {ONLY: path} for path in flat}
    by_input = {path.name: _files(path, NPY) for path in sorted(folder.iterdir()) if path.is_dir()}
    by_input = {name: files for name, files in by_input.items() if files}
    if not set(by_input) - set(TARGETS):
        raise DataError(f"{folder}: holds no NPZ or NPY files of inputs")
    names = {name: {path.stem: path for path in files} for name, files in by_input.items()}
    most = max(names.values(), key=len)
    for name, found in names.items():
        missing = next((stem for stem in most if stem not in found), None)
        if missing is not None:
            raise DataError(f"{folder / name}: {missing}{NPY} is missing, which other inputs have")
    return {stem: {name: found[stem] for name, found in names.items()} for stem in sorted(most, key=natural_key)}


def _files(folder: Path, suffix: str) -> list[Path]:
    found = [path for path in folder.iterdir() if path.suffix.lower() == suffix and path.is_file()]
    return sorted(found, key=lambda path: natural_key(path.name))


def _takes(path: Path) -> bool:
    if not path.is_dir():
        return False
    inner = [place for place in path.iterdir() if place.is_dir()]
    places = [path, *inner, *(deeper for place in inner for deeper in place.iterdir() if deeper.is_dir())]
    return any(_files(place, NPZ) or _files(place, NPY) for place in places)


def _open(request: OpenRequest) -> ArrayFolder:
    return ArrayFolder(request.path, request.split)


DATASETS = DatasetKind(
    takes_path=_takes,
    open_samples=_open,
    reads="a folder of NPZ or NPY files",
)
