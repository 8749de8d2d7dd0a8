"""Parquet files: images with their classes, or numbers in columns called as a model's inputs.

A file, or a folder of files, as `train-00000-of-00002.parquet` in it or in its `data/`; read a row group at a time.
"""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.datasets._columns import Columns
from harness.datasets._kind import DatasetKind, OpenRequest
from harness.datasets._paths import SPLIT_NAMES, WHOLE, natural_key
from harness.datasets._pictures import StoredPicture
from harness.datasets._ranges import check_range
from harness.errors import DataError, first_line
from harness.protocols import Sample

if TYPE_CHECKING:
    import pyarrow

SUFFIX = ".parquet"
MAX_GROUP_BYTES = 4 << 30  # of one row group, inflated


class ParquetSamples:
    """Rows of Parquet files of one schema; a `SampleSet`, with `labels` where the target is a whole number."""

    def __init__(self, files: list[Path], name: str, split: str) -> None:
        """Read schemas and classes. Raises: DataError for a damaged file, or files of unlike columns."""
        import pyarrow
        from pyarrow import parquet

        self.name, self.split = name, split
        self._groups: list[tuple[Path, int, int]] = []  # (file, row group, first row)
        n_rows, schema, labels = 0, None, []
        for path in files:
            try:
                file = parquet.ParquetFile(path)
                if schema is None:
                    schema = file.schema_arrow
                    self._columns = Columns(schema, str(path))
                if file.schema_arrow.names != schema.names:
                    raise DataError(f"{path}: has columns other than {files[0]}")
                if self._columns.class_column is not None:
                    column = file.read([self._columns.class_column]).column(0)
                    labels.append(self._columns.labels(column.to_numpy()))
                for group in range(file.num_row_groups):
                    found = file.metadata.row_group(group)
                    if found.total_byte_size > MAX_GROUP_BYTES:
                        size = found.total_byte_size
                        raise DataError(f"{path}: a row group of {size} bytes; at most {MAX_GROUP_BYTES} are read")
                    self._groups.append((path, group, n_rows))
                    n_rows += found.num_rows
            except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
                raise DataError(f"{path}: not a whole Parquet file ({first_line(error)})") from error
        self.n_samples, self.class_names = n_rows, self._columns.class_names
        if labels:
            self.labels = np.concatenate(labels)
        self._last: tuple[int, pyarrow.Table] | None = None

    def sample(self, index: int) -> Sample:
        """Return one row. Raises: DataError past the end, for a damaged file or image, or missing numbers."""
        return self._columns.sample(self._row(index), index)

    def stored(self, index: int) -> StoredPicture | None:
        """Return one row's picture as its file holds it; see `StoresPictures`."""
        return self._columns.stored(self._row(index), index)

    def _row(self, index: int) -> dict[str, object]:
        check_range(index, index + 1, name=self.name, split=self.split, n_images=self.n_samples)
        number = bisect_right(self._groups, index, key=lambda group: group[2]) - 1
        row = index - self._groups[number][2]
        table = self._table(number)
        try:
            return {name: table.column(name)[row].as_py() for name in self._columns.read}
        except UnicodeDecodeError as error:
            raise DataError(f"{self.name}: row {index} holds a text that is none ({first_line(error)})") from error

    def _table(self, number: int) -> pyarrow.Table:
        import pyarrow
        from pyarrow import parquet

        last = self._last  # once: threads read side by side
        if last is not None and last[0] == number:
            return last[1]
        path, group, _ = self._groups[number]
        try:
            table = parquet.ParquetFile(path).read_row_group(group, self._columns.read)
        except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
            raise DataError(f"{path}: row group {group} is damaged ({first_line(error)})") from error
        self._last = number, table
        return table


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = [file for place in (path, path / "data") for file in place.glob(f"*{SUFFIX}")]
    return sorted(found, key=lambda file: natural_key(file.name))


def _of_split(files: list[Path], split: str, name: str) -> tuple[list[Path], str]:
    """Return the files of a split, told by how their names begin; all of them where no name tells one."""
    by_split = {
        own: [file for file in files if any(file.name == f"{n}{SUFFIX}" or _begins(file, n) for n in names)]
        for own, names in SPLIT_NAMES.items()
    }
    if not any(by_split.values()):
        return files, WHOLE
    if not by_split.get(split):
        has = ", ".join(own for own, found in by_split.items() if found)
        raise DataError(f"{name}: has no split {split!r}, only {has}; choose with --split and --calibration-split")
    return by_split[split], split


def _begins(file: Path, name: str) -> bool:
    return file.name.partition("-")[0] == name


def _open(request: OpenRequest) -> ParquetSamples:
    files, split = _of_split(_files_of(request.path), request.split, request.name)
    if request.path.is_file():
        files, split = [request.path], split if len(files) == 1 else WHOLE
    return ParquetSamples(files, request.name, split)


def _takes(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX if path.is_file() else path.is_dir() and bool(_files_of(path))


DATASETS = DatasetKind(
    takes_path=_takes,
    open_samples=_open,
    reads="Parquet files",
    required_modules=("pyarrow",),
    install_hint="pip install 'nn-engine-harness[parquet]'",
)
