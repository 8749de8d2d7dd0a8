"""Labels in a CSV or JSON file: of the images that it names, or, as digits are often handed round, with their pixels.

A CSV has a header. One column names the file (`file`, `filename`, `file_name`, `image`, `path`), one its class
(`label`, `class`, `target`, `category`, `text`); or one is `label` and the others are `pixel0`, `pixel1`, ... of square
grey images. JSON is a list of objects with the same keys, or one object of file name to class. A folder with
`labels.csv` or `labels.json` stands for that file.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.datasets._classes import NUMBER, class_order, labels_of, read_classes
from harness.datasets._decode import read_file
from harness.datasets._kind import DatasetKind, OpenRequest
from harness.datasets._paths import LISTS, WHOLE, path_below, split_folder
from harness.datasets._pictures import StoredPicture
from harness.datasets._ranges import check_range
from harness.errors import DataError, first_line
from harness.protocols import IMAGE, Sample, SampleSet

FILE_COLUMNS = ("file", "filename", "file_name", "image", "path")
TEXT_COLUMN = "text"
LABEL_COLUMNS = ("label", "class", "target", "category", TEXT_COLUMN)
PIXEL = re.compile(r"pixel[0-9]+\Z")
FLOAT = re.compile(r"[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?\Z")
MAX_LIST_BYTES = 1 << 30
PIXELS_NEED = 4  # columns of pixels from which on a CSV is taken for one of images

Target = int | float | str


class _Row(NamedTuple):
    file: str
    target: str
    is_text: bool  # "007" is no number there


class ImageList:
    """Image files named in a list, in its order; a `SampleSet`, with `labels` where targets are classes."""

    def __init__(self, path: Path) -> None:
        """Read the list; images are read when asked.

        Raises: DataError for a damaged list, or a file out of its folder.
        """
        rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
        if not rows:
            raise DataError(f"{path}: names no images")
        self.name, self.split, self._folder = str(path), WHOLE, path.parent
        self._files = [path_below(path.parent, row.file, source=path) for row in rows]
        self._names = [row.target for row in rows]
        self._is_text = rows[0].is_text
        self.n_samples = len(rows)
        listed = read_classes(path.parent)
        if all(map(FLOAT.match, self._names)) and not all(map(NUMBER.match, self._names)):
            return  # numbers to be predicted, not classes
        order = class_order(self._names, listed)
        self.labels = labels_of(self._names, order, source=path)
        self.class_names = tuple(sorted(order, key=order.__getitem__))

    def stored(self, index: int) -> StoredPicture:
        """Return one image's file with its target; see `StoresPictures`."""
        check_range(index, index + 1, name=self.name, split=self.split, n_images=self.n_samples)
        file = self._files[index]
        return StoredPicture(
            id=file.relative_to(self._folder).as_posix(),
            data=read_file(file),
            name=file,
            target=self._names[index] if self._is_text else _target(self._names[index]),
        )

    def sample(self, index: int) -> Sample:
        """Return one image; its target is a number where the list has one, else text. Raises: DataError."""
        return self.stored(index).sample()


class PixelRows:
    """Square grey images whose pixels stand in a CSV file; a `SampleSet` with `labels`, and a `Dataset`."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises: DataError for pixels that are no whole numbers 0..255, or make no square."""
        import pandas

        try:
            table = pandas.read_csv(path)
        except (OSError, ValueError) as error:  # pandas' errors are ValueErrors
            raise DataError(f"{path}: {first_line(error)}") from error
        header = [str(name) for name in table.columns]
        pixels = [name for name in header if PIXEL.match(name)]
        others = [name for name in header if name not in pixels]
        side = math.isqrt(len(pixels))
        if len(others) != 1 or others[0] not in LABEL_COLUMNS or side * side != len(pixels):
            raise DataError(
                f"{path}: {len(pixels)} columns of pixels and {', '.join(others) or 'no label'}; expected label, "
                "pixel0, pixel1, ... of square images"
            )
        values, labels = table[pixels].to_numpy(), table[others[0]].to_numpy()
        if values.dtype.kind not in "iu" or (values.size and (values.min() < 0 or values.max() > 255)):
            raise DataError(f"{path}: expected pixels of whole numbers 0..255")
        if labels.dtype.kind not in "iu" or not len(labels) or labels.min() < 0:
            raise DataError(f"{path}: expected a label of 0 or more in each row")
        self.name, self.split = str(path), WHOLE
        self._pixels: NDArray[np.uint8] = values.astype(np.uint8).reshape(-1, side, side)
        self.labels: NDArray[np.int64] = labels.astype(np.int64)
        self.n_images = self.n_samples = len(labels)
        self.image_shape, self.num_classes = (side, side), max(2, int(self.labels.max()) + 1)

    def read(self, first: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return images first..stop-1 as uint8[N, H, W], and labels as int64[N]. Raises: DataError past the end."""
        check_range(first, stop, name=self.name, split=self.split, n_images=self.n_images)
        return self._pixels[first:stop].copy(), self.labels[first:stop].copy()

    def sample(self, index: int) -> Sample:
        """Return one image and its label. Raises: DataError past the end."""
        pixels, labels = self.read(index, index + 1)
        return Sample(id=str(index), inputs={IMAGE: pixels[0][:, :, None]}, target=int(labels[0]))


def read_text(path: Path) -> str:
    """Return a file's text. Raises: DataError for one that is too large, or no UTF-8."""
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise DataError(f"{path}: {path.stat().st_size} bytes; at most {MAX_LIST_BYTES} are read")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error})") from error


