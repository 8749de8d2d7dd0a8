"""The samples of a model of any graph: seeded, or of a data set; to run, to time, to calibrate with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.datasets import StoresPictures, lasting_name, open_samples
from harness.errors import DataError, Unsupported
from harness.models.feeds import picture_fit, prepared_sample, seeded_sample, stacked
from harness.protocols import IMAGE, Batch, CalibrationSet, Images, Sample, SampleSet, Tensors
from harness.specs import DatasetRequest, ImageRange, ModelSpec, ModelTensors
from harness.store.pictures import PictureStore
from harness.worker.images import calibration_set, pictures_of, timing_images
from harness.worker.requests import CaseRequest

SEEDED = "seeded"
N_CALIBRATING = 64  # seeded samples
N_SEEDED = 32  # samples; a sign test over so many tells a rate of one in two from none at any alpha in use


class Samples(Protocol):
    """The samples that a case runs, in order."""

    n_samples: int
    source: str  # in words
    is_seeded: bool

    def sample(self, index: int) -> Sample:
        """Return one sample with inputs as the model takes them, without batch axes. Raises: DataError."""
        ...


class SeededSamples:
    """Noise: the same for every engine. Implements `Samples`."""

    is_seeded = True

    def __init__(self, tensors: ModelTensors, n_samples: int) -> None:
        self._tensors, self.n_samples, self.source = tensors, n_samples, SEEDED

    def sample(self, index: int) -> Sample:
        """Return one sample without a target."""
        return Sample(id=str(index), inputs=seeded_sample(self._tensors, index))


class PreparedSamples:
    """A range of a data set's samples, as the model takes them. Implements `Samples`."""

    is_seeded = False

    def __init__(
        self,
        found: SampleSet,
        model: ModelSpec,
        tensors: ModelTensors,
        data: ImageRange,
        pictures: PictureStore | None = None,
    ) -> None:
        """`data`: as asked; it ends where the set does. `pictures`: keeps what the card made of them.

        Raises: DataError for a range without samples.
        """
        self.n_samples = min(data.stop, found.n_samples) - data.first
        if self.n_samples < 1:
            raise DataError(f"{found.name}/{found.split}: has {found.n_samples} samples; none from {data.first} on")
        self._found, self._model, self._tensors, self._first = found, model, tensors, data.first
        self._pictures, self._fit = pictures, picture_fit(model, tensors)
        self.source = f"{lasting_name(found.name)}/{found.split}"

    def sample(self, index: int) -> Sample:
        """Return one sample. Raises: DataError for inputs that the model does not take, with the set's name."""
        picture = self._found.stored(self._first + index) if isinstance(self._found, StoresPictures) else None
        is_fitted = picture is not None and self._fit is not None
        try:
            if picture is not None and self._fit is not None:
                shown = picture.fitted(self._fit, self._pictures, "image")
                stored = Sample(id=picture.id, inputs={IMAGE: shown}, target=picture.target)
            else:
                stored = self._found.sample(self._first + index)
            return prepared_sample(stored, self._model, self._tensors, is_fitted=is_fitted)
        except DataError as error:
            raise DataError(f"{self._found.name}: {error}") from error


def samples_of(request: CaseRequest) -> Samples:
    """Return the samples that a model of any graph is run on. Raises: DataError."""
    return scored_samples(request.model, request.data, has_data=request.has_data, pictures=pictures_of(request))


def scored_samples(
    model: ModelSpec, data: DatasetRequest, *, has_data: bool, pictures: PictureStore | None = None
) -> Samples:
    """Return the samples that a model of any graph is run on: of a data set, or seeded. Raises: DataError."""
    tensors = tensors_of(model)
    if not has_data:
        return SeededSamples(tensors, min(N_SEEDED, data.score_images))
    found = open_samples(data.name, split=data.split, data_dir=data.data_dir)
    return PreparedSamples(found, model, tensors, data.scored, pictures)


