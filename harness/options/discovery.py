"""Extensions: backends, data sets, recipes, gates, importers and tasks are files, and come from anywhere.

A room finds its own files, those in `DIR/<room>/` of every extension folder DIR, and what installed packages declare as
an entry point of the group `harness.<room>`. Names are known without importing anything; a file or folder with a
leading underscore is a helper, loadable by name and never listed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, HarnessError

FOLDERS = ("backends", "datasets", "gates", "importers", "recipes", "tasks")
_folders: list[Path] = []


def add_extension_dir(folder: str) -> None:
    """Let files below a folder join the rooms. Raises: ConfigError when it is none, or holds nothing for any room."""
    path = Path(folder).absolute()
    if not path.is_dir():
        raise ConfigError(f"--extension-dir={folder}: there is no such folder")
    if not any((path / name).is_dir() for name in FOLDERS):
        raise ConfigError(f"--extension-dir={folder}: it has none of the folders {', '.join(FOLDERS)}")
    if path not in _folders:
        _folders.append(path)


class Room:
    """The extensible files of one package: what they are called, and what each of them offers."""

    def __init__(self, folder: str, *, noun: str, package: str, path: list[str], offers: str) -> None:
        """Find files below a package.

        `folder`: one of FOLDERS, also the name of the entry-point group; `path`: the package's `__path__`, to which
        extension folders are added; `offers`: the attribute of a module; `noun`: what one of them is, for messages.
        """
        self.folder, self._noun, self._package, self._path, self._offers = folder, noun, package, path, offers
        self._own = path[0]
        self._loaded: dict[str, Any] = {}

    def names(self) -> tuple[str, ...]:
        """Return the names of all that is offered, sorted, without importing it; `_` in a file's name reads `-`.

        Raises: ConfigError when two files or packages offer the same name.
        """
        return tuple(sorted(self._sources()))

    def is_own(self, name: str) -> bool:
        """Tell whether a name is of a file of the package itself, which may be imported anywhere."""
        return self._sources().get(name) == self._own

    def load(self, name: str) -> Any:
        """Return what one name offers. Raises: ConfigError for an unknown name or a file that cannot be used."""
        if name not in self._loaded:
            points = self._entry_points()
            if name in points and name not in dict(self._files()):
                self._loaded[name] = self._from_entry_point(name, points[name])
            else:
                self._loaded[name] = self._from_module(name)
        return self._loaded[name]

    def load_all(self) -> dict[str, Any]:
        """Return name -> what it offers, of all there are. Raises: ConfigError for the first that cannot be used."""
        return {name: self.load(name) for name in self.names()}

    def _sources(self) -> dict[str, str]:
        found: dict[str, str] = {}
        points = ((name, f"the package {_package_of(point)}") for name, point in self._entry_points().items())
        for name, source in (*self._files(), *points):
            if name in found:
                raise ConfigError(f"two {self.folder} are called {name}: one of {found[name]}, one of {source}")
            found[name] = source
        return found

    def _files(self) -> Iterator[tuple[str, str]]:
        for folder in _folders:
            place = str(folder / self.folder)
            if place not in self._path and Path(place).is_dir():
                self._path.append(place)
        for place in self._path:
            for module in pkgutil.iter_modules([place]):
                if not module.name.startswith("_"):
                    yield module.name.replace("_", "-"), place

    def _entry_points(self) -> dict[str, importlib.metadata.EntryPoint]:
        return _entry_points(f"harness.{self.folder}")

    def _from_module(self, name: str) -> Any:
        listed = self.names()
        module = name.replace("-", "_")
        if name not in listed:
            if name.startswith("_") or importlib.util.find_spec(f"{self._package}._{module}") is None:
                raise ConfigError(f"no {self._noun} is called {name!r}; there are: {', '.join(listed)}")
            module = f"_{module}"
        return self._offered(f"{self._package}.{module}", lambda: importlib.import_module(f"{self._package}.{module}"))

    def _from_entry_point(self, name: str, point: importlib.metadata.EntryPoint) -> Any:
        return self._offered(f"{name} of the package {_package_of(point)}", point.load)

    def _offered(self, what: str, load: Callable[[], Any]) -> Any:
        try:
            loaded = load()
        except HarnessError:
            raise
        except Exception as error:
            raise ConfigError(f"{what} cannot be imported: {type(error).__name__}: {error}") from error
        if isinstance(loaded, type(importlib)):
            if not hasattr(loaded, self._offers):
                raise ConfigError(f"{loaded.__file__} offers no {self._offers}")
            return getattr(loaded, self._offers)
        return loaded


@functools.cache  # each look reads the metadata of every installed package
def _entry_points(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=group)}


def _package_of(point: importlib.metadata.EntryPoint) -> str:
    return point.dist.name if point.dist else point.value
