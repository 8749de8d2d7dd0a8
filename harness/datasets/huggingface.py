"""A Hugging Face `Dataset` or `DatasetDict` that `save_to_disk` wrote. Nothing is downloaded, no code is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from harness.datasets._columns import Columns
from harness.datasets._kind import DatasetKind, OpenRequest
from harness.datasets._paths import SPLIT_NAMES, WHOLE
from harness.datasets._pictures import StoredPicture
from harness.datasets._ranges import check_range
from harness.errors import DataError, first_line
from harness.protocols import Sample

DICT_FILE, STATE_FILE = "dataset_dict.json", "state.json"


class StoredRows:
    """Rows of a saved data set; a `SampleSet`, with `labels` where the target is a whole number."""

    def __init__(self, path: Path, split: str) -> None:
        """Open it. Raises: DataError for a damaged one, a missing split, or one without inputs."""
        import datasets

        folder, self.split = _split_folder(path, split)
        self.name = str(path)
        try:
            loaded = datasets.load_from_disk(str(folder)).with_format(None)
            for column, feature in loaded.features.items():
                if isinstance(feature, datasets.Image):  # decoded here, within the limits that hold for every image
                    loaded = loaded.cast_column(column, datasets.Image(decode=False))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder}: not a saved data set ({first_line(error)})") from error
        self._rows: Any = loaded
        self._columns = Columns(loaded.features.arrow_schema, self.name)
        self.n_samples, self.class_names = len(loaded), self._columns.class_names
        if self._columns.class_column is not None:
            column = loaded.with_format("arrow")[:][self._columns.class_column]
            self.labels = self._columns.labels(np.asarray(column.to_numpy()))

    def sample(self, index: int) -> Sample:
        """Return one row. Raises: DataError past the end, for a damaged image, or missing numbers."""
        check_range(index, index + 1, name=self.name, split=self.split, n_images=self.n_samples)
        return self._columns.sample(self._rows[index], index)

    def stored(self, index: int) -> StoredPicture | None:
        """Return one row's picture as its file holds it; see `StoresPictures`."""
        check_range(index, index + 1, name=self.name, split=self.split, n_images=self.n_samples)
        return self._columns.stored(self._rows[index], index)


def _split_folder(path: Path, split: str) -> tuple[Path, str]:
    if not (path / DICT_FILE).is_file():
        return path, WHOLE
    for name in SPLIT_NAMES.get(split, (split,)):
        if (path / name / STATE_FILE).is_file():
            return path / name, split
    has = ", ".join(sorted(place.name for place in path.iterdir() if (place / STATE_FILE).is_file()))
    raise DataError(f"{path}: has no split {split!r}, only {has or 'none'}; choose with --split")


def _takes(path: Path) -> bool:
    return path.is_dir() and ((path / DICT_FILE).is_file() or (path / STATE_FILE).is_file())


def _open(request: OpenRequest) -> StoredRows:
    return StoredRows(request.path, request.split)


DATASETS = DatasetKind(
    takes_path=_takes,
    open_samples=_open,
    reads="Hugging Face data sets saved on disk",
    required_modules=("datasets",),
    install_hint="pip install 'nn-engine-harness[datasets]'",
)
