"""Samples of a model of any graph -> the inputs of one run: seeded, or stacked from what a data set gives. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.protocols import Tensors
from harness.specs import ModelInput, ModelTensors

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
