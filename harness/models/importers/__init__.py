"""Importers, one file or folder each: a model of another framework becomes an ONNX file with a card.

A file of this folder, of `DIR/importers/` of an `--extension-dir DIR`, or an entry point of the group
`harness.importers` joins by offering `IMPORTER`. Every conversion runs in a process of its own.
"""

from __future__ import annotations

from harness.models.importers._importer import Imported, Importer, ImportRequest
from harness.options.discovery import Room

__all__ = ["ROOM", "ImportRequest", "Imported", "Importer", "find_importer", "list_importers"]

ROOM = Room("importers", noun="importer", package=__name__, path=__path__, offers="IMPORTER")


def list_importers() -> tuple[str, ...]:
    """Return the names of all importers, without importing any."""
    return ROOM.names()


def find_importer(name: str) -> Importer:
    """Return an importer. Raises: ConfigError for an unknown name or a file that cannot be used."""
    importer: Importer = ROOM.load(name)
    return importer
