"""COCO's JSON of detections: images, their boxes and categories.

The JSON is given, or a folder with `annotations/instances_*.json` (of the split asked), or with the one file that
Roboflow writes beside the images, `_annotations.coco.json`. Image files lie beside the JSON, or in `images/` or a
folder of the split's name, beside it or beside its folder.
Source: COCO, "Data format", cocodataset.org.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from harness.datasets._decode import read_file
from harness.datasets._kind import DatasetKind, OpenRequest
from harness.datasets._paths import SPLIT_NAMES, WHOLE, path_below
from harness.datasets._pictures import StoredPicture
from harness.datasets._ranges import check_range
from harness.errors import DataError
from harness.protocols import Sample

ROBOFLOW = "_annotations.coco.json"
LOOKED_AT = 1 << 16  # bytes of a JSON that are looked at to tell what it is
MAX_BYTES = 4 << 30


class _Image(msgspec.Struct):
    id: int
    file_name: str
    width: int
    height: int


class _Annotation(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]  # x, y, width, height
    area: float | None = None
    iscrowd: int = 0


class _Category(msgspec.Struct):
    id: int
    name: str


class _File(msgspec.Struct):
    images: tuple[_Image, ...]
    annotations: tuple[_Annotation, ...]
    categories: tuple[_Category, ...]


class CocoSamples:
    """Images with their boxes, by image id; a `SampleSet`.

    A target is a dict: `boxes` float64[B, 4] (left, top, right, bottom in pixels of the stored image), `labels`
    int64[B] (category ids), `iscrowd` bool[B], `area` float64[B], `size` (height, width), `image_id`, and `categories`
    (id -> name).
    """

    def __init__(self, path: Path, split: str, *, folders: tuple[Path, ...]) -> None:
        """Read the annotations; images are read when asked.

        `folders`: where image files may lie. Raises: DataError for a damaged file, or images that are not there.
        """
        self.name, self.split = str(path), split
        found = _read(path)
        self.categories = {category.id: category.name for category in found.categories}
        self._images = sorted(found.images, key=lambda image: image.id)
        self.n_samples = len(self._images)
        self._folder = _folder_of(self._images, folders, path)
        self._boxes: dict[int, list[_Annotation]] = {image.id: [] for image in self._images}
        if len(self._boxes) < self.n_samples:
            raise DataError(f"{path}: two images have one id")
        for annotation in found.annotations:
            if annotation.image_id not in self._boxes or annotation.category_id not in self.categories:
                raise DataError(
                    f"{path}: an annotation of image {annotation.image_id} and category {annotation.category_id}, one "
                    "of which is not listed"
                )
            self._boxes[annotation.image_id].append(annotation)

    def sample(self, index: int) -> Sample:
        """Return one image and its boxes. Raises: DataError for a missing or damaged file, or one of another size."""
        return self.stored(index).sample()

    def stored(self, index: int) -> StoredPicture:
        """Return one image's file and its boxes; see `StoresPictures`."""
        check_range(index, index + 1, name=self.name, split=self.split, n_images=self.n_samples)
        image = self._images[index]
        file = path_below(self._folder, image.file_name, source=self.name)
        own = self._boxes[image.id]
        boxes = np.asarray([one.bbox for one in own], np.float64).reshape(-1, 4)
        sizes = boxes[:, 2] * boxes[:, 3]
        boxes[:, 2:] += boxes[:, :2]
        return StoredPicture(
            id=image.file_name,
            data=read_file(file),
            name=file,
            size=(image.height, image.width),
            of=self.name,
            target={
                "boxes": boxes,
                "labels": np.asarray([one.category_id for one in own], np.int64),
                "iscrowd": np.asarray([one.iscrowd for one in own], bool),
                "area": np.asarray(
                    [size if one.area is None else one.area for one, size in zip(own, sizes, strict=True)], np.float64
                ),
                "size": (image.height, image.width),
                "image_id": image.id,
                "categories": self.categories,
            },
        )


def _read(path: Path) -> _File:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: {path.stat().st_size} bytes; at most {MAX_BYTES} are read")
        found = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not a COCO file of detections ({error})") from error
    if not found.images:
        raise DataError(f"{path}: lists no images")
    if any(not np.isfinite(one.bbox).all() or min(one.bbox[2:]) < 0 for one in found.annotations):
        raise DataError(f"{path}: a box is not finite, or of negative size; expected x, y, width, height")
    return found


def _folder_of(images: list[_Image], folders: tuple[Path, ...], path: Path) -> Path:
    """Return the folder in which the first image lies. Raises: DataError."""
    name = images[0].file_name
    for folder in folders:
        if folder.is_dir() and path_below(folder, name, source=path).is_file():
            return folder
    looked = ", ".join(map(str, folders))
    raise DataError(f"{path}: its first image, {name}, is in none of {looked}; put the images in one of them")


def _folders_for(path: Path, split: str) -> tuple[Path, ...]:
    """Return where the images of a JSON may lie, likeliest first."""
    name = path.stem.rpartition("_")[2]  # instances_val2017 -> val2017
    splits = (name, *SPLIT_NAMES.get(split, ()))
    bases = (path.parent, path.parent.parent)
    inner = [base / place / one for base in bases for place in ("images", "") for one in splits]
    return tuple(dict.fromkeys((*inner, *(base / "images" for base in bases), path.parent)))


def _annotations_in(folder: Path, split: str) -> tuple[Path, str] | None:
    """Return the annotations of a folder and the split they are of; None where it has none."""
    if (folder / ROBOFLOW).is_file():
        return folder / ROBOFLOW, WHOLE
    for own in (split, *(other for other in SPLIT_NAMES if other != split)):
        for name in SPLIT_NAMES.get(own, (own,)):
            inner = folder / name / ROBOFLOW
            listed = sorted((folder / "annotations").glob(f"instances_{name}*.json"))
            if inner.is_file() or listed:
                return (inner if inner.is_file() else listed[0]), own
    named = sorted((folder / "annotations").glob("instances_*.json"))
    return (named[0], WHOLE) if len(named) == 1 else None  # of no split, as CVAT exports it


def _takes(path: Path) -> bool:
    if path.is_dir():
        return _annotations_in(path, "test") is not None
    return path.is_file() and path.suffix.lower() == ".json" and _is_coco(path)


def _is_coco(path: Path) -> bool:
    """Tell whether a JSON file is an object with COCO's three lists; a list, or a map of names to classes, is not."""
    import re

    with path.open("rb") as file:
        head, size = file.read(LOOKED_AT), path.stat().st_size
        file.seek(max(0, size - LOOKED_AT))
        text = head + file.read(LOOKED_AT)
    keys = set(re.findall(rb'"(images|annotations|categories)"\s*:\s*\[', text))
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and len(keys) >= 1


def _open(request: OpenRequest) -> CocoSamples:
    path, split = request.path, WHOLE
    if path.is_dir():
        found = _annotations_in(path, request.split)
        if found is None:
            raise DataError(f"{path}: no COCO annotations")
        path, split = found
        if split not in (WHOLE, request.split):
            raise DataError(f"{request.path}: has no split {request.split!r}, only {split}; choose with --split")
    return CocoSamples(path, split, folders=_folders_for(path, request.split))


DATASETS = DatasetKind(
    takes_path=_takes,
    open_samples=_open,
    reads="COCO's JSON of detections with its images",
)
