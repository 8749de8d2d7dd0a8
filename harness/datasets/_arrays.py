"""NPY and NPZ files, read without trusting them: no pickles, no size that the file does not have, no zip bomb."""

from __future__ import annotations

import math
import os
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, first_line
from harness.protocols import ONLY

MAX_RATIO = 100  # how often its own size an NPZ may inflate to, where that is more than MAX_SMALL_BYTES
MAX_SMALL_BYTES = 1 << 30
NPY = ".npy"
KINDS = "biuf"  # of numbers that a model takes; strings for ids and targets come beside them
TEXT = "SU"

Array = NDArray[np.generic]


def read_npy(path: Path) -> Array:
    """Return an NPY file's array, mapped read-only. Raises: DataError for another file, objects, or a wrong size."""
    try:
        with path.open("rb") as file:
            shape, is_fortran, dtype = _header(file, path)
            offset, found = file.tell(), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    declared = _n_bytes(shape, dtype, path)
    if offset + declared != found:
        raise DataError(f"{path}: its header says {offset + declared} bytes, it has {found}; write it again")
    if not declared:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", offset, shape, "F" if is_fortran else "C")


def read_npz(path: Path) -> dict[str, Array]:
    """Return the arrays of an NPZ file by name.

    Raises: DataError for another file, objects, an array whose header is not of the member's size, a damaged member,
    or a file that inflates to more than MAX_SMALL_BYTES and MAX_RATIO times its own size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(NPY)]
            if not members:
                raise DataError(f"{path}: holds no arrays; expected what numpy.savez writes")
            total, own = sum(info.file_size for info in members), path.stat().st_size
            if total > max(MAX_SMALL_BYTES, MAX_RATIO * own):
                raise DataError(
                    f"{path}: {own} bytes that inflate to {total}; at most {MAX_SMALL_BYTES}, or {MAX_RATIO} times "
                    "the file's size, are read"
                )
            return {info.filename[: -len(NPY)]: _member(archive, info, path) for info in members}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: not a whole NPZ file ({error})") from error


def arrays_of(path: Path) -> dict[str, Array]:
    """Return the arrays of an NPZ file by name, or an NPY file's as the ONLY one. Raises: DataError."""
    return {ONLY: read_npy(path)} if path.suffix.lower() == NPY else read_npz(path)


def check_numbers(array: Array, name: object) -> None:
    """Refuse what no model takes. Raises: DataError for other than numbers, and for NaN and Inf."""
    if array.dtype.kind not in KINDS:
        raise DataError(f"{name}: {array.dtype}; expected numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{name}: holds NaN or Inf")


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Array:
    where = f"{path}: {info.filename}"
    with archive.open(info) as file:
        shape, is_fortran, dtype = _header(file, where)
        declared, found = _n_bytes(shape, dtype, where), info.file_size - file.tell()
        if declared != found:
            raise DataError(f"{where}: its header says {declared} bytes, it has {found}; write it again")
        data = file.read()
    if len(data) != declared:
        raise DataError(f"{where}: ends after {len(data)} of {declared} bytes")
    array = np.frombuffer(data, dtype)
    return array.reshape(shape[::-1]).T if is_fortran else array.reshape(shape)


def _header(file: IO[bytes], name: object) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Return (shape, is in Fortran's order, dtype). Raises: DataError."""
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise DataError(f"{name}: NPY format {version}; expected 1.0 or 2.0, as numpy.save writes numbers")
        shape, is_fortran, dtype = read(file)
    except (ValueError, EOFError, SyntaxError, TypeError, tokenize.TokenError) as error:  # all of NumPy's
        raise DataError(f"{name}: not a whole NPY file ({first_line(error)})") from error
    if dtype.hasobject:
        raise DataError(f"{name}: holds Python objects, which are not read; save plain arrays")
    if dtype.kind not in KINDS + TEXT:
        raise DataError(f"{name}: {dtype}; expected numbers or text")
    return shape, is_fortran, dtype


def _n_bytes(shape: tuple[int, ...], dtype: np.dtype[np.generic], name: object) -> int:
    if any(size < 0 for size in shape):
        raise DataError(f"{name}: its header says shape {shape}")
    return math.prod(shape) * dtype.itemsize