def _target(name: str) -> Target:
    if NUMBER.match(name):
        return int(name)
    return float(name) if FLOAT.match(name) else name


def _columns(header: Sequence[str], path: Path) -> tuple[str, str]:
    """Return the columns of the file and of its class. Raises: DataError."""
    file = next((name for name in FILE_COLUMNS if name in header), None)
    label = next((name for name in LABEL_COLUMNS if name in header), None)
    if file is None or label is None:
        raise DataError(
            f"{path}: has {', '.join(header) or 'no columns'}; expected one of {', '.join(FILE_COLUMNS)} and one of "
            f"{', '.join(LABEL_COLUMNS)}"
        )
    return file, label


def _csv_rows(path: Path) -> list[_Row]:
    try:
        lines = list(csv.reader(read_text(path).splitlines(), strict=True))
    except csv.Error as error:
        raise DataError(f"{path}: no CSV ({error})") from error
    if not lines:
        raise DataError(f"{path}: is empty; expected a header and a row for each image")
    header = [name.strip() for name in lines[0]]
    names = _columns(header, path)
    file, label = map(header.index, names)
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        if len(line) != len(header):
            raise DataError(f"{path}: line {number} has {len(line)} values, the header {len(header)}")
        rows.append(_Row(line[file].strip(), line[label].strip(), names[1] == TEXT_COLUMN))
    return rows


def _json_rows(path: Path) -> list[_Row]:
    try:
        data = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no JSON ({error})") from error
    if isinstance(data, dict):
        data = [{"file": file, "label": label} for file, label in data.items()]
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise DataError(f"{path}: expected a list of objects, or one object of file name to class")
    rows = []
    for number, entry in enumerate(data):
        file, label = _columns(list(entry), path)
        is_plain = isinstance(entry[file], str) and isinstance(entry[label], int | float | str)
        if not is_plain:
            raise DataError(f"{path}: entry {number}: expected a file name and one class")
        rows.append(_Row(entry[file], str(entry[label]), label == TEXT_COLUMN))
    return rows


def _has_pixels(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            header = file.readline(1 << 20)
    except OSError:
        return False
    names = [name.strip().strip('"') for name in header.split(",")]
    return sum(bool(PIXEL.match(name)) for name in names) >= PIXELS_NEED


def _takes(path: Path) -> bool:
    if path.is_dir():
        places = (path, *(place for place in path.iterdir() if place.is_dir()))
        return any((place / name).is_file() for place in places for name in LISTS)
    return path.is_file() and path.suffix.lower() in (".csv", ".json")


def _open(request: OpenRequest) -> SampleSet:
    path = request.path
    split = WHOLE
    if path.is_dir():
        if not any((path / name).is_file() for name in LISTS):
            path, split = split_folder(path, request.split)
        path = next((path / name for name in LISTS if (path / name).is_file()), path / LISTS[0])
    found = PixelRows(path) if path.suffix.lower() == ".csv" and _has_pixels(path) else ImageList(path)
    found.split = split
    return found


DATASETS = DatasetKind(
    takes_path=_takes,
    open_samples=_open,
    reads="CSV and JSON files of labels",
)
