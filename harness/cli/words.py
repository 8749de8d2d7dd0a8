"""The options of a run, taken from the command line of a command that is no pytest."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import NoReturn

from harness.errors import ConfigError
from harness.options.parsing import add_options, options_from_namespace
from harness.options.table import all_rows
from harness.options.values import HarnessOptions


def options_of_words(words: list[str], *, root: Path, meaningless: Collection[str], where: str) -> HarnessOptions:
    """Return the options of a run from words of a command line, harness.toml and the defaults.

    `meaningless`: fields that mean nothing `where` they were typed. Raises: ConfigError for such a word, or for one
    that is no option.
    """
    names, options = names_and_options(words, root=root, meaningless=meaningless, where=where)
    if names:
        raise _unknown(names[0])
    return options


def names_and_options(
    words: list[str], *, root: Path, meaningless: Collection[str], where: str
) -> tuple[list[str], HarnessOptions]:
    """Return the words that are no options, in order, and the options as `options_of_words`. Raises: as that."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    add_options(parser.add_argument)
    typed, others = parser.parse_known_args(words)
    unknown = [word for word in others if word.startswith("-")]
    if unknown:
        raise _unknown(unknown[0])
    for row in all_rows():
        if not row.group and row.field in meaningless and getattr(typed, row.dest, None) is not None:
            raise ConfigError(f"{row.flag} means nothing {where}; leave it out")
    return others, options_from_namespace(typed, root=root)


def _unknown(word: str) -> ConfigError:
    return ConfigError(f"{word}: no option of a run; docs/options.md has them")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        """Raise an error of argparse's as a wrong request."""
        raise ConfigError(message)
