"""Images as stored -> images as a model wants them: float32, scaled, normalised, laid out. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.specs import ModelSpec


def images_from_pixels(pixels: NDArray[np.generic], spec: ModelSpec) -> NDArray[np.float32]:
    """Return float32[N, *spec.input_shape] from stored images.

    pixels: uint8[N, H, W] or uint8[N, C, H, W], scaled and normalised by the card; or float32[N, C, H, W], already
    in the model's scale and only laid out.
    Raises: DataError when the images do not have the model's size.
    """
    if pixels.dtype == np.uint8:
        # One multiply-add per channel in float32: the same rounding on every CPU.
        scale = np.asarray(spec.scale / np.asarray(spec.std, np.float64), np.float32)
        shift = np.asarray(-np.asarray(spec.mean, np.float64) / np.asarray(spec.std, np.float64), np.float32)
        stored = pixels[:, None] if pixels.ndim == 3 else pixels
        planes = np.multiply(stored, scale.reshape(1, -1, 1, 1), dtype=np.float32)
        if np.any(shift):
            planes = planes + shift.reshape(1, -1, 1, 1)
    elif pixels.dtype == np.float32:
        planes = pixels[:, None] if pixels.ndim == 3 else pixels
    else:
        raise DataError(f"images are {pixels.dtype}; expected uint8 (0..255) or float32 (already scaled)")
    if spec.layout == "NHWC":
        planes = planes.transpose(0, 2, 3, 1)
    elif spec.layout == "flat":
        planes = planes.reshape(len(planes), -1)
    if planes.shape[1:] != spec.input_shape:
        raise DataError(
            f"images of shape {pixels.shape[1:]} do not fit model {spec.name}, "
            f"which takes {spec.input_shape} ({spec.layout})"
        )
    return np.ascontiguousarray(planes, np.float32)
