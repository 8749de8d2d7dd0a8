"""What was typed, and `[run]` of harness.toml, become `HarnessOptions`. Knows argparse's words, not pytest."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.options.file import read_settings, table_of
from harness.options.names import check_name
from harness.options.rows import PATH, Option
from harness.options.table import all_rows, default_in_words, default_of
from harness.options.values import NAMED, HarnessOptions, data_request
from harness.specs import InputsAsked, TimingPlan

Values = dict[str, Any]  # flag -> value


def add_options(add: Callable[..., Any], *, held: Collection[str] = ()) -> list[Option]:
    """Define every option with argparse's words; `add` is `addoption` of pytest's group.

    Each has a second name that nobody else takes. Where the flag is `held` by somebody else it has only that: those are
    returned. What is not given is None: harness.toml and the defaults come later.
    """
    taken: list[Option] = []
    for row in all_rows():
        flags = [row.flag, row.own_flag]
        if not row.names.isdisjoint(held):
            taken.append(row)
            flags = [row.own_flag]
        for number, flag in enumerate(flags):
            text = argparse.SUPPRESS if number else help_of(row).replace("%", "%%")
            given: dict[str, Any] = {"dest": row.dest, "default": None, "help": text}
            if row.is_switch:
                add(flag, action=argparse.BooleanOptionalAction, **given)
            else:
                add(flag, action="append" if row.repeated else "store", metavar=metavar_of(row), **given)
    return taken


def help_of(row: Option) -> str:
    """Return a row's help with its unit, how it may be given, and its default."""
    unit = f" [{row.unit}]" if row.unit else ""
    known = f": {', '.join(row.choices)}" if row.choices and row.listed else ""
    ways = {(True, True): "; comma list or repeated", (True, False): "; comma list", (False, True): "; repeatable"}
    return f"{row.help}{known}{unit}{ways.get((row.listed, row.repeated), '')} (default: {default_in_words(row)})"


def metavar_of(row: Option) -> str:
    """Return what stands for the value in the help."""
    return row.metavar or ("|".join(row.choices) if row.choices and not row.listed else row.kind.metavar)


def options_from_namespace(
    o: Any, *, root: Path, planned: Mapping[str, Any] | None = None, source: str = ""
) -> HarnessOptions:
    """Turn parsed options into ours: the command line, then `[run]` of the folder's settings, then the defaults.

    `root`: the folder of harness.toml or pyproject.toml; `planned`: a table like `[run]` that goes before the folder's,
    and `source`, what it is called in messages. Raises: ConfigError, one line, for an unknown name, a value of another
    kind, or a contradiction.
    """
    typed = _values_of_namespace(o, root)
    file = read_settings(root)
    in_file = _values_of_table(file.table.get("run", {}), f"{file.source} [run]", root)
    in_file |= _values_of_table(planned or {}, source, root)
    values = {**in_file, **typed}
    if getattr(o, "strict", False):  # pytest's own
        values["--strict-verdicts"] = True
    return _options_of(
        values, root=root, set_in_file=frozenset(in_file), taken_flags=getattr(o, "harness_taken_flags", frozenset())
    )


def _options_of(
    values: Values, *, root: Path, set_in_file: frozenset[str], taken_flags: frozenset[str]
) -> HarnessOptions:
    parts: dict[str, dict[str, Any]] = {"": {}, "inputs": {}, "data": {}, "timing": {}}
    settings: dict[str, dict[str, object]] = {}
    for row in all_rows():
        value = values.get(row.flag, default_of(row, str(root)))
        if row.group:
            if value != default_of(row):
                settings.setdefault(row.group, {})[row.field] = value
        elif row.flag in values or row.place == "root":
            part, _, name = row.field.rpartition(".")
            parts[part][name] = value
    return HarnessOptions(
        **parts[""],
        inputs=InputsAsked(**parts["inputs"]),
        data=data_request(**parts["data"]),
        named=frozenset(row.field for row in all_rows() if row.field in NAMED and row.flag in values),
        timing=TimingPlan(**parts["timing"]),
        settings=settings,
        root=str(root),
        set_in_file=set_in_file,
        taken_flags=taken_flags,
    )


def _values_of_namespace(o: Any, root: Path) -> Values:
    values: Values = {}
    for row in all_rows():
        given = getattr(o, row.dest, None)
        if given is None:
            continue
        texts = given if isinstance(given, list) else [given]
        values[row.flag] = given if row.is_switch else typed_value(row, texts, root)
    return values


def typed_value(row: Option, texts: Sequence[str], root: Path) -> Any:
    """Return the value of an option's texts as they were typed. Raises: ConfigError that names the flag."""
    return _value_of_texts(row, texts, where=f"{row.flag}=", base=Path.cwd(), root=root)


def shaping_flags(o: Any) -> list[str]:
    """Return the flags that were typed and decide which cases there are, or how one is measured and judged."""
    return [row.flag for row in all_rows() if row.role != "run" and getattr(o, row.dest, None) is not None]


def _values_of_table(table: object, source: str, root: Path) -> Values:
    known = {row.key: row for row in all_rows()}
    values: Values = {}
    for key, value in table_of(table, source).items():
        check_name(key, known, where=source)
        row, where = known[key], f"{source}: {key} = "
        if row.belongs_in:
            raise ConfigError(f"{where}{value!r}: write it in {row.belongs_in} of the same file")
        if row.is_switch:
            if not isinstance(value, bool):
                raise ConfigError(f"{where}{value!r}: expected true or false")
            values[row.flag] = value
        else:
            values[row.flag] = _value_of_texts(row, _texts_of(row, value, where), where=where, base=root, root=root)
    return values


def _texts_of(row: Option, value: object, where: str) -> list[str]:
    """Return a TOML value as it would be typed. Raises: ConfigError for one of another type."""
    items = value if isinstance(value, list) and row.is_many else [value]
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (str, *row.kind.toml)):
            several = " or a list" if row.is_many else ""
            raise ConfigError(f"{where}{value!r}: expected {row.kind.name}{several}")
    return [",".join(map(str, items))] if row.listed else [str(item) for item in items]


def _value_of_texts(row: Option, texts: Sequence[str], *, where: str, base: Path, root: Path) -> Any:
    """Return the value of what was typed. Raises: ConfigError that begins with `where` and the text."""
    items = [part.strip() for text in texts for part in text.split(",")] if row.listed else list(texts)
    if not items or "" in items:
        raise ConfigError(f"{where}{','.join(texts)}: expected {row.kind.name}, found none")
    values = [_placed(row, _item(row, item, where), base, root) for item in items]
    if not row.is_many:
        return values[-1]
    if row.choices:
        values.sort(key=row.choices.index)
    return tuple(dict.fromkeys(values))


def _item(row: Option, text: str, where: str) -> Any:
    if row.choices and text not in row.choices:
        raise ConfigError(f"{where}{text}: choose from {', '.join(row.choices)}")
    try:
        return row.kind.parse(text)
    except ValueError:
        raise ConfigError(f"{where}{text}: expected {row.kind.name}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}{text}: {error}") from None


def _placed(row: Option, value: Any, base: Path, root: Path) -> Any:
    """Return a path that means the same from where pytest runs and from the root; other values as they are.

    `base`: the folder that it was written relative to.
    """
    if row.place == "root":
        return str(root / value)
    is_path = row.kind is PATH or (row.kind.metavar == "NAME|PATH" and "/" in value)
    if row.place == "absolute" or (is_path and not base == Path.cwd() == root):
        return str(base / value)
    return value
