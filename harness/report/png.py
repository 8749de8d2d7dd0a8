"""Tiny grey or RGB images as PNG data URIs, in a dozen lines of the standard library: a report needs no decoder."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from harness.records import PackedArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB = 0, 2  # colour types of PNG (ISO/IEC 15948), section 11.2.2


def png_from_pixels(pixels: NDArray[np.uint8]) -> bytes:
    """Encode uint8[H, W] or uint8[3, H, W] as PNG.

    Raises: ValueError for another shape or dtype.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[0] != 3):
        raise ValueError(f"{pixels.dtype}{list(pixels.shape)} is no image; expected uint8[H, W] or uint8[3, H, W]")
    rows = pixels if pixels.ndim == 2 else np.moveaxis(pixels, 0, 2)
    height, width = rows.shape[:2]
    lines = np.zeros((height, 1 + rows[0].size), np.uint8)  # each line opens with filter type 0
    lines[:, 1:] = rows.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, GREY if pixels.ndim == 2 else RGB, 0, 0, 0)
    data = zlib.compress(lines.tobytes(), 9)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def data_uri_from_pixels(pixels: NDArray[np.uint8]) -> str:
    """Return an image as a `data:` URI. Raises: ValueError as `png_from_pixels`."""
    return "data:image/png;base64," + base64.b64encode(png_from_pixels(pixels)).decode("ascii")


def uri_of_packed(image: PackedArray | None) -> str:
    """Return a stored picture as a `data:` URI; "" where there is none, or what is stored is no picture."""
    pixels = np.empty(0) if image is None else image.array()
    if pixels.ndim == 3 and pixels.shape[0] == 1:
        pixels = pixels[0]
    is_image = pixels.size and (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[0] == 3))
    return data_uri_from_pixels(pixels.astype(np.uint8)) if is_image else ""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
