"""Our options beside those of other pytest plugins: a name that one of them holds is left to it, and ours has another.

Knows pytest's parser and plugin manager by their words alone. Tested with pytest 8.2 to 9.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.options.parsing import add_options

GROUP = ("harness", "inference engines: accuracy and latency")
ANOTHER = "another pytest plugin"


class SharedOptions:
    """Which of our flags another plugin holds: flag -> (the plugin, our other name). A pytest plugin of its own."""

    def __init__(self, taken: Mapping[str, tuple[str, str]]) -> None:
        self.taken = dict(taken)

    def pytest_configure(self, config: Any) -> None:
        """Let the command that repeats a case use the names that are ours."""
        config.option.harness_taken_flags = frozenset(self.taken)

    def lines(self, arguments: Sequence[str]) -> list[str]:
        """Return one line a name that is not ours, for a reader; `arguments`: what pytest was called with."""
        return [
            f"{flag} is an option of {holder} here; ours is {other}"
            + (f". What was typed as {flag} went to {holder}" if _is_typed(flag, arguments) else "")
            for flag, (holder, other) in self.taken.items()
        ]


def share_options(parser: Any, plugins: Any) -> None:
    """Add our options to pytest's parser, and register which names others hold.

    `plugins`: pytest's plugin manager.
    """
    rows = add_options(parser.getgroup(*GROUP).addoption, held=_held_names(parser))
    taken = {row.flag: (_holder_of(row.names, plugins), row.own_flag) for row in rows}
    plugins.register(SharedOptions(taken), "harness-shared-options")


def lines_of_taken(plugins: Any, arguments: Sequence[str]) -> list[str]:
    """Return one line a name of ours that another plugin holds."""
    shared = plugins.get_plugin("harness-shared-options")
    return shared.lines(arguments) if shared is not None else []


def is_brought_by_conftest(plugins: Any) -> bool:
    """Tell whether conftest files are being read already: whoever comes now comes after all installed plugins."""
    return any(Path(name).name == "conftest.py" for name, plugin in plugins.list_name_plugin() if plugin is not None)


def _held_names(parser: Any) -> frozenset[str]:
    # pytest has no public list of them: version 8 looks for clashes when it parses, 9 raises at once.
    groups = (*parser._groups, parser._anonymous)
    return frozenset(name for group in groups for option in group.options for name in option.names())


def _holder_of(flags: Collection[str], plugins: Any) -> str:
    """Return the name of the plugin that adds one of some options: the package's, or the plugin's own."""
    packages = {plugin: dist.project_name for plugin, dist in plugins.list_plugin_distinfo()}
    for name, plugin in plugins.list_name_plugin():
        adds = getattr(plugin, "pytest_addoption", None)
        if adds is not None and not _names_added(adds, plugins).isdisjoint(flags):
            return str(packages.get(plugin, name))
    return ANOTHER


def _names_added(adds: Callable[..., None], plugins: Any) -> set[str]:
    recorder = _Recorder()
    known = {"parser": recorder, "pluginmanager": plugins}
    try:
        adds(**{name: known[name] for name in inspect.signature(adds).parameters})
    except Exception:  # whatever it wanted of a parser: it stays without a name
        return set()
    return recorder.names


class _Recorder:
    """Stands for pytest's parser and its groups, and notes the names that are added."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def addoption(self, *names: str, **_: Any) -> None:
        self.names.update(names)

    _addoption = addoption

    def getgroup(self, *_: Any, **__: Any) -> _Recorder:
        return self

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def _is_typed(flag: str, arguments: Sequence[str]) -> bool:
    return any(word.partition("=")[0] == flag for word in arguments)
