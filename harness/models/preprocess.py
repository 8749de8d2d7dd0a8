"""Images as stored -> images as a model wants them: sized, cut, coloured, scaled, normalised, laid out. Pure.

Geometry is done on 8-bit pixels by Pillow, whose filters widen with the scale when an image shrinks (antialiasing, as
torchvision has it for PIL images); `nearest` takes single pixels. Then comes the arithmetic, in float32.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.specs import ModelSpec, Preprocess


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where an image lies in what a model is shown: `seen = stored x scale + offset`, in pixels (x to the right)."""

    size: tuple[int, int]  # (height, width) of what the model is shown
    resized: tuple[int, int]  # (height, width) of the image after scaling
    scale_x: float
    scale_y: float
    offset_x: int  # of a letterbox's margin; negative for a crop
    offset_y: int


def placement(height: int, width: int, asked: Preprocess) -> Placement:
    """Return where an image of a size lies after resizing, letterbox and crop.

    Sides are rounded as torchvision's Resize and CenterCrop and ultralytics' LetterBox do.
    Raises: DataError for a crop larger than the image.
    """
    resized, (top, left), size = _resized(height, width, asked), (0, 0), (0, 0)
    if asked.fit == "letterbox":
        size = (asked.resize[0], asked.resize[1])
        top, left = (round((whole - own) / 2 - 0.1) for whole, own in zip(size, resized, strict=True))
    else:
        size = resized
    if asked.crop:
        cut = (asked.crop[0], asked.crop[1])
        if cut[0] > size[0] or cut[1] > size[1]:
            raise DataError(f"{size[0]} x {size[1]} pixels cannot be cropped to {cut[0]} x {cut[1]}; resize them first")
        top, left = top - round((size[0] - cut[0]) / 2), left - round((size[1] - cut[1]) / 2)
        size = cut
    return Placement(
        size=size,
        resized=resized,
        scale_x=resized[1] / width,
        scale_y=resized[0] / height,
        offset_x=left,
        offset_y=top,
    )


@dataclass(frozen=True, slots=True)
class Fit:
    """What a card makes of an image before any arithmetic. Implements `protocols.FitsImages`."""

    asked: Preprocess
    n_channels: int  # of the model

    def __call__(self, image: NDArray[np.uint8], name: object) -> NDArray[np.uint8]:
        """Return uint8[C, H, W] of uint8[H, W, 1 or 3]. Raises: DataError, naming the image."""
        try:
            return np.ascontiguousarray(_shown(image, self.asked, self.n_channels).transpose(2, 0, 1))
        except DataError as error:
            raise DataError(f"{name}: {error}") from error

    @property
    def text(self) -> str:
        """Return all that it does, in words."""
        return f"{self.asked!r} {self.n_channels}"

    @property
    def is_plain(self) -> bool:
        """Tell whether images of the model's size and channels stay as they are."""
        return self.asked.is_plain


def fit_of(spec: ModelSpec) -> Fit:
    """Return what a model's card makes of an image; the same for all models that want the same pixels."""
    return Fit(spec.preprocess, _channels_of(spec.input_shape, spec))


def fit_of_input(shape: tuple[int, ...], spec: ModelSpec) -> Fit:
    """Return what a model's card makes of an image for an input of some shape, without the batch."""
    return Fit(spec.preprocess, _channels_of(shape, spec))


