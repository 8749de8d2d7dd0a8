"""Checks of what goes into an engine and what comes out. Pure NumPy: runtimes let some of these pass in silence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.protocols import Images
from harness.records import TensorSpec


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
