"""The two doors joined: labelled samples as images of one size for a classifier, and a data set's images as samples."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from harness.datasets._pictures import StoresPictures
from harness.datasets._ranges import check_range
from harness.errors import DataError
from harness.protocols import IMAGE, Dataset, FitsImages, Sample, SampleSet
from harness.store.pictures import PictureStore

Planes = NDArray[np.uint8]


@runtime_checkable
class HasLabels(Protocol):
    """What a set of samples may offer beside `SampleSet`: one class a sample, known before any image is read."""

    labels: NDArray[np.int64]  # int64[N]


class LabelledImages:
    """Labelled samples as a `Dataset`: every image is fitted to the model when it is read."""

    def __init__(self, samples: SampleSet, fit: FitsImages | None, pictures: PictureStore | None = None) -> None:
        """`fit`: makes images of one size; None: they must have one already. `pictures`: keeps what it made.

        Raises: DataError for samples without labels or images.
        """
        self._samples, self._fit, self._pictures = samples, fit, pictures
        self.name, self.split, self.n_images = samples.name, samples.split, samples.n_samples
        if not self.n_images:
            raise DataError(f"{self.name}/{self.split}: holds no images")
        if not isinstance(samples, HasLabels):
            raise DataError(f"{self.name}: has no class for each image, which a classifier is scored by")
        self._labels = np.asarray(samples.labels, np.int64)
        if len(self._labels) != self.n_images:
            raise DataError(f"{self.name}: {self.n_images} images, {len(self._labels)} labels")
        if int(self._labels.min()) < 0:
            raise DataError(f"{self.name}: label {int(self._labels.min())}; expected 0 or more")
        names = getattr(samples, "class_names", ())
        self.num_classes = max(2, int(self._labels.max()) + 1, len(names))
        self.image_shape = self._planes(0).shape

    def read(self, first: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return images first..stop-1 as uint8[N, C, H, W], and labels as int64[N].

        Raises: DataError for a range past the end, a damaged image, or one of another size.
        """
        check_range(first, stop, name=self.name, split=self.split, n_images=self.n_images)
        pixels = np.empty((stop - first, *self.image_shape), np.uint8)
        for place, index in enumerate(range(first, stop)):
            planes = self._planes(index)
            if planes.shape != self.image_shape:
                raise DataError(
                    f"{self.name}: {self._samples.sample(index).id}: {_size(planes.shape)} pixels, the first image has "
                    f"{_size(self.image_shape)}; say what to do with them in the card: [preprocess] resize"
                )
            pixels[place] = planes
        return pixels, self._labels[first:stop].copy()

    def _planes(self, index: int) -> Planes:
        stored = self._samples.stored(index) if isinstance(self._samples, StoresPictures) else None
        if self._fit is not None and stored is not None:
            return stored.fitted(self._fit, self._pictures, f"{self.name}: {stored.id}")
        sample = self._samples.sample(index)
        image = sample.inputs.get(IMAGE)
        if image is None:
            raise DataError(f"{self.name}: sample {sample.id} has no image, only {', '.join(sample.inputs)}")
        return _fitted(np.asarray(image, np.uint8), self._fit, f"{self.name}: {sample.id}")


class FittedImages:
    """A data set whose images are resized, cropped or turned to other colours when they are read; a `Dataset`."""

    def __init__(self, dataset: Dataset, fit: FitsImages) -> None:
        """Raises: DataError for images that are scaled already."""
        self._dataset, self._fit = dataset, fit
        self.name, self.split = dataset.name, dataset.split
        self.n_images, self.num_classes = dataset.n_images, dataset.num_classes
        self.image_shape = self.read(0, min(1, self.n_images))[0].shape[1:]

    def read(self, first: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return images first..stop-1 as uint8[N, C, H, W], and labels as int64[N]. Raises: DataError."""
        pixels, labels = self._dataset.read(first, stop)
        if pixels.dtype != np.uint8:
            raise DataError(f"{self.name}: images are {pixels.dtype}, scaled already; [preprocess] takes uint8")
        stored = pixels[:, None] if pixels.ndim == 3 else pixels
        return np.stack(
            [self._fit(np.ascontiguousarray(planes.transpose(1, 2, 0)), self.name) for planes in stored]
        ), labels


class DatasetSamples:
    """A data set of labelled images as a `SampleSet`: an image uint8[H, W, C] and its label."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.name, self.split, self.n_samples = dataset.name, dataset.split, dataset.n_images
        self.num_classes = dataset.num_classes

    def sample(self, index: int) -> Sample:
        """Return one sample; images that are scaled already stay float32[C, H, W]. Raises: DataError."""
        pixels, labels = self._dataset.read(index, index + 1)
        image = pixels[0][None] if pixels.ndim == 3 else pixels[0]
        if image.dtype == np.uint8:
            image = np.ascontiguousarray(image.transpose(1, 2, 0))
        return Sample(id=str(index), inputs={IMAGE: image}, target=int(labels[0]))


def _fitted(image: Planes, fit: FitsImages | None, name: str) -> Planes:
    if image.ndim != 3 or 0 in image.shape:
        raise DataError(f"{name}: an image of shape {image.shape}; expected H x W x C")
    return fit(image, name) if fit is not None else np.ascontiguousarray(image.transpose(2, 0, 1))


def _size(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{height} x {width} x {channels}"