def prepare_image(
    image: NDArray[np.uint8], spec: ModelSpec, *, shape: tuple[int, ...] | None = None, is_fitted: bool = False
) -> NDArray[np.generic]:
    """Return one image as a model wants it, without a batch axis: sized, scaled, laid out, of the card's dtype.

    image: uint8[H, W, 1 or 3] (RGB). shape: of the model's input without the batch, to tell its channels and to be
    held against (default: the card's); an axis below 1 is free. is_fitted: the image is uint8[C, H, W] that
    `fit_of_input` has made.
    Raises: DataError for an image that does not fit, or values that the dtype cannot hold.
    """
    wanted = spec.input_shape if shape is None else shape
    planes = image if is_fitted else fit_of_input(wanted, spec)(image, "image")
    scaled = np.multiply(planes, _per_channel(spec.scale / np.asarray(spec.std, np.float64)), dtype=np.float32)
    scaled += _per_channel(-np.asarray(spec.mean, np.float64) / np.asarray(spec.std, np.float64))
    laid = scaled.transpose(1, 2, 0) if spec.layout == "NHWC" else scaled
    laid = laid.reshape(-1) if spec.layout == "flat" else laid[0] if len(wanted) == 2 else laid
    if len(laid.shape) != len(wanted) or any(0 < b != a for a, b in zip(laid.shape, wanted, strict=True)):
        raise DataError(
            f"an image of shape {laid.shape} does not fit model {spec.name}, which takes {wanted}; the card's "
            "[preprocess] resize makes it fit"
        )
    return _cast(np.ascontiguousarray(laid), spec)


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
    if _laid_out(stored.shape[1:], spec) != spec.input_shape:
        raise DataError(
            f"images of shape {pixels.shape[1:]} do not fit model {spec.name}, "
            f"which takes {spec.input_shape} ({spec.layout}); the card's [preprocess] resize makes them fit"
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
    card: list[object] = [spec.layout, spec.scale, list(spec.mean), list(spec.std)]
    if spec.preprocess != Preprocess():
        card.append(f"{spec.preprocess.text}, {spec.preprocess.dtype}")
    return hashlib.sha256(json.dumps([fingerprint, *card]).encode()).hexdigest()


def _laid_out(shape: tuple[int, ...], spec: ModelSpec) -> tuple[int, ...]:
    """Return what (C, H, W) becomes in a model's layout; grey images of a model without a channel axis have none."""
    channels, height, width = shape
    if spec.layout == "flat":
        return (math.prod(shape),)
    if channels == 1 and len(spec.input_shape) == 2:
        return height, width
    return (height, width, channels) if spec.layout == "NHWC" else shape


def _planes(images: NDArray[np.float32], shape: tuple[int, ...], layout: str) -> NDArray[np.float32]:
    """Return images as a writable view of shape (N, C, H, W)."""
    is_last = layout == "NHWC" and images.ndim == len(shape)
    planes: NDArray[np.float32] = images.transpose(0, 3, 1, 2) if is_last else images.reshape(shape)
    return planes


def _channels_of(shape: tuple[int, ...], spec: ModelSpec) -> int:
    """Return the channels of an input's shape without the batch; those of the card's colours where it has none."""
    if len(shape) == 3:
        return shape[-1] if spec.layout == "NHWC" else shape[0]
    return 3 if spec.preprocess.color in ("rgb", "bgr") else 1


def _resized(height: int, width: int, asked: Preprocess) -> tuple[int, int]:
    """Return (height, width) of an image after scaling."""
    if not asked.resize:
        return height, width
    if len(asked.resize) == 1:  # the shorter side; the other is cut to whole pixels
        (side,) = asked.resize
        if height <= width:
            return side, max(1, int(side * width / height))
        return max(1, int(side * height / width)), side
    tall, wide = asked.resize
    if asked.fit == "letterbox":
        ratio = min(tall / height, wide / width)
        return max(1, round(height * ratio)), max(1, round(width * ratio))
    return tall, wide


def _shown(image: NDArray[np.uint8], asked: Preprocess, n_channels: int) -> NDArray[np.uint8]:
    """Return uint8[H, W, C] as a model is shown it."""
    height, width, depth = image.shape
    is_grey = asked.color == "grey" or (asked.color == "auto" and n_channels == 1)
    if n_channels != (1 if is_grey else 3):
        raise DataError(f"the model takes {n_channels} channels, the card's [preprocess] color gives other ones")
    if depth not in (1, 3):
        raise DataError(f"{depth} channels; expected 1 or 3")
    place = placement(height, width, asked)
    if (depth == 3 and is_grey) or place.resized != (height, width):
        image = _by_pillow(image, place.resized, asked, is_grey)
    if image.shape[2] == 1 and not is_grey:
        image = np.repeat(image, 3, axis=2)
    if asked.color == "bgr":
        image = image[:, :, ::-1]
    if place.size != place.resized:
        image = _placed(image, place, asked.pad)
    return image


def _by_pillow(image: NDArray[np.uint8], size: tuple[int, int], asked: Preprocess, is_grey: bool) -> NDArray[np.uint8]:
    """Return an image in another size, and grey (ITU-R 601 luma) where that is asked."""
    from PIL import Image

    made = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else np.ascontiguousarray(image))
    if is_grey and made.mode != "L":
        made = made.convert("L")
    if (made.height, made.width) != size:
        made = made.resize((size[1], size[0]), Image.Resampling[asked.interpolation.upper()])
    pixels = np.asarray(made)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _placed(image: NDArray[np.uint8], place: Placement, pad: int) -> NDArray[np.uint8]:
    """Return an image cut out, or with a margin around it."""
    height, width = place.size
    shown = np.full((height, width, image.shape[2]), pad, np.uint8)
    top, left = max(0, place.offset_y), max(0, place.offset_x)
    cut = image[max(0, -place.offset_y) :, max(0, -place.offset_x) :][: height - top, : width - left]
    shown[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return shown


def _per_channel(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32).reshape(-1, 1, 1)


def _cast(values: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.generic]:
    """Return values in the card's dtype. Raises: DataError for what it cannot hold."""
    dtype = np.dtype(spec.preprocess.dtype)
    if dtype.kind == "u":
        rounded = np.rint(values)
        if rounded.min() < 0 or rounded.max() > np.iinfo(dtype).max:
            raise not_held(rounded, dtype, spec)
        return rounded.astype(dtype)
    with np.errstate(over="ignore"):
        cast = values.astype(dtype, copy=False)
    if not np.isfinite(cast).all():
        raise DataError(f"model {spec.name}: pixels become values that {dtype} does not hold; fix scale, mean and std")
    return cast


def not_held(pixels: NDArray[np.generic], dtype: np.dtype[np.generic], spec: ModelSpec) -> DataError:
    """Return the error of prepared pixels that an input of whole numbers cannot hold."""
    return DataError(
        f"model {spec.name}: pixels become {pixels.min():g}..{pixels.max():g}, which {dtype} does not hold; "
        f"a card of an input of {dtype} usually has scale = 1"
    )
