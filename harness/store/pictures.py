"""Pictures as models are shown them, decoded and sized once, by the content of their file and what was made of it.

A file that does not hold what was written under its key is no picture, and a folder that others may write holds none:
what an engine is scored on must be what its data set holds. A process that begins where there are too many drops the
oldest; another that misses one decodes it again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.store.cache import make_own_folder

FOLDER = "pictures"  # below the cache
MAX_BYTES = 2 << 30  # of all pictures together
DIGEST_BYTES = 32
N_AXES = 3
HEAD_BYTES = DIGEST_BYTES + 8 * N_AXES


class PictureStore:
    """uint8[C, H, W] by keys; a folder that cannot be written or read, or that others may write, keeps nothing."""

    def __init__(self, cache_dir: Path, *, max_bytes: int = MAX_BYTES) -> None:
        """Make room where there is more than `max_bytes`."""
        self._folder, self._room, self._is_own = cache_dir / FOLDER, 0, False
        with suppress(OSError, ConfigError):
            make_own_folder(self._folder)
            self._is_own = True
            self._room = max_bytes - _bytes_after_trimming(self._folder, max_bytes)

    def find(self, key: str) -> NDArray[np.uint8] | None:
        """Return a picture, read-only; None where there is none, or a damaged one."""
        if not self._is_own:
            return None
        try:
            data = (self._folder / key).read_bytes()
        except OSError:
            return None
        if len(data) < HEAD_BYTES or _digest(key, memoryview(data)[DIGEST_BYTES:]) != data[:DIGEST_BYTES]:
            return None
        shape = np.frombuffer(data, "<i8", N_AXES, DIGEST_BYTES)
        return np.frombuffer(data, np.uint8, offset=HEAD_BYTES).reshape(shape)

    def keep(self, key: str, picture: NDArray[np.uint8]) -> None:
        """Keep uint8[C, H, W] where there is room."""
        if not self._is_own or picture.nbytes + HEAD_BYTES > self._room:
            return
        body = np.asarray(picture.shape, "<i8").tobytes() + np.ascontiguousarray(picture).tobytes()
        with suppress(OSError):
            handle, temporary = tempfile.mkstemp(prefix=".new-", dir=self._folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_digest(key, body) + body)
                os.replace(temporary, self._folder / key)
                self._room -= len(body) + DIGEST_BYTES
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise


def _digest(key: str, body: bytes | memoryview) -> bytes:
    """Return the digest of a picture under its key: a file that is given another's name is damaged."""
    found = hashlib.sha256(key.encode())
    found.update(body)
    return found.digest()


def _bytes_after_trimming(folder: Path, max_bytes: int) -> int:
    """Drop the oldest files until half of `max_bytes` is left where there is more; return what is there."""
    found = []
    for entry in os.scandir(folder):
        with suppress(OSError):
            found.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
    total = sum(size for _, size, _ in found)
    if total <= max_bytes:
        return total
    for _, size, path in sorted(found):
        if total <= max_bytes // 2:
            break
        with suppress(OSError):
            os.unlink(path)
            total -= size
    return total
