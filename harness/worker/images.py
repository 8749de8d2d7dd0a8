"""The images a worker feeds an engine with: to calibrate, to score, to time; seeded noise for a model without data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.datasets import fingerprint_range, open_dataset
from harness.models.preprocess import fingerprint_of_inputs, fit_of, images_from_pixels
from harness.protocols import CalibrationSet, Dataset, Images
from harness.specs import DatasetRequest, ModelSpec

NOISE_IMAGES, NOISE_SEED = 64, 0


class DatasetCalibration:
    """Calibration images of a data set, preprocessed as the model's card says."""

    def __init__(self, dataset: Dataset, spec: ModelSpec, request: DatasetRequest) -> None:
        self._dataset, self._spec = dataset, spec
        self.images = self._images = request.calibration  # an engine that calibrates while it builds records them
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


def scored_dataset(model: ModelSpec, data: DatasetRequest) -> Dataset:
    """Open the data set whose images are scored, sized as the model's card says. Raises: DataError."""
    return open_dataset(data.name, split=data.split, data_dir=data.data_dir, fit=fit_of(model))


def calibration_set(model: ModelSpec, data: DatasetRequest) -> CalibrationSet:
    """Open the calibration images; noise for a model that is only timed. Raises: DataError."""
    if model.timing_only:
        return NoiseCalibration(model)
    dataset = open_dataset(
        data.calibration.dataset, split=data.calibration_split, data_dir=data.data_dir, fit=fit_of(model)
    )
    return DatasetCalibration(dataset, model, data)


def timing_images(model: ModelSpec, data: DatasetRequest, batch_size: int) -> Images:
    """Return float32[batch_size, ...] of the scored images, repeated where they are fewer; noise for a timed model."""
    if model.timing_only:
        return next(NoiseCalibration(model).batches(batch_size))
    dataset = scored_dataset(model, data)
    last = min(data.scored.first + batch_size, dataset.n_images)
    pixels, _ = dataset.read(data.scored.first, last)
    images = images_from_pixels(pixels, model)
    return np.resize(images, (batch_size, *model.input_shape)) if len(images) < batch_size else images
