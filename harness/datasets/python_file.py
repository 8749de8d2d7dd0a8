"""A data set written in Python: `FILE.py:NAME`, a class or function that is called with the split.

It returns a `protocols.Dataset` or a `protocols.SampleSet`. The file is run: it is trusted as an extension folder is.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

from harness.datasets._kind import DatasetKind, OpenRequest
from harness.errors import DataError, HarnessError
from harness.protocols import Dataset, SampleSet

NAMED = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)\Z")


def open_python(path: Path, split: str) -> Any:
    """Return what a file's NAME gives for a split.

    Raises: DataError for a missing file or name, one that fails, or what is neither kind of set.
    """
    found = NAMED.match(str(path))
    if found is None:
        raise DataError(f"{path}: expected FILE.py:NAME")
    file, name = Path(found["file"]), found["name"]
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    # A name of its own: two files called data.py must not be one module.
    spec = importlib.util.spec_from_file_location(f"harness_data_{abs(hash(file.resolve()))}", file)
    if spec is None or spec.loader is None:
        raise DataError(f"{file}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        made = getattr(module, name)(split)
    except HarnessError:
        raise
    except Exception as error:
        raise DataError(
            f"{file}: {name}({split!r}) failed: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(made, Dataset | SampleSet):
        raise DataError(
            f"{file}: {name}({split!r}) is a {type(made).__name__}; expected a data set (read, n_images, ...) or a set "
            "of samples (sample, n_samples, ...), as harness.protocols has them"
        )
    return made


def _open(request: OpenRequest) -> Any:
    return open_python(request.path, request.split)


DATASETS = DatasetKind(
    takes_path=lambda path: NAMED.match(str(path)) is not None,
    open_samples=_open,
    reads="FILE.py:NAME, a data set in Python",
)
