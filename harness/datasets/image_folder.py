"""A folder of images by class: `DIR/cat/1.png`, `DIR/dog/2.jpg`; below `train/` and `test/` or `val/` where they are.

Images go round the classes: the first of each, then the second of each, ... so that any range holds all of them.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness.datasets._classes import class_order, labels_of, read_classes
from harness.datasets._decode import is_image_name, read_file
from harness.datasets._kind import DatasetKind, OpenRequest
from harness.datasets._paths import LISTS, SPLIT_NAMES, natural_key, split_folder
from harness.datasets._pictures import StoredPicture
from harness.errors import DataError
from harness.protocols import Sample

MAX_LOOKED_AT = 10_000  # names looked at to find out whether a folder holds images


class ImageFolder:
    """Labelled image files; a `SampleSet` with `labels`."""

    def __init__(self, folder: Path, split: str) -> None:
        """Find every file; none is read yet.

        A label is the class's line in `classes.txt`, or the class's own name where all are whole numbers, or its place
        among the names of all splits in natural order.
        Raises: DataError for a split that is not there, or no image.
        """
        own, self.split = split_folder(folder, split)
        self.name = str(folder)
        places = [own] if own == folder else [path for path in _folders(folder) if path.name in _split_names()]
        order = class_order((path.name for place in places for path in _folders(place)), read_classes(folder))
        by_class = [(path.name, _images_below(path)) for path in _folders(own)]
        rounds = [
            (number, order.get(name, 0), name, file) for name, files in by_class for number, file in enumerate(files)
        ]
        rounds.sort(key=lambda entry: entry[:2])
        self._files, self._folder = tuple(file for *_, file in rounds), folder
        if not self._files:
            raise DataError(f"{own}: holds no images; expected folders of {_SUFFIX_TEXT} files, one a class")
        self.labels = labels_of([name for *_, name, _ in rounds], order, source=own)
        self.class_names = tuple(sorted(order, key=order.__getitem__))
        self.n_samples = len(self._files)

    def stored(self, index: int) -> StoredPicture:
        """Return one image's file with its class; see `StoresPictures`."""
        file = self._files[index]
        name = file.relative_to(self._folder).as_posix()
        return StoredPicture(id=name, data=read_file(file), name=file, target=int(self.labels[index]))

    def sample(self, index: int) -> Sample:
        """Return one image with its class. Raises: DataError for a file that is no whole image."""
        return self.stored(index).sample()


_SUFFIX_TEXT = "PNG or JPEG"


def _split_names() -> frozenset[str]:
    return frozenset(name for names in SPLIT_NAMES.values() for name in names)


def _folders(folder: Path) -> list[Path]:
    """Return the folders directly below one, in natural order, hidden ones left out."""
    try:
        found = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from error
    return sorted(found, key=lambda path: natural_key(path.name))


def _images_below(folder: Path) -> list[Path]:
    """Return all image files below a folder in natural order of their paths; links to folders are not followed."""
    found = [Path(place) / name for place, _, names in os.walk(folder) for name in names if is_image_name(name)]
    return sorted(found, key=lambda path: tuple(natural_key(part) for part in path.relative_to(folder).parts))


def _takes(path: Path) -> bool:
    """Tell whether a folder has folders with images, at most two levels down."""
    if not path.is_dir():
        return False
    looked = 0
    for place, folders, names in os.walk(path):
        depth = len(Path(place).relative_to(path).parts)
        if any(name in names for name in LISTS):
            return False
        if depth and any(map(is_image_name, names)):
            return True
        looked += len(names) + len(folders)
        if depth >= 2 or looked > MAX_LOOKED_AT:
            folders.clear()
    return False


def _open(request: OpenRequest) -> ImageFolder:
    return ImageFolder(request.path, request.split)


DATASETS = DatasetKind(
    takes_path=_takes,
    open_samples=_open,
    reads="a folder of image files by class",
    required_modules=("PIL",),
    install_hint="pip install 'nn-engine-harness[images]'",
)
