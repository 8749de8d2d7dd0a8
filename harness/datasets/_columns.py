"""Rows of an Arrow table -> samples: which column holds images, which the target, which are inputs by their name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.datasets._arrays import check_numbers
from harness.datasets._pictures import StoredPicture
from harness.errors import DataError
from harness.protocols import Sample

if TYPE_CHECKING:
    import pyarrow

IMAGE_COLUMNS = ("image", "img", "images")
TARGET_COLUMNS = ("label", "labels", "target", "targets", "y", "text")
METADATA = b"huggingface"  # where `datasets` keeps the names of classes, in Parquet, too


class Columns:
    """What the columns of a table are."""

    def __init__(self, schema: pyarrow.Schema, name: str) -> None:
        """Find image, target and inputs. Raises: DataError for a table without inputs."""
        import pyarrow

        self._name = name
        self.image = next((c for c in IMAGE_COLUMNS if c in schema.names and _holds_files(schema.field(c).type)), None)
        self.target = next((c for c in TARGET_COLUMNS if c in schema.names), None)
        self._inputs = {
            field.name: dtype
            for field in schema
            if field.name not in (self.image, self.target) and (dtype := _dtype_of(field.type)) is not None
        }
        if self.image is None and not self._inputs:
            raise DataError(
                f"{name}: has {', '.join(schema.names)}; expected a column `image` with files, or numbers in columns "
                "called as the model's inputs"
            )
        has_classes = self.target is not None and pyarrow.types.is_integer(schema.field(self.target).type)
        self.class_column = self.target if has_classes else None
        self.class_names = _class_names(schema, self.target) if has_classes else ()

    @property
    def read(self) -> list[str]:
        """Return the columns that samples are made of."""
        return [*filter(None, (self.image, self.target)), *self._inputs]

    def labels(self, values: NDArray[np.generic]) -> NDArray[np.int64]:
        """Return int64[N] of the class column. Raises: DataError for a row without a class."""
        if values.dtype.kind not in "iu":  # Arrow gives floats where a value is missing
            raise DataError(f"{self._name}: column {self.class_column} has rows without a class")
        return values.astype(np.int64)

    def sample(self, row: Mapping[str, object], index: int) -> Sample:
        """Return a row as a sample. Raises: DataError for a damaged image, ragged or missing numbers."""
        stored = self.stored(row, index)
        if stored is not None:
            return stored.sample()
        where = f"{self._name}: row {index}"
        inputs: dict[str, NDArray[np.generic]] = {}
        for column, dtype in self._inputs.items():
            try:
                inputs[column] = np.asarray(row[column], dtype)
            except (ValueError, TypeError) as error:
                raise DataError(f"{where}: {column} has no value, or rows of unlike lengths") from error
            check_numbers(inputs[column], f"{where}: {column}")
        return Sample(id=str(index), inputs=inputs, target=self._target_of(row))

    def stored(self, row: Mapping[str, object], index: int) -> StoredPicture | None:
        """Return a row's picture as its file holds it, None where rows have none. Raises: DataError."""
        if self.image is None:
            return None
        where = f"{self._name}: row {index}"
        return StoredPicture(
            id=str(index), data=_file_of(row[self.image], where), name=where, target=self._target_of(row)
        )

    def _target_of(self, row: Mapping[str, object]) -> object:
        target = None if self.target is None else row[self.target]
        return np.asarray(target) if isinstance(target, list) else target


def _file_of(value: object, where: str) -> bytes:
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise DataError(f"{where}: the image's file is not in the table; embed images when it is written")
    return data


def _holds_files(kind: pyarrow.DataType) -> bool:
    """Tell whether a column is of encoded images: binary, or a struct with `bytes`, as `datasets` writes them."""
    import pyarrow

    if pyarrow.types.is_struct(kind):
        return any(kind.field(index).name == "bytes" for index in range(kind.num_fields))
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _dtype_of(kind: pyarrow.DataType) -> np.dtype[np.generic] | None:
    """Return the type of numbers in a column, None for one that holds others."""
    import pyarrow

    if isinstance(kind, pyarrow.ExtensionType):
        kind = kind.storage_type
    while pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind):
        kind = kind.value_type
    is_number = pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind)
    return np.dtype(kind.to_pandas_dtype()) if is_number else None


def _class_names(schema: pyarrow.Schema, target: str | None) -> tuple[str, ...]:
    try:
        feature = json.loads((schema.metadata or {})[METADATA])["info"]["features"][target]
        return tuple(map(str, feature.get("names", ())))
    except (KeyError, ValueError, TypeError, AttributeError):
        return ()
