"""The IDX file format: one array, raw or gzip, read without trusting its header.

A raw file is memory-mapped. A gzip file is inflated once into the user's cache, never past the size its header
declares, and mapped from there. Knows nothing of images and labels.
Source: LeCun, Cortes and Burges, The MNIST database, "The IDX file format".
"""

from __future__ import annotations

import gzip
import math
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.store.cache import sha256_of_file

ELEMENT_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_DIMENSIONS = 8  # no data set of images needs more; a larger count means another kind of file
GZIP_MAGIC = b"\x1f\x8b"
DEFLATE_MAX_RATIO = 1032  # no deflate stream grows more; source: zlib, "Technical Details"
CHUNK_BYTES = 1 << 20


class IdxFile:
    """An array in an IDX file; rows are read when asked."""

    def __init__(self, path: Path, *, cache_dir: Path) -> None:
        """Open and check a file.

        Raises: DataError when it is missing, no IDX file, shorter or longer than its header says, or damaged.
        """
        self.path = path
        try:
            if is_gzip(path):
                self._map, self.dtype, self.shape, self._offset = _map_gzip(path, cache_dir)
            else:
                self._map, self.dtype, self.shape, self._offset = _map_raw(path, path)
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error

    def rows(self, first: int, stop: int) -> NDArray[np.generic]:
        """Return a fresh copy of rows first..stop-1 in native byte order; the range must exist."""
        row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        start, n_bytes = self._offset + first * row_bytes, (stop - first) * row_bytes
        rows = np.frombuffer(self._map, self.dtype, n_bytes // self.dtype.itemsize, start)
        copy = rows.reshape(stop - first, *self.shape[1:]).astype(self.dtype.newbyteorder("="))
        if hasattr(mmap, "MADV_DONTNEED"):
            # Pages once read would count as this process's memory until it ends, however long the file.
            page = start // mmap.PAGESIZE * mmap.PAGESIZE
            del rows
            self._map.madvise(mmap.MADV_DONTNEED, page, start + n_bytes - page)
        return copy


def is_gzip(path: Path) -> bool:
    """Tell whether a file starts like a gzip file; its name does not matter."""
    with path.open("rb") as file:
        return file.read(2) == GZIP_MAGIC


def write_idx(path: Path, array: NDArray[np.generic]) -> None:
    """Write an array (uint8, int8, int16, int32, float32, float64) as IDX; a name ending in .gz is compressed."""
    codes = {np.dtype(name).newbyteorder("="): code for code, name in ELEMENT_TYPES.items()}
    code = codes.get(array.dtype.newbyteorder("="))
    if code is None:
        raise DataError(f"{path}: IDX has no element type for {array.dtype}")
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    content = header + array.astype(ELEMENT_TYPES[code]).tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _read_header(file: IO[bytes] | gzip.GzipFile, path: Path) -> tuple[np.dtype[np.generic], tuple[int, ...], int]:
    """Return dtype, shape and the header's length [bytes]."""
    magic = file.read(4)
    if len(magic) < 4:
        raise DataError(f"{path}: {len(magic)} bytes are no IDX file; expected at least a header of 8")
    zero, code, n_dimensions = struct.unpack(">HBB", magic)
    if zero != 0 or code not in ELEMENT_TYPES or not 1 <= n_dimensions <= MAX_DIMENSIONS:
        raise DataError(
            f"{path}: wrong magic number 0x{magic.hex()}; expected an IDX file such as 0x00000803 (images) "
            "or 0x00000801 (labels)"
        )
    sizes = file.read(4 * n_dimensions)
    if len(sizes) < 4 * n_dimensions:
        raise DataError(f"{path}: ends within its header; fetch it again")
    return np.dtype(ELEMENT_TYPES[code]), struct.unpack(f">{n_dimensions}I", sizes), 4 + 4 * n_dimensions


def _declared_bytes(dtype: np.dtype[np.generic], shape: tuple[int, ...], offset: int) -> int:
    return offset + dtype.itemsize * math.prod(shape)  # Python's whole numbers: no overflow to exploit


def _size_error(path: Path, shape: tuple[int, ...], declared: int, found: str) -> DataError:
    dimensions = " x ".join(map(str, shape))
    return DataError(
        f"{path}: its header says {dimensions}, {declared} bytes in all, but {found}; fetch the file again"
    )


def _map_raw(content: Path, path: Path) -> tuple[mmap.mmap, np.dtype[np.generic], tuple[int, ...], int]:
    """Map `content`; `path` is the file the user knows."""
    with content.open("rb") as file:
        dtype, shape, offset = _read_header(file, path)
        declared, found = _declared_bytes(dtype, shape, offset), os.fstat(file.fileno()).st_size
        if declared != found:
            raise _size_error(path, shape, declared, f"it has {found}")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype, shape, offset


def _map_gzip(path: Path, cache_dir: Path) -> tuple[mmap.mmap, np.dtype[np.generic], tuple[int, ...], int]:
    digest = sha256_of_file(path)
    for known in cache_dir.glob(f"{digest}-*.idx"):
        if known.stem.rpartition("-")[2] == f"{_crc32(known):08x}":
            return _map_raw(known, path)
        known.unlink(missing_ok=True)
    return _map_raw(_inflate(path, digest, cache_dir), path)


def _crc32(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            total = zlib.crc32(chunk, total)
    return total


def _inflate(path: Path, digest: str, cache_dir: Path) -> Path:
    """Inflate a file into the cache, whole or not at all, and return where it is."""
    with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as file:
        try:
            dtype, shape, offset = _read_header(file, path)
            declared = _declared_bytes(dtype, shape, offset)
            packed_bytes = path.stat().st_size
            if declared > packed_bytes * DEFLATE_MAX_RATIO:
                raise _size_error(path, shape, declared, f"{packed_bytes} gzip bytes cannot hold that much")
            file.rewind()
            with _fresh_file(path, cache_dir) as fresh:
                n_bytes, crc32 = _copy_at_most(file, fresh, declared + 1)
                if n_bytes != declared:
                    found = "more follow" if n_bytes > declared else f"it holds {n_bytes}"
                    raise _size_error(path, shape, declared, found)
                stored = cache_dir / f"{digest}-{crc32:08x}.idx"
                os.replace(fresh, stored)
                return stored
        except EOFError as error:
            raise DataError(f"{path}: the gzip stream is cut short; fetch the file again") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path}: the gzip stream is damaged ({error}); fetch the file again") from error


@contextmanager
def _fresh_file(path: Path, cache_dir: Path) -> Iterator[Path]:
    """Give a new file in the cache, removed at the end if it is still there."""
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".new-", dir=cache_dir)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be unpacked into {cache_dir} ({error.strerror}); unpack it yourself with gunzip, "
            "or set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _copy_at_most(file: gzip.GzipFile, target: Path, limit: int) -> tuple[int, int]:
    """Copy at most `limit` bytes and return how many came, and their CRC-32.

    A limit one past the declared size tells a longer stream from an exact one without inflating a bomb.
    """
    n_bytes, crc32 = 0, 0
    with target.open("wb") as out:
        while n_bytes < limit and (chunk := file.read(min(CHUNK_BYTES, limit - n_bytes))):
            out.write(chunk)
            n_bytes, crc32 = n_bytes + len(chunk), zlib.crc32(chunk, crc32)
    return n_bytes, crc32
