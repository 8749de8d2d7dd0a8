"""The `[preprocess]` table of a card: its keys, its presets, and what they come to for a model's input."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from harness.errors import DataError
from harness.specs import Preprocess

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP_SHARE = 0.875  # 224 of 256
Side = int | tuple[int, int]


class PreprocessTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All keys of `[preprocess]`; one that is not given is the preset's, or leaves images alone."""

    preset: str | None = None
    resize: Side | None = None  # shorter side, or [height, width]
    fit: str | None = None
    crop: Side | None = None  # a side, or [height, width]
    interpolation: str | None = None
    color: str | None = None
    pad: int | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: str | None = None
    dtype: str | None = None

    @property
    def given(self) -> dict[str, object]:
        """Return the keys that stand in the card."""
        fields = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return {name: value for name, value in fields if value is not None}


def _imagenet(height: int, width: int) -> dict[str, object]:
    """Source: torchvision's ImageClassification presets, 256 -> 224; other inputs in the same proportion."""
    return {
        "resize": round(min(height, width) / CROP_SHARE),
        "crop": (height, width),
        "color": "rgb",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
    }


def _yolo(height: int, width: int) -> dict[str, object]:
    """Source: ultralytics' LetterBox: RGB in [0, 1], aspect kept, margins of 114."""
    return {"resize": (height, width), "fit": "letterbox", "color": "rgb", "pad": 114}


PRESETS: dict[str, Callable[[int, int], dict[str, object]]] = {"imagenet": _imagenet, "yolo": _yolo}
ARITHMETIC = ("scale", "mean", "std", "layout")  # keys that [input] has, too


def resolved(
    table: PreprocessTable, shape: tuple[int, ...], layout: str, *, source: object
) -> tuple[Preprocess, dict[str, object]]:
    """Return the geometry that a table asks for, and those of scale, mean, std and layout that it sets.

    shape: of the input without the batch.
    Raises: DataError for an unknown preset, one whose input has no fixed size, or a size that the model does not take;
    ConfigError for values that contradict each other.
    """
    given = table.given
    preset = given.pop("preset", None)
    size = _size_of(shape, str(given.get("layout", layout)))
    if preset is not None:
        if preset not in PRESETS:
            raise DataError(f"{source}: [preprocess] preset = {preset!r}: choose from {', '.join(PRESETS)}")
        if size is None:
            raise DataError(f"{source}: [preprocess] preset {preset} needs an input shape with height and width")
        given = PRESETS[str(preset)](*size) | given
    arithmetic = {name: given.pop(name) for name in ARITHMETIC if name in given}
    for name in ("resize", "crop"):
        if isinstance(given.get(name), int):
            given[name] = (given[name],) if name == "resize" else (given[name],) * 2
    asked = Preprocess(**given)  # type: ignore[arg-type]
    made = asked.crop or (asked.resize if len(asked.resize) > 1 else None)
    if made is not None and size is not None and made != size:
        raise DataError(
            f"{source}: [preprocess] makes images of {made[0]} x {made[1]}, the model takes {size[0]} x {size[1]}"
        )
    return asked, arithmetic


def _size_of(shape: tuple[int, ...], layout: str) -> tuple[int, int] | None:
    """Return (height, width) of an input, None where its shape does not tell."""
    if layout == "flat" or len(shape) not in (2, 3):
        return None
    size = shape[:2] if layout == "NHWC" or len(shape) == 2 else shape[1:]
    return (size[0], size[1]) if min(size) > 0 else None
