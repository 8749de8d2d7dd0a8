"""Baselines that no case of a full run uses any more."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from harness.records import Record
from harness.store.baselines import BaselineStore


def unused_baselines(
    store: BaselineStore, records: Iterable[Record], *, skipped_backends: Collection[str] = ()
) -> tuple[Path, ...]:
    """Return the files, of the devices and data sets of these records, that belong to none of their cases.

    `skipped_backends`: those that could not run there; their files are none of this run's business, nor are those of a
    precision that no record has. Raises: BaselineError for a damaged file.
    """
    measured = tuple(record for record in records if not record.is_reference)
    used = {path for record in measured for path in store.paths_of(record)}
    folders = {path.parent for path in used}
    precisions = {record.case.precision for record in measured}
    found = []
    for path in store.paths():
        if path.parent in folders and path not in used:
            case = store.read(path).case
            if case.backend not in skipped_backends and case.precision in precisions:
                found.append(path)
    return tuple(found)


def prune_baselines(
    store: BaselineStore, records: Iterable[Record], *, skipped_backends: Collection[str] = ()
) -> tuple[Path, ...]:
    """Delete unused files and return them."""
    unused = unused_baselines(store, records, skipped_backends=skipped_backends)
    for path in unused:
        path.unlink()
    return unused