def fingerprint_of(samples: Samples) -> str:
    """Return what `SampleScores.fingerprint` of these samples is: they are read for that. Raises: DataError."""
    digest = hashlib.sha256()
    for index in range(samples.n_samples):
        digest_sample(digest, samples.sample(index))
    return digest.hexdigest()


def tensors_of(model: ModelSpec) -> ModelTensors:
    """Return what goes into a model of any graph. Raises: DataError for a classifier of images."""
    if model.tensors is None:
        raise DataError(f"model {model.name} is an image classifier; its images are scored")
    return model.tensors


def feeds_of(request: CaseRequest, n_samples: int) -> dict[str, NDArray[np.generic]]:
    """Return the inputs of one run with the first samples, repeated where they are fewer. Raises: DataError."""
    samples, tensors = samples_of(request), tensors_of(request.model)
    return stacked(tensors, [samples.sample(index % samples.n_samples).inputs for index in range(n_samples)])


def timing_batch(request: CaseRequest, batch_size: int) -> Batch:
    """Return a batch of images to time, or of a model of any graph its inputs by name. Raises: DataError."""
    if request.model.tensors is not None:
        return feeds_of(request, batch_size)
    return timing_images(request.model, request.data, batch_size, pictures_of(request))


class SampleCalibration:
    """The samples that calibrate a model of any graph. Implements `protocols.TensorCalibrationSet`."""

    def __init__(self, request: CaseRequest) -> None:
        """Open them. Raises: DataError."""
        tensors, data = tensors_of(request.model), request.data
        self._tensors = tensors
        self._samples: Samples = SeededSamples(tensors, N_CALIBRATING)
        if request.has_data:
            wanted = data.calibration
            found = open_samples(wanted.dataset, split=data.calibration_split, data_dir=data.data_dir)
            self._samples = PreparedSamples(found, request.model, tensors, wanted, pictures_of(request))
            self.images = replace(wanted, dataset=lasting_name(found.name))
        self.n_images = self._samples.n_samples
        self.fingerprint = fingerprint_of(self._samples)

    def batches(self, batch_size: int) -> Iterator[Images]:
        """Refuse: there is no batch of images. Raises: Unsupported."""
        raise Unsupported("this recipe calibrates on batches of images; its model takes named inputs")

    def feeds(self, batch_size: int) -> Iterator[Tensors]:
        """Yield the inputs of one run after the other."""
        size = batch_size if self._tensors.is_stackable else 1
        for first in range(0, self.n_images, size):
            stop = min(first + size, self.n_images)
            yield stacked(self._tensors, [self._samples.sample(index).inputs for index in range(first, stop)])


def digest_sample(digest: hashlib._Hash, sample: Sample) -> None:
    """Take in a sample's name, what it should give, and its inputs' names, types, shapes and values."""
    digest.update(sample.id.encode())
    _digest_target(digest, sample.target)
    for name, array in sample.inputs.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())


def _digest_target(digest: hashlib._Hash, target: object) -> None:
    """Take in what a sample should give, arrays by their bytes: their text leaves out what is long."""
    if isinstance(target, Mapping):
        for name in sorted(target, key=str):  # COCO's categories are numbers
            digest.update(str(name).encode())
            _digest_target(digest, target[name])
    elif isinstance(target, np.ndarray) and target.dtype != object:
        digest.update(f"{target.dtype.str} {target.shape}".encode())
        digest.update(np.ascontiguousarray(target).tobytes())
    elif isinstance(target, list | tuple):
        for one in target:
            _digest_target(digest, one)
    else:
        digest.update(f"{type(target).__name__} {target}".encode())


def calibration_of(request: CaseRequest) -> CalibrationSet:
    """Open what calibrates a case: images, samples, or noise for a model without data. Raises: DataError."""
    if request.model.tensors is not None:
        return SampleCalibration(request)
    return calibration_set(request.model, request.data, pictures_of(request))
