"""A content-addressed store of files that are expensive to make: artifacts and engine plans.

An entry is found by the digest of everything that shaped it, and used only if its payload still has the digest it
was stored with. It knows nothing of what it holds.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from harness.errors import ConfigError

ENTRY_SCHEMA = 1
MAKER = "nn-engine-harness"  # written into every entry: a plan of another program is never loaded
CHUNK_BYTES = 1 << 20


def sha256_of_file(path: Path) -> str:
    """Return the hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def key_digest(key: Mapping[str, object]) -> str:
    """Return the hex sha256 of a key's canonical JSON; order of names does not matter."""
    return hashlib.sha256(msgspec.json.encode(dict(key), order="deterministic")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A stored payload and what was noted with it."""

    path: str
    sha256: str
    key: dict[str, object]
    meta: dict[str, str] = field(default_factory=dict)
    schema: int = ENTRY_SCHEMA
    maker: str = MAKER


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """`state` is hit, miss or damaged; a damaged entry has been removed and `reason` says what was wrong."""

    state: str
    entry: Entry | None = None
    reason: str = ""


class ContentCache:
    """Entries of one kind below `root`: `<root>/<kind>/<digest of the key>/{payload name, entry.json}`."""

    def __init__(self, root: str | Path, kind: str) -> None:
        self._folder = Path(root) / kind

    def lookup(self, key: Mapping[str, object]) -> Lookup:
        """Find the entry of a key and check its payload's digest."""
        folder = self._folder / key_digest(key)
        note = folder / "entry.json"
        if not note.exists():
            return Lookup(state="miss")
        reason = ""
        try:
            entry = msgspec.json.decode(note.read_bytes(), type=Entry)
        except (msgspec.DecodeError, OSError) as error:
            return self._drop(folder, f"{note}: {error}")
        payload = folder / entry.path
        if entry.maker != MAKER or entry.schema != ENTRY_SCHEMA:
            reason = f"{note}: written by {entry.maker}, schema {entry.schema}"
        elif key_digest(entry.key) != folder.name:
            reason = f"{note}: holds another key"
        elif not payload.is_file():
            reason = f"{payload}: missing"
        elif sha256_of_file(payload) != entry.sha256:
            reason = f"{payload}: its sha256 is not the one it was stored with"
        if reason:
            return self._drop(folder, reason)
        return Lookup(state="hit", entry=_at(entry, payload))

    def put(self, key: Mapping[str, object], payload: bytes | Path, *, name: str, meta: Mapping[str, str]) -> Entry:
        """Store a payload (bytes, or a file that is moved in) under a key, atomically, and return its entry.

        Raises: ConfigError when the cache folder cannot be written.
        """
        folder = self._folder / key_digest(key)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=self._folder))
            target = fresh / name
            if isinstance(payload, Path):
                shutil.move(payload, target)
            else:
                target.write_bytes(payload)
            entry = Entry(path=name, sha256=sha256_of_file(target), key=dict(key), meta=dict(meta))
            (fresh / "entry.json").write_bytes(msgspec.json.format(msgspec.json.encode(entry), indent=1))
            if folder.exists():
                shutil.rmtree(folder)
            try:
                os.replace(fresh, folder)
            except OSError:  # another process stored the same key between the two lines above
                shutil.rmtree(fresh, ignore_errors=True)
                if not (folder / "entry.json").exists():
                    raise
        except OSError as error:
            raise ConfigError(
                f"cache folder {self._folder} cannot be written ({error}); choose another with --engine-cache"
            ) from error
        return _at(entry, folder / name)

    def _drop(self, folder: Path, reason: str) -> Lookup:
        shutil.rmtree(folder, ignore_errors=True)
        return Lookup(state="damaged", reason=reason)


def _at(entry: Entry, payload: Path) -> Entry:
    return Entry(path=str(payload), sha256=entry.sha256, key=entry.key, meta=entry.meta)
