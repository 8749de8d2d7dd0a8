"""A content-addressed store of files that are expensive to make: artifacts and engine plans.

An entry is found by the digest of everything that shaped it, and used only if its note and its payload still have the
digests they were stored with. It knows nothing of what it holds. An engine plan is code: what another user owns or may
write, a link, and a path that leaves its entry are never used. One process at a time builds an entry.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from filelock import FileLock

from harness.errors import ConfigError
from harness.store.sealed import Damaged, check_digest, decoded, sealed, values_of

ENTRY_SCHEMA = 1
MAKER = "nn-engine-harness"  # written into every entry: a plan of another program is never loaded
CHUNK_BYTES = 1 << 20
NOTE = "entry.json"
FOLDER_MODE, NOTE_MODE = 0o700, 0o600  # of what the cache makes: its owner's alone
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


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

    @contextmanager
    def building(self, key: Mapping[str, object]) -> Iterator[None]:
        """Hold the right to build a key's entry: another process that wants it waits, looks it up and finds it.

        Where the cache cannot be written nobody can build, and nobody waits.
        """
        try:
            self._make_folder()
            lock = FileLock(self._folder / f".{key_digest(key)}.lock", mode=NOTE_MODE)
            lock.acquire()
        except (OSError, ConfigError):
            yield
            return
        try:
            yield
        finally:
            lock.release()

    def lookup(self, key: Mapping[str, object], *, needs: tuple[str, ...] = ()) -> Lookup:
        """Find the entry of a key and check it. `needs`: what its notes must hold, beside the payload."""
        folder = self._folder / key_digest(key)
        note = folder / NOTE
        if not os.path.lexists(note):
            return Lookup(state="miss")
        try:
            for place in (self._folder, folder, note):
                _check_owner(place)
            data = note.read_bytes()
            check_digest(values_of(data))
            entry = decoded(data, Entry)
            payload = self._checked(entry, folder, needs)
        except (Damaged, OSError) as error:
            return self._drop(folder, f"{note}: {error}")
        return Lookup(state="hit", entry=_at(entry, payload))

    def put(self, key: Mapping[str, object], payload: bytes | Path, *, name: str, meta: Mapping[str, str]) -> Entry:
        """Store a payload (bytes, or a file that is moved in) under a key, atomically, and return its entry.

        An entry that already holds the same payload stays, for others may be reading it.
        Raises: ConfigError when the cache folder cannot be written, or is another user's.
        """
        try:
            self._make_folder()
            fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=self._folder))  # of mode 0700
            try:
                return self._stored(fresh, key, payload, name=name, meta=meta)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)  # what is left of it, on a full disk too
        except OSError as error:
            raise ConfigError(
                f"cache folder {self._folder} cannot be written ({error}); choose another with --engine-cache"
            ) from error

    def drop(self, key: Mapping[str, object]) -> None:
        """Take the entry of a key away, where there is one that can be taken."""
        self._drop(self._folder / key_digest(key), "")

    def _stored(
        self, fresh: Path, key: Mapping[str, object], payload: bytes | Path, *, name: str, meta: Mapping[str, str]
    ) -> Entry:
        """Write an entry into a fresh folder and let that take its place. Raises: OSError."""
        folder, target = self._folder / key_digest(key), fresh / name
        if isinstance(payload, Path):
            shutil.move(payload, target)
        else:
            target.write_bytes(payload)
        target.chmod(NOTE_MODE)
        entry = Entry(path=name, sha256=sha256_of_file(target), key=dict(key), meta=dict(meta))
        found = self.lookup(key).entry
        if found is not None and (found.sha256, found.meta) == (entry.sha256, entry.meta):
            return found
        (fresh / NOTE).touch(NOTE_MODE)
        (fresh / NOTE).write_bytes(msgspec.json.format(sealed(msgspec.json.encode(entry)), indent=1))
        if folder.exists():
            shutil.rmtree(folder)
        try:
            os.replace(fresh, folder)
        except OSError:  # another process stored the same key between the two lines above
            if not (folder / NOTE).exists():
                raise
        return _at(entry, folder / name)

    def _make_folder(self) -> None:
        make_own_folder(self._folder)

    def _checked(self, entry: Entry, folder: Path, needs: tuple[str, ...]) -> Path:
        """Return where an entry's payload lies. Raises: Damaged for one that is not what was stored."""
        if entry.maker != MAKER or entry.schema != ENTRY_SCHEMA:
            raise Damaged(f"written by {entry.maker}, schema {entry.schema}")
        if key_digest(entry.key) != folder.name:
            raise Damaged("holds another key")
        missing = [name for name in needs if name not in entry.meta]
        if missing:
            raise Damaged(f"lacks {', '.join(missing)}")
        payload = folder / entry.path
        if payload.parent != folder or entry.path in ("", ".", "..", NOTE):
            raise Damaged(f"its payload {entry.path!r} lies outside its folder")
        if not os.path.lexists(payload):
            raise Damaged(f"{entry.path} is missing")
        _check_owner(payload)
        if sha256_of_file(payload) != entry.sha256:
            raise Damaged(f"the sha256 of {entry.path} is not the one it was stored with")
        return payload

    def _drop(self, folder: Path, reason: str) -> Lookup:
        if folder.is_symlink():
            folder.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        return Lookup(state="damaged", reason=reason)


def make_own_folder(folder: Path) -> None:
    """Make a folder of the cache that is its owner's alone, or check that one is: what lies in it is loaded as code.

    Raises: ConfigError for a link, and for one that another user owns or may write; OSError.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    try:
        _check_owner(folder)
    except Damaged as error:
        raise ConfigError(f"cache folder {folder}: {error}; choose another with --engine-cache") from error


def _check_owner(place: Path) -> None:
    """Refuse a link, and what another user owns or may write. Raises: Damaged; OSError."""
    found = place.lstat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise Damaged(f"{place.name} is a link or no file")
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        raise Damaged(f"{place.name} belongs to another user")
    if found.st_mode & OTHERS_WRITE:
        raise Damaged(f"others may write {place.name}")


def _at(entry: Entry, payload: Path) -> Entry:
    return Entry(path=str(payload), sha256=entry.sha256, key=entry.key, meta=entry.meta)
