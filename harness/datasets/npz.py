"""NPZ and NPY files: arrays by the names of a model's inputs, samples along the first axis.

`labels` (or `targets`, `y`) are the targets, `sample_ids` names the samples; uint8 arrays called `images` or `x` hold
images.
`x_train`, `y_test` and the like belong to one split.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.datasets._arrays import arrays_of
from harness.datasets._kind import DatasetKind, OpenRequest
from harness.datasets._paths import WHOLE
from harness.datasets._ranges import check_range
from harness.datasets._tensors import (
    N_AXES_OF_IMAGES,
    check_lengths,
    has_channels_last,
    ids_of,
    images_name,
    labels_of_targets,
    of_split,
    sample_of,
)
from harness.errors import DataError
from harness.protocols import Dataset, Sample

SUFFIXES = (".npz", ".npy")
SCALED_NAMES = ("images", "image", "x")


class ArraySamples:
    """Samples along the first axis of arrays in one file; a `SampleSet`, with `labels` where targets are classes."""

    def __init__(self, path: Path, split: str) -> None:
        """Read the file. Raises: DataError for a damaged one, or arrays of unlike lengths."""
        arrays, is_marked = of_split(arrays_of(path), split)
        self.name, self.split = str(path), split if is_marked else WHOLE
        self.arrays = arrays
        self.n_samples = check_lengths(arrays, path)
        self._images, self._ids = images_name(arrays), ids_of(arrays, self.n_samples)
        labels = labels_of_targets(arrays)
        if labels is not None:
            self.labels = labels

    def sample(self, index: int) -> Sample:
        """Return one sample. Raises: DataError for an index past the end, or inputs that are no finite numbers."""
        check_range(index, index + 1, name=self.name, split=self.split, n_images=self.n_samples)
        own = {key: np.asarray(array[index]) for key, array in self.arrays.items()}
        return sample_of(own, self._ids[index], image_name=self._images, name=f"{self.name}: sample {index}")


class ArrayImages:
    """Labelled images of one size in one array; a `Dataset` that reads ranges at once."""

    def __init__(self, samples: ArraySamples) -> None:
        """Find images and labels. Raises: DataError for a file without either."""
        self._path, self.name, self.split = samples.name, samples.name, samples.split
        arrays = samples.arrays
        key = images_name(arrays) or next((name for name in SCALED_NAMES if _is_scaled(arrays.get(name))), None)
        if key is None:
            raise DataError(
                f"{self.name}: has {', '.join(arrays)}; a classifier is scored on `images` or `x`: uint8[N, H, W], "
                "uint8[N, C, H, W], uint8[N, H, W, C] or float32[N, C, H, W]"
            )
        labels = labels_of_targets(arrays)
        if labels is None:
            raise DataError(f"{self.name}: has no `labels` or `y` of whole numbers, one an image")
        if not len(labels) or int(labels.min()) < 0:
            raise DataError(f"{self.name}: expected images, each with a label of 0 or more")
        images = arrays[key]
        if images.dtype == np.uint8 and images.ndim == 4 and has_channels_last(images.shape[1:], self.name):
            images = images.transpose(0, 3, 1, 2)
        self._images, self._labels = images, labels
        self.n_images, self.image_shape = len(images), images.shape[1:]
        self.num_classes = max(2, int(labels.max()) + 1)

    def read(self, first: int, stop: int) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        """Return images first..stop-1 as stored, channels first, and their labels: int64[N].

        Raises: DataError for a range past the end, or a value that is not finite.
        """
        check_range(first, stop, name=self.name, split=self.split, n_images=self.n_images)
        images = np.ascontiguousarray(self._images[first:stop])
        if images.dtype != np.uint8:
            finite = np.isfinite(images.reshape(len(images), -1)).all(axis=1)
            if not finite.all():
                raise DataError(f"{self.name}: image {first + int(np.argmin(finite))} holds NaN or Inf")
        return images, self._labels[first:stop].copy()


def _is_scaled(array: NDArray[np.generic] | None) -> bool:
    return array is not None and array.dtype == np.float32 and array.ndim == N_AXES_OF_IMAGES[-1]


def _open_images(path: Path, split: str) -> Dataset:
    return ArrayImages(ArraySamples(path, split))


def _open(request: OpenRequest) -> ArraySamples:
    return ArraySamples(request.path, request.split)


DATASETS = DatasetKind(
    takes_path=lambda path: path.is_file() and path.suffix.lower() in SUFFIXES,
    open_path=_open_images,
    open_samples=_open,
    reads="NPZ and NPY files",
)
