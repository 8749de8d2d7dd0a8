"""Samples of a model of any graph -> the inputs of one run: seeded, or stacked from what a data set gives. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, MeasurementError
from harness.models.preprocess import Fit, fit_of_input, not_held, prepare_image
from harness.protocols import IMAGE, ONLY, Sample, Tensors
from harness.specs import ModelInput, ModelSpec, ModelTensors

SEED = 20_260


def seeded_feeds(tensors: ModelTensors, n_samples: int, *, first: int = 0) -> dict[str, NDArray[np.generic]]:
    """Return the inputs of one run with seeded samples `first`.. stacked; a sample is the same in every batch."""
    samples = [seeded_sample(tensors, index) for index in range(first, first + n_samples)]
    return stacked(tensors, samples)


def seeded_sample(tensors: ModelTensors, index: int) -> dict[str, NDArray[np.generic]]:
    """Return the seeded inputs of one sample, without batch axes: uniform in each input's range; a state is 0."""
    generator = np.random.default_rng([SEED, index])
    return {one.name: _seeded(one, generator) for one in tensors.inputs}


def stacked(tensors: ModelTensors, samples: Sequence[Tensors]) -> dict[str, NDArray[np.generic]]:
    """Return samples as the inputs of one run. Raises: MeasurementError for several where each needs its own run."""
    if len(samples) != 1 and not tensors.is_stackable:
        raise MeasurementError(f"{len(samples)} samples in one run; this model takes one")
    return {
        one.name: samples[0][one.name]
        if one.batch_axis is None
        else np.stack([sample[one.name] for sample in samples], axis=one.batch_axis)
        for one in tensors.inputs
    }


def picture_fit(model: ModelSpec, tensors: ModelTensors) -> Fit | None:
    """Return what the card makes of a sample that is a picture; None where an input takes pictures as they are."""
    if any(one.name == IMAGE for one in tensors.inputs):
        return None
    return fit_of_input(_open_shape(_image_input(model, tensors)), model)


def _image_input(model: ModelSpec, tensors: ModelTensors) -> ModelInput:
    return next((one for one in tensors.inputs if one.name == model.input_name), tensors.inputs[0])


def prepared_sample(sample: Sample, model: ModelSpec, tensors: ModelTensors, *, is_fitted: bool = False) -> Sample:
    """Return a sample as the model takes it: an image as its card says, other inputs in the model's own types.

    A state that the sample does not hold begins as 0. `is_fitted`: its image is uint8[C, H, W] that `picture_fit` made.
    Raises: DataError for an input that is missing or unknown, or does not fit.
    """
    inputs: dict[str, NDArray[np.generic]] = {}
    names = {one.name: one for one in tensors.inputs}
    given = dict(sample.inputs)
    if IMAGE in given and not _is_prepared(given[IMAGE], names.get(IMAGE)):
        image = np.asarray(given.pop(IMAGE))
        one = _image_input(model, tensors)
        if image.dtype != np.uint8:
            given[one.name] = image
        else:
            pixels = image.astype(np.uint8, copy=False)
            shown = prepare_image(pixels, model, shape=_open_shape(one), is_fitted=is_fitted)
            inputs[one.name] = _held(shown, one, model)
    if ONLY in given and len(names) == 1:  # of a file without names
        given = {next(iter(names)): given[ONLY]}
    unknown = [name for name in given if name not in names]
    if unknown:
        told = unknown[0] or "an array without a name (NPY)"
        taken = ", ".join(f"{name} {_taken(one)}" for name, one in names.items())
        raise DataError(f"sample {sample.id}: {told} is no input of {model.name}, which takes {taken}")
    inputs |= {name: _fitted(array, names[name], sample.id, model) for name, array in given.items()}
    for name, one in names.items():
        if name not in inputs and one.state:
            inputs[name] = np.zeros(_without_batch(one), one.dtype)
    missing = [name for name in names if name not in inputs]
    if missing:
        taken = _taken(names[missing[0]])
        raise DataError(f"sample {sample.id}: holds no {missing[0]}, which {model.name} takes ({taken})")
    return Sample(id=sample.id, inputs=inputs, target=sample.target)


def _fitted(array: NDArray[np.generic], one: ModelInput, sample: str, model: ModelSpec) -> NDArray[np.generic]:
    """Return an array in the model's type and of its rank. Raises: DataError where a number would be another one."""
    wanted = _without_batch(one)
    found = array
    if found.ndim == len(one.shape) and one.batch_axis is not None and found.shape[one.batch_axis] == 1:
        found = np.squeeze(found, axis=one.batch_axis)  # stored with the batch axis of one sample
    free = {axis - (one.batch_axis is not None and axis > one.batch_axis) for axis in one.free_axes}
    fits = found.ndim == len(wanted) and all(
        have == want or axis in free for axis, (have, want) in enumerate(zip(found.shape, wanted, strict=True))
    )
    if not fits:
        raise DataError(
            f"sample {sample}: input {one.name} has shape {list(array.shape)}; {model.name} takes {list(wanted)}"
        )
    cast = found.astype(one.dtype)
    if np.dtype(one.dtype).kind in "biu" and not np.array_equal(cast, found):
        raise DataError(f"sample {sample}: input {one.name} is {array.dtype}; {one.dtype} does not hold its values")
    return cast


def _taken(one: ModelInput) -> str:
    """Return what an input takes, in words: its type, and its shape without the batch axis, ? for a free size."""
    sizes = ("?" if axis in one.free_axes else str(n) for axis, n in enumerate(one.shape) if axis != one.batch_axis)
    return f"{one.dtype} [{', '.join(sizes)}]"


def _held(pixels: NDArray[np.generic], one: ModelInput, model: ModelSpec) -> NDArray[np.generic]:
    """Return a prepared image in the input's type. Raises: DataError where a pixel would become another number."""
    with np.errstate(over="ignore", invalid="ignore"):
        cast = pixels.astype(one.dtype)
    if np.dtype(one.dtype).kind in "biu" and not np.array_equal(cast, pixels):
        raise not_held(pixels, cast.dtype, model)
    return cast


def _is_prepared(image: NDArray[np.generic], one: ModelInput | None) -> bool:
    """Tell whether an image is what a model's input of that very name takes: pixels are still to be prepared."""
    if one is None:
        return False
    return image.dtype != np.uint8 or (one.dtype == "uint8" and image.shape == _without_batch(one))


def _open_shape(one: ModelInput) -> tuple[int, ...]:
    """Return an input's shape without the batch axis; a free axis is 0."""
    sizes = (0 if axis in one.free_axes else size for axis, size in enumerate(one.shape) if axis != one.batch_axis)
    return tuple(sizes)


def _without_batch(one: ModelInput) -> tuple[int, ...]:
    return tuple(size for axis, size in enumerate(one.shape) if axis != one.batch_axis)


def _seeded(one: ModelInput, generator: np.random.Generator) -> NDArray[np.generic]:
    shape = tuple(size for axis, size in enumerate(one.shape) if axis != one.batch_axis)
    dtype = np.dtype(one.dtype)
    if one.state:
        return np.zeros(shape, dtype)
    if dtype.kind == "f":
        return np.asarray(generator.uniform(one.low, one.high, shape)).astype(dtype)
    if dtype.kind == "b":
        return np.asarray(generator.integers(0, 2, shape)).astype(dtype)
    return np.asarray(generator.integers(int(one.low), int(one.high), shape, endpoint=True)).astype(dtype)
