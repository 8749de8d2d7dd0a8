"""Image files -> uint8[H, W, C], by Pillow. Says what becomes of 16 bits, alpha, palettes and orientation."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, first_line

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
MAX_PIXELS = 89_478_485  # of one image: Pillow's own bound, a quarter of a GiB of RGB
GREY_MODES = frozenset({"1", "L", "LA", "La"})
SIXTEEN_BITS = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})


def is_image_name(name: str) -> bool:
    """Tell whether a file's name is that of an image."""
    return Path(name).suffix.lower() in SUFFIXES and not Path(name).name.startswith(".")


def read_file(path: Path) -> bytes:
    """Return what a file holds. Raises: DataError, naming it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def decode_image(data: bytes, name: object) -> NDArray[np.uint8]:
    """Return uint8[H, W, 1] of a grey image, uint8[H, W, 3] (RGB) of any other.

    It is turned as its EXIF orientation says. Of 16 bits a value the upper 8 are kept; alpha is dropped; palettes and
    CMYK become RGB; of several frames the first is taken.
    Raises: DataError for what is no image, is damaged or cut short, or has more than MAX_PIXELS pixels.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise DataError(f"{name}: {width} x {height} pixels; at most {MAX_PIXELS} are read")
            return _array(ImageOps.exif_transpose(opened), name)
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: more than {MAX_PIXELS} pixels, which is the most that are read") from error
    except (OSError, ValueError, SyntaxError, EOFError, TypeError) as error:  # what Pillow raises for damaged files
        told = "not an image that is read" if isinstance(error, UnidentifiedImageError) else first_line(error)
        raise DataError(f"{name}: {told}; expected a whole {', '.join(FORMATS)} file") from error


def _array(image: Image, name: object) -> NDArray[np.uint8]:
    if image.mode in SIXTEEN_BITS:
        return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)[:, :, None]
    if image.mode == "I":  # 16 bits in older versions of Pillow
        values = np.asarray(image)
        if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
            raise DataError(f"{name}: 32 bits a pixel; expected 8 or 16")
        return (values >> 8).astype(np.uint8)[:, :, None]
    if image.mode == "F":
        raise DataError(f"{name}: pixels are floats; expected 8 or 16 bits")
    if image.mode in GREY_MODES:
        return np.asarray(image.convert("L"))[:, :, None]
    return np.asarray(image.convert("RGB"))
