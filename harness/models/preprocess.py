"""Images as stored -> images as a model wants them: float32, scaled, normalised, laid out. Pure."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.specs import ModelSpec


def images_from_pixels(
    pixels: NDArray[np.generic], spec: ModelSpec, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return float32[N, *spec.input_shape] from stored images, written into `out` if that is given.

    pixels: uint8[N, H, W] or uint8[N, C, H, W], scaled and normalised by the card; or float32[N, C, H, W], already
    in the model's scale and only laid out.
    Raises: DataError when the images do not have the model's size.
    """
    if pixels.dtype not in (np.uint8, np.float32):
        raise DataError(f"images are {pixels.dtype}; expected uint8 (0..255) or float32 (already scaled)")
    stored = pixels[:, None] if pixels.ndim == 3 else pixels
    if _laid_out(stored.shape[1:], spec.layout) != spec.input_shape:
        raise DataError(
            f"images of shape {pixels.shape[1:]} do not fit model {spec.name}, "
            f"which takes {spec.input_shape} ({spec.layout})"
        )
    images = np.empty((len(stored), *spec.input_shape), np.float32) if out is None else out
    planes = _planes(images, stored.shape, spec.layout)
    if pixels.dtype == np.uint8:
        # One multiply-add per channel in float32: the same rounding on every CPU.
        scale = np.asarray(spec.scale / np.asarray(spec.std, np.float64), np.float32)
        shift = np.asarray(-np.asarray(spec.mean, np.float64) / np.asarray(spec.std, np.float64), np.float32)
        np.multiply(stored, scale.reshape(1, -1, 1, 1), out=planes, dtype=np.float32)
        if np.any(shift):
            np.add(planes, shift.reshape(1, -1, 1, 1), out=planes)
    else:
        np.copyto(planes, stored)
    return images


def fingerprint_of_inputs(fingerprint: str, spec: ModelSpec) -> str:
    """Return a sha256 of images and of what a card makes of them.

    fingerprint: of the images as stored. The same pixels scaled by another card are other inputs of a model.
    """
    card = [spec.layout, spec.scale, list(spec.mean), list(spec.std)]
    return hashlib.sha256(json.dumps([fingerprint, *card]).encode()).hexdigest()


def _laid_out(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """Return what (C, H, W) becomes in a layout."""
    channels, height, width = shape
    if layout == "NHWC":
        return height, width, channels
    return (math.prod(shape),) if layout == "flat" else shape


def _planes(images: NDArray[np.float32], shape: tuple[int, ...], layout: str) -> NDArray[np.float32]:
    """Return images as a writable view of shape (N, C, H, W)."""
    planes: NDArray[np.float32] = images.transpose(0, 3, 1, 2) if layout == "NHWC" else images.reshape(shape)
    return planes
