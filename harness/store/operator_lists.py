"""Lists of what backends make of nets of one operator each: of a run, and those that were accepted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from harness.errors import DataError
from harness.records import OperatorOutcome
from harness.store.runs import write_atomically
from harness.store.sealed import Damaged, check_digest, decoded, sealed, values_of


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorList:
    """What a backend made of every net; the form of the files."""

    cell: str
    versions: dict[str, str]
    outcomes: tuple[OperatorOutcome, ...]


def read_list(path: Path) -> OperatorList:
    """Return a list that was written. Raises: DataError for one that is damaged."""
    try:
        data = path.read_bytes()
        check_digest(values_of(data))
        return decoded(data, OperatorList)
    except (OSError, Damaged) as error:
        raise DataError(f"{path}: is no list of operators ({error}); accept one anew") from error


def write_list(path: Path, found: OperatorList) -> None:
    """Write a list with its digest. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.format(sealed(msgspec.json.encode(found)), indent=1))


def read_lists(folder: Path) -> dict[str, OperatorList]:
    """Return the lists that lie in a folder, by their cells; {} where none do. Raises: DataError for a damaged one."""
    found = [read_list(path) for path in sorted(folder.glob("*.json"))]
    return {one.cell: one for one in found}
