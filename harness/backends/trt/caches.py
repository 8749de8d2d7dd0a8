"""The caches of one build: plans, timings, calibration tables; what was damaged is remembered for the user."""

from __future__ import annotations

from pathlib import Path

from harness.specs import BuildOptions
from harness.store.cache import ContentCache


class PlanCaches:
    """The content caches below one folder, or none."""

    def __init__(self, options: BuildOptions) -> None:
        self._folder, self.rebuild = options.cache_dir, options.rebuild
        self.damaged: tuple[str, ...] = ()

    def of(self, kind: str) -> ContentCache | None:
        """Return a cache, None where nothing is kept."""
        return ContentCache(self._folder, kind=kind) if self._folder else None

    def stored(self, kind: str, key: dict[str, object], what: str) -> bytes | None:
        """Return what a cache holds of a key, or None; `what` names a damaged entry."""
        cache = self.of(kind)
        entry = cache.lookup(key) if cache is not None else None
        if entry is None or entry.entry is None:
            if entry is not None and entry.state == "damaged":
                self.damaged += (f"the stored {what} was damaged and is made anew: {entry.reason}",)
            return None
        return Path(entry.entry.path).read_bytes()

    def fresh(self, kind: str, key: dict[str, object], what: str) -> bytes | None:
        """Return what a cache holds of a key, unless all is built anew."""
        return None if self.rebuild else self.stored(kind, key, what)

    def put(self, kind: str, key: dict[str, object], data: bytes, *, name: str, built: str) -> None:
        """Store data where anything is kept; `built`: for what, for a reader."""
        cache = self.of(kind)
        if cache is not None:
            cache.put(key, data, name=name, meta={"built": built})
