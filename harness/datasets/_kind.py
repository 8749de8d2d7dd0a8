"""What a file of this room offers: data sets by name, or found by a path."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import DataError
from harness.protocols import Dataset, Progress, SampleSet


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """A data set by name or path, and where its files lie."""

    name: str  # as it was asked for
    split: str
    data_dir: Path | None = None
    progress: Progress | None = None  # of a download [bytes]

    @property
    def path(self) -> Path:
        """Return the name as a path."""
        return Path(self.name)


def _no_path(path: Path) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetKind:
    """One kind of data; a file in harness/datasets/ offers it as DATASETS.

    `open` opens one of `names`, `open_path(path, split)` a path that `takes_path` answers for: labelled images of one
    size. `open_samples` opens either as samples; where those have `labels` (int64[N]) and images, a classifier is
    scored on them, too, and the kind needs no other opener. All raise DataError for data that are missing or damaged,
    with what to do.
    """

    names: tuple[str, ...] = ()
    open: Callable[[OpenRequest], Dataset] | None = None
    state: Callable[[str], str] = field(default=lambda name: "usable")  # of a name, for `harness doctor`
    takes_path: Callable[[Path], bool] = _no_path
    open_path: Callable[[Path, str], Dataset] | None = None
    open_samples: Callable[[OpenRequest], SampleSet] | None = None
    reads: str = ""  # what paths it takes, in words
    required_modules: tuple[str, ...] = ()
    install_hint: str = ""
    is_last: bool = False  # of the kinds that take a path: it takes what no other does

    def check_installed(self, path: object) -> None:
        """Refuse a path whose reader is not installed. Raises: DataError."""
        if missing := self._missing():
            raise DataError(f"{path}: reading it needs {missing}: {self.install_hint}")

    @property
    def readiness(self) -> str:
        """Return whether its paths can be read here, for `harness doctor`."""
        missing = self._missing()
        return f"needs {missing}: {self.install_hint}" if missing else "usable"

    def _missing(self) -> str:
        # A folder of a module's name in the working directory is found, too, as a namespace: it has no loader's file.
        specs = {name: importlib.util.find_spec(name) for name in self.required_modules}
        return " and ".join(name for name, spec in specs.items() if spec is None or spec.origin is None)
