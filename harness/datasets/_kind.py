"""What a file of this room offers: data sets by name, or found by a path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.protocols import Dataset, Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """A data set by name, and where its files lie."""

    name: str
    split: str
    data_dir: Path | None = None
    progress: Progress | None = None  # of a download [bytes]


def _no_path(path: Path) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetKind:
    """One kind of data; a file in harness/datasets/ offers it as DATASETS.

    `open` opens one of `names`, `open_path(path, split)` a path that `takes_path` answers for. Both raise DataError for
    data that are missing or damaged, with what to do.
    """

    names: tuple[str, ...] = ()
    open: Callable[[OpenRequest], Dataset] | None = None
    state: Callable[[str], str] = field(default=lambda name: "usable")  # of a name, for `harness doctor`
    takes_path: Callable[[Path], bool] = _no_path
    open_path: Callable[[Path, str], Dataset] | None = None
    is_last: bool = False  # of the kinds that take a path: it takes what no other does
