"""Fetches published data set files into the user's cache, pinned by sha256. Knows no file format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import platformdirs

from harness.errors import DataError, first_line
from harness.protocols import Progress
from harness.store.cache import MAKER

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A published file: its mirrors in order of trial, its sha256, and the member of a zip archive it lies in."""

    urls: tuple[str, ...]
    sha256: str
    member: str = ""  # path inside the archive, when the URL is one


def cache_root() -> Path:
    """Return the harness's folder in the user's cache."""
    return Path(platformdirs.user_cache_dir(MAKER))


class _PoochProgress:
    """What pooch expects of a progress bar, passed on to a `Progress`."""

    def __init__(self, progress: Progress) -> None:
        self.total = 0
        self._done, self._progress = 0, progress

    def update(self, n_bytes: int) -> None:
        self._done += n_bytes
        self._progress(self._done, self.total)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        self._progress(self.total, self.total)


def fetch(file: RemoteFile, *, folder: Path, progress: Progress | None = None) -> Path:
    """Return the local copy of a file, downloading it when absent; a wrong sha256 is never kept.

    Raises: DataError when no mirror answers, or what came has another sha256.
    """
    # Only here: it costs 0.2 s to import, and most runs download nothing.
    import pooch  # type: ignore[import-untyped]

    pooch.get_logger().setLevel("ERROR")
    reasons = []
    for url in file.urls:
        bar = _PoochProgress(progress) if progress else False
        try:
            found = pooch.retrieve(
                url,
                f"sha256:{file.sha256}",
                fname=url.rpartition("/")[2],
                path=folder,
                downloader=pooch.HTTPDownloader(progressbar=bar, timeout=TIMEOUT_S),
                processor=pooch.Unzip(members=[file.member], extract_dir=".") if file.member else None,
            )
        except PermissionError as error:
            raise DataError(
                f"{folder} cannot be written ({error.strerror}); set XDG_CACHE_HOME to one that can"
            ) from error
        except OSError as error:  # requests' exceptions are OSErrors; their text runs over many lines
            reasons.append(f"{url}: {type(error).__name__}")
        except ValueError as error:  # pooch's answer to a wrong hash
            reasons.append(f"{url}: what came is not the published file ({first_line(error)})")
        else:
            return Path(found[0] if isinstance(found, list) else found)
    raise DataError("; ".join(reasons))
