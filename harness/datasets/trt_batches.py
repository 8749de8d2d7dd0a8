"""TensorRT's calibration batches: a folder of `batch0`, `batch1`, ...; read and written.

A file is four int32 (N, C, H, W), then float32[N, C, H, W] images already in the model's scale, then float32[N] labels,
all little-endian. Source: TensorRT, samples/common/BatchStream.h and samples/sampleINT8.
"""

from __future__ import annotations

import os
import re
import struct
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.datasets._kind import DatasetKind, OpenRequest
from harness.datasets._ranges import check_range
from harness.errors import DataError

WHOLE = "all"  # a folder holds one set of images, whatever split is asked
HEADER_BYTES = 16
BATCH_NAME = re.compile(r"batch(0|[1-9][0-9]*)\Z")
MAX_SIDE = 1 << 16  # a larger dimension is no image but a damaged header


@dataclass(frozen=True, slots=True)
class _Batch:
    path: Path
    first: int  # index of its first image in the set
    n_images: int


class TrtBatches:
    """Images float32[N, C, H, W] and labels from a folder of batch files, in the files' order; a `Dataset`."""

    def __init__(self, folder: str | Path) -> None:
        """Read every file's header and labels.

        Raises: DataError for a folder without batches, a gap in their numbers, or a damaged file.
        """
        self.name, self.split = str(folder), WHOLE
        self._batches: list[_Batch] = []
        labels = []
        shapes: set[tuple[int, ...]] = set()
        n_images = 0
        for path in _batch_paths(Path(folder)):
            shape = _read_shape(path)
            shapes.add(shape[1:])
            if len(shapes) > 1:
                raise DataError(f"{path}: images of shape {shape[1:]} among others of {(shapes - {shape[1:]}).pop()}")
            self._batches.append(_Batch(path, n_images, shape[0]))
            labels.append(_read_labels(path, shape))
            n_images += shape[0]
        self.n_images, self.image_shape = n_images, shapes.pop()
        self._labels = np.concatenate(labels)
        self.num_classes = max(2, int(self._labels.max()) + 1)

    def read(self, first: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return images first..stop-1 as float32[N, C, H, W], as stored, and their labels as int64[N].

        Raises: DataError for a range past the end, or a value that is not finite.
        """
        check_range(first, stop, name=self.name, split=self.split, n_images=self.n_images)
        images = np.empty((stop - first, *self.image_shape), np.float32)
        at = first
        while at < stop:
            batch = self._batches[bisect_right(self._batches, at, key=lambda b: b.first) - 1]
            until = min(stop, batch.first + batch.n_images)
            images[at - first : until - first] = self._read_images(batch, at - batch.first, until - batch.first)
            at = until
        return images, self._labels[first:stop].copy()

    def _read_images(self, batch: _Batch, first: int, stop: int) -> NDArray[np.float32]:
        values = int(np.prod(self.image_shape))
        images = np.fromfile(batch.path, "<f4", (stop - first) * values, offset=HEADER_BYTES + 4 * first * values)
        if len(images) < (stop - first) * values:
            raise DataError(f"{batch.path}: was cut short while in use; write the batches again")
        if not np.isfinite(images).all():
            at = first + int(np.flatnonzero(~np.isfinite(images))[0]) // values
            raise DataError(f"{batch.path}: image {at} holds NaN or Inf; write the batches again")
        return images.reshape(stop - first, *self.image_shape)


def write_batches(
    folder: str | Path, images: NDArray[np.float32], labels: NDArray[np.int64], batch_size: int
) -> list[Path]:
    """Write float32[N, C, H, W] images and int64[N] labels as batch0, batch1, ...; return the files.

    Every file holds `batch_size` images; a remainder is refused, as TensorRT's reader takes no smaller last batch.
    Raises: DataError for other shapes, counts that differ, a remainder, or a folder that holds batches already.
    """
    folder = Path(folder)
    if images.ndim != 4 or images.dtype != np.float32 or not images.size:
        raise DataError(f"{folder}: images are {images.dtype}{list(images.shape)}; expected float32[N, C, H, W]")
    if labels.shape != images.shape[:1]:
        raise DataError(f"{folder}: {len(images)} images, labels of shape {labels.shape}; expected one label an image")
    if batch_size < 1 or len(images) % batch_size:
        raise DataError(f"{folder}: {len(images)} images do not fill batches of {batch_size}; choose a divisor")
    folder.mkdir(parents=True, exist_ok=True)
    if any(BATCH_NAME.match(name) for name in os.listdir(folder)):
        raise DataError(f"{folder}: holds batch files already; choose an empty folder")
    paths = []
    for number, first in enumerate(range(0, len(images), batch_size)):
        part = slice(first, first + batch_size)
        path = folder / f"batch{number}"
        header = struct.pack("<4i", batch_size, *images.shape[1:])
        path.write_bytes(header + images[part].astype("<f4").tobytes() + labels[part].astype("<f4").tobytes())
        paths.append(path)
    return paths


def _batch_paths(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected TensorRT batch files batch0, batch1, ... in it")
    numbers = sorted(int(m.group(1)) for m in map(BATCH_NAME.match, os.listdir(folder)) if m)
    if not numbers:
        raise DataError(f"{folder}: no batch files; expected batch0, batch1, ...")
    missing = next((n for n, found in enumerate(numbers) if n != found), None)
    if missing is not None:
        raise DataError(f"{folder}: batch{missing} is missing, batch{numbers[-1]} is there; the set must have no gap")
    return [folder / f"batch{n}" for n in numbers]


def _read_shape(path: Path) -> tuple[int, int, int, int]:
    """Return (N, C, H, W) of a file whose size agrees with it."""
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
            found = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if len(header) < HEADER_BYTES:
        raise DataError(f"{path}: {len(header)} bytes; expected a header of {HEADER_BYTES} (int32 N, C, H, W)")
    n, c, h, w = struct.unpack("<4i", header)
    if min(n, c, h, w) < 1 or max(c, h, w) > MAX_SIDE:
        raise DataError(f"{path}: header says N, C, H, W = {n}, {c}, {h}, {w}; expected positive sizes of images")
    declared = HEADER_BYTES + 4 * n * (c * h * w + 1)
    if declared != found:
        raise DataError(
            f"{path}: header says {n} x {c} x {h} x {w}, {declared} bytes with labels, but it has {found}; "
            "write the batches again"
        )
    return n, c, h, w


def _read_labels(path: Path, shape: tuple[int, int, int, int]) -> NDArray[np.int64]:
    n, c, h, w = shape
    labels = np.fromfile(path, "<f4", n, offset=HEADER_BYTES + 4 * n * c * h * w)
    whole = np.isfinite(labels) & (labels >= 0) & (labels < 2**24) & (labels == np.floor(labels))
    if not whole.all():
        at = int(np.flatnonzero(~whole)[0])
        raise DataError(f"{path}: label {at} is {labels[at]}; expected a whole number from 0 on")
    return labels.astype(np.int64)


def _open(request: OpenRequest) -> TrtBatches:
    if request.data_dir is None:
        raise DataError(f"{request.name} needs --data-dir, the folder that holds batch0, batch1, ...")
    return TrtBatches(request.data_dir)


def _takes(path: Path) -> bool:
    return path.is_dir() and any(BATCH_NAME.match(name) for name in os.listdir(path))


DATASETS = DatasetKind(
    names=("trt-batches",),
    open=_open,
    state=lambda name: "usable: needs --data-dir, the folder that holds batch0, batch1, ...",
    takes_path=_takes,
    open_path=lambda path, split: TrtBatches(path),
    reads="a folder of TensorRT batch files",
)
