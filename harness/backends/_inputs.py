"""Checks of what goes into an engine and what comes out. Pure NumPy: runtimes let some of these pass in silence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.models.feeds import seeded_feeds
from harness.protocols import Engine, Images, RunsTensors, Tensors
from harness.records import TensorSpec
from harness.specs import ModelTensors
from harness.store.cache import sha256_of_file

DIGEST_CHARACTERS = 16  # of a sha256, as told to a reader


def check_images(images: Images, tensor: TensorSpec, engine: str) -> None:
    """Check the dtype, rank, shape and finiteness of a batch before it is run.

    `engine` names the engine in messages. OpenVINO casts other dtypes without a word, may return its previous result
    for a wrong shape, and gives a finite row for a NaN pixel.
    Raises: MeasurementError.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.float32:
        kind = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise MeasurementError(f"{engine}: input {tensor.name} is {kind}; expected a float32 array")
    if not shape_fits(images.shape, tensor.shape) or not len(images):
        raise MeasurementError(
            f"{engine}: input {tensor.name} has shape {list(images.shape)}; expected {shape_text(tensor.shape)}"
        )
    # A dot product is the quickest pass; one that overflows is looked at again.
    if not np.isfinite(np.vdot(images, images)) and not np.isfinite(images).all():
        row = int(np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(axis=1))[0])
        raise MeasurementError(
            f"{engine}: image {row} of the batch holds NaN or Inf; fix the data or its preprocessing"
        )


def check_feeds(feeds: Tensors, inputs: Sequence[TensorSpec], engine: str) -> None:
    """Check names, types, shapes and finiteness of an engine's inputs before it is run. Raises: MeasurementError."""
    if feeds.keys() != {tensor.name for tensor in inputs}:
        given, names = ", ".join(feeds) or "none", ", ".join(tensor.name for tensor in inputs)
        raise MeasurementError(f"{engine}: inputs {given} are given; expected {names}")
    for tensor in inputs:
        array = feeds[tensor.name]
        if not isinstance(array, np.ndarray) or array.dtype != tensor.dtype:
            kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise MeasurementError(f"{engine}: input {tensor.name} is {kind}; expected an array of {tensor.dtype}")
        if not shape_fits(array.shape, tensor.shape) or 0 in array.shape:
            raise MeasurementError(
                f"{engine}: input {tensor.name} has shape {list(array.shape)}; expected {shape_text(tensor.shape)}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise MeasurementError(f"{engine}: input {tensor.name} holds NaN or Inf; fix the data or their preparation")


def files_in_words(paths: Iterable[str]) -> str:
    """Return files that shape an engine by name and content, so that a verdict names one that changed."""
    return ", ".join(f"{Path(path).name} {sha256_of_file(Path(path))[:DIGEST_CHARACTERS]}" for path in paths) or "none"


def check_same_outputs(found: Tensors, expected: Tensors, engine: str) -> None:
    """Refuse a bound call whose outputs differ from those of `run`. Raises: MeasurementError."""
    for name, array in expected.items():
        is_number = np.issubdtype(array.dtype, np.floating)
        same = (
            np.allclose(found[name], array, rtol=1e-3, atol=1e-5, equal_nan=True)
            if is_number
            else np.array_equal(found[name], array)
        )
        if not same:
            raise MeasurementError(f"{engine}: output {name} of the bound call differs from run(); not timed")


def contiguous(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return an array that lies in one piece, copied where it does not; unlike NumPy's, a scalar stays one."""
    return np.ascontiguousarray(array).reshape(np.shape(array))


def kept_outputs(buffers: Tensors) -> Callable[[], Tensors]:
    """Return how the outputs in a timer's buffers are read: copied, and the buffers spoiled (NaN, or all bits set)."""

    def outputs() -> Tensors:
        found = {name: array.copy() for name, array in buffers.items()}
        for array in buffers.values():
            spoil(array)
        return found

    return outputs


def spoil(array: NDArray[np.generic]) -> None:
    """Overwrite an array with what hardly an engine returns: NaN, or all bits of a whole number set."""
    kind = array.dtype.kind
    array[...] = np.nan if kind == "f" else True if kind == "b" else np.array(-1).astype(array.dtype)


def check_output_shape(shape: tuple[int, ...], n_images: int, engine: str) -> None:
    """Check that an output is [N, K], one row an image. Raises: MeasurementError."""
    if len(shape) != 2 or shape[0] != n_images:
        raise MeasurementError(
            f"{engine}: output has shape {list(shape)} for {n_images} images; expected [{n_images}, classes]"
        )


def shape_fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Tell whether a shape agrees with one that may have free (None) dimensions."""
    return len(shape) == len(expected) and all(
        want is None or have == want for have, want in zip(shape, expected, strict=True)
    )


def shape_text(shape: tuple[int | None, ...]) -> str:
    """Return a shape for a message; free dimensions read N."""
    return f"[{', '.join('N' if size is None else str(size) for size in shape)}]"


def timing_images(tensor: TensorSpec, batch_size: int) -> NDArray[np.float32]:
    """Return float32[batch_size, ...] in 0..1, seeded: the time of dense kernels does not depend on pixels."""
    shape = tuple(1 if size is None else size for size in tensor.shape[1:])
    return np.random.default_rng(0).random((batch_size, *shape), dtype=np.float32)


def profile_feeds(inputs: Sequence[TensorSpec], tensors: ModelTensors | None, batch_size: int) -> Tensors:
    """Return seeded inputs for a run whose layers are read: of a batch where samples may share a run."""
    if tensors is None:
        (image,) = inputs
        return {image.name: timing_images(image, image.shape[0] or batch_size)}
    return seeded_feeds(tensors, batch_size if tensors.is_stackable else 1)


def first_inference_ns(engine: Engine, batch_size: int, tensors: ModelTensors | None = None) -> int:
    """Run one batch on an engine that has run none, and return the wall time of the call, copies and all [ns].

    A fixed batch of the engine goes before `batch_size`; `tensors`: of a model of any graph. Raises: MeasurementError.
    """
    if tensors is not None and isinstance(engine, RunsTensors):
        feeds = profile_feeds(engine.inputs, tensors, batch_size)
        started = time.perf_counter_ns()
        engine.run(feeds)
        return time.perf_counter_ns() - started
    images = timing_images(engine.input, engine.input.shape[0] or batch_size)
    started = time.perf_counter_ns()
    engine.infer(images)
    return time.perf_counter_ns() - started
