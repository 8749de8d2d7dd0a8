"""UFF: refused, with the way round. It was TensorRT's format for TensorFlow; no parser of it is left."""

from __future__ import annotations

from harness.errors import DataError
from harness.models.importers._importer import Imported, Importer, ImportRequest


def convert(request: ImportRequest) -> Imported:
    """Refuse. Raises: DataError, always."""
    raise DataError(
        f"{request.sources[0]}: UFF cannot be imported, its parser went with TensorRT 8; import what it was made from: "
        "the frozen graph with `harness import tf`, or the Keras model with `harness import keras`"
    )


IMPORTER = Importer(
    name="uff",
    summary="refused, with the way round: the file that it was made from",
    takes="MODEL.uff",
    convert=convert,
)
