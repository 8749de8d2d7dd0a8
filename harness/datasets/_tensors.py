"""Arrays by name -> samples: which are inputs, which is the target, which hold images. Shared by NPZ, NPY, folders."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from harness.datasets._arrays import TEXT, Array, check_numbers
from harness.errors import DataError
from harness.protocols import IMAGE, Sample

TARGETS = ("labels", "label", "targets", "target", "y")
IMAGES = ("images", "image", "x")  # of uint8 with 2 to 3 axes each: what a card prepares
IDS = "sample_ids"  # "ids" is what text models call an input
CHANNELS = (1, 3)
N_AXES_OF_IMAGES = (3, 4)


def of_split(arrays: Mapping[str, Array], split: str) -> tuple[dict[str, Array], bool]:
    """Return the arrays of a split without its mark (`x_test` as `x`), and whether they are marked with splits at all.

    Arrays without a mark belong to every split.
    """
    marks = {"train": ("_train",), "test": ("_test", "_val")}
    every = [mark for own in marks.values() for mark in own]
    marked = {name for name in arrays if any(name.removesuffix(mark) != name for mark in every)}
    wanted = marks.get(split, (f"_{split}",))
    found = {name: array for name, array in arrays.items() if name not in marked}
    for mark in reversed(wanted):
        found |= {name.removesuffix(mark): array for name, array in arrays.items() if name.removesuffix(mark) != name}
    return found, bool(marked)


def target_name(arrays: Mapping[str, Array]) -> str | None:
    """Return the name of the array that holds targets."""
    return next((name for name in TARGETS if name in arrays), None)


def images_name(arrays: Mapping[str, Array]) -> str | None:
    """Return the name of the array that holds images uint8[N, H, W], uint8[N, C, H, W] or uint8[N, H, W, C]."""
    for name in IMAGES:
        if name in arrays and arrays[name].dtype == np.uint8 and arrays[name].ndim in N_AXES_OF_IMAGES:
            return name
    return None


def has_channels_last(shape: tuple[int, ...], name: object) -> bool:
    """Tell whether (A, B, C) is height, width, channels, not channels first. Raises: DataError where neither can be."""
    first, last = shape[0] in CHANNELS, shape[2] in CHANNELS
    if first == last and not first:
        raise DataError(f"{name}: images of shape {shape}; expected 1 or 3 channels, first or last")
    return last and not first


def image_of(array: Array, name: object) -> NDArray[np.uint8]:
    """Return uint8[H, W, C] of an image with channels first, last or none. Raises: DataError."""
    image = np.asarray(array, np.uint8)
    if image.ndim == 2:
        return image[:, :, None]
    return image if has_channels_last(image.shape, name) else np.ascontiguousarray(image.transpose(1, 2, 0))


def check_lengths(arrays: Mapping[str, Array], name: object) -> int:
    """Return the number of samples that all arrays hold along their first axis. Raises: DataError."""
    inputs = [key for key in arrays if key not in (*TARGETS, IDS)]
    if not inputs:
        raise DataError(f"{name}: no inputs, only {', '.join(arrays) or 'nothing'}; name arrays as the model does")
    lengths = {key: len(array) if array.ndim else None for key, array in arrays.items()}
    if len(set(lengths.values())) > 1 or None in lengths.values():
        told = ", ".join(f"{key} {'a scalar' if n is None else n}" for key, n in lengths.items())
        raise DataError(f"{name}: arrays hold unlike numbers of samples along their first axis: {told}")
    return len(arrays[inputs[0]])


def sample_of(arrays: Mapping[str, Array], sample_id: str, *, image_name: str | None, name: object) -> Sample:
    """Return one sample of the arrays of one. Raises: DataError for inputs that are no finite numbers."""
    target = target_name(arrays)
    inputs: dict[str, Array] = {}
    for key, array in arrays.items():
        if key in (target, IDS):
            continue
        if key == image_name:
            inputs[IMAGE] = image_of(array, name)
            continue
        check_numbers(array, f"{name}: {key}")
        inputs[key] = np.ascontiguousarray(array)
    return Sample(id=sample_id, inputs=inputs, target=None if target is None else plain(arrays[target]))


def plain(value: Array) -> object:
    """Return a number or a text as Python has it, an array of several as it is."""
    return value.item() if value.ndim == 0 else np.ascontiguousarray(value)


def ids_of(arrays: Mapping[str, Array], n_samples: int) -> tuple[str, ...]:
    """Return the id of each sample: what `sample_ids` says, or its index."""
    ids = arrays.get(IDS)
    if ids is None or ids.ndim != 1 or ids.dtype.kind not in "iu" + TEXT:
        return tuple(map(str, range(n_samples)))
    return tuple(value.decode() if isinstance(value, bytes) else str(value) for value in ids.tolist())


def labels_of_targets(arrays: Mapping[str, Array]) -> NDArray[np.int64] | None:
    """Return int64[N] where the targets are one whole number each, None for any others."""
    target = target_name(arrays)
    if target is None:
        return None
    values = arrays[target]
    column = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    return column.astype(np.int64) if column.ndim == 1 and column.dtype.kind in "iu" else None
