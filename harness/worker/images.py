"""The images a worker feeds an engine with: to calibrate, to score, to time; seeded noise for a model without data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from harness.datasets import fingerprint_range, lasting_name, open_dataset
from harness.models.preprocess import fingerprint_of_inputs, fit_of, images_from_pixels
from harness.protocols import CalibrationSet, Dataset, Images
from harness.specs import DatasetRequest, ImageRange, ModelSpec
from harness.store.pictures import PictureStore
from harness.worker.requests import CaseRequest

NOISE_IMAGES, NOISE_SEED = 64, 0


class DatasetCalibration:
    """Calibration images of a data set, preprocessed as the model's card says."""

    def __init__(self, dataset: Dataset, spec: ModelSpec, request: DatasetRequest) -> None:
        self._dataset, self._spec = dataset, spec
        self._images = request.calibration
        # An engine that calibrates while it builds records them.
        self.images = replace(self._images, dataset=lasting_name(dataset.name))
        self.n_images = self._images.n_images
        stored = fingerprint_range(dataset, self._images.first, self._images.stop)
        self.fingerprint = fingerprint_of_inputs(stored, spec)

    def batches(self, batch_size: int) -> Iterator[Images]:
        """Yield float32[<= batch_size, ...] in data-set order."""
        for first in range(self._images.first, self._images.stop, batch_size):
            pixels, _ = self._dataset.read(first, min(first + batch_size, self._images.stop))
            yield images_from_pixels(pixels, self._spec)


class NoiseCalibration:
    """Seeded uniform noise for a model that is only timed: its scales are as good as its random weights."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self.n_images = NOISE_IMAGES
        self.fingerprint = f"uniform noise, seed {NOISE_SEED}, {NOISE_IMAGES} x {spec.input_shape}"

    def batches(self, batch_size: int) -> Iterator[Images]:
        """Yield float32[<= batch_size, ...] in [0, 1)."""
        generator = np.random.default_rng(NOISE_SEED)
        for first in range(0, self.n_images, batch_size):
            count = min(batch_size, self.n_images - first)
            yield generator.random((count, *self._spec.input_shape), dtype=np.float32)


def scored_range(dataset: Dataset, data: DatasetRequest) -> ImageRange:
    """Return the scored range as records have it: a path's data set knows better than the request what it is."""
    return replace(data.scored, dataset=lasting_name(dataset.name), split=dataset.split)


def pictures_of(request: CaseRequest) -> PictureStore | None:
    """Return where this process keeps pictures as models are shown them; None without a cache."""
    return _picture_store(request.build.cache_dir) if request.build.cache_dir else None


@lru_cache(maxsize=1)
def _picture_store(cache_dir: str) -> PictureStore:
    return PictureStore(Path(cache_dir))


def scored_dataset(model: ModelSpec, data: DatasetRequest, pictures: PictureStore | None = None) -> Dataset:
    """Open the data set whose images are scored, sized as the model's card says. Raises: DataError."""
    return open_dataset(data.name, split=data.split, data_dir=data.data_dir, fit=fit_of(model), pictures=pictures)


def calibration_set(model: ModelSpec, data: DatasetRequest, pictures: PictureStore | None = None) -> CalibrationSet:
    """Open the calibration images; noise for a model that is only timed. Raises: DataError."""
    if model.timing_only:
        return NoiseCalibration(model)
    wanted = data.calibration
    dataset = open_dataset(
        wanted.dataset, split=data.calibration_split, data_dir=data.data_dir, fit=fit_of(model), pictures=pictures
    )
    return DatasetCalibration(dataset, model, data)


def timing_images(
    model: ModelSpec, data: DatasetRequest, batch_size: int, pictures: PictureStore | None = None
) -> Images:
    """Return float32[batch_size, ...] of the scored images, repeated where they are fewer; noise for a timed model."""
    if model.timing_only:
        return next(NoiseCalibration(model).batches(batch_size))
    dataset = scored_dataset(model, data, pictures)
    last = min(data.scored.first + batch_size, dataset.n_images)
    pixels, _ = dataset.read(data.scored.first, last)
    images = images_from_pixels(pixels, model)
    return np.resize(images, (batch_size, *model.input_shape)) if len(images) < batch_size else images
