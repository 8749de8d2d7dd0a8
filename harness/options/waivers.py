"""Known failures of a project, accepted until a date: `[[waiver]]` of harness.toml.

    [[waiver]]
    case = "resnet-openvino-int8"        or a glob: "resnet-*-int8"
    gate = "fp32"
    reason = "the runtime's new resize kernel; fixed in its next release"
    link = "https://tracker/1234"
    expires = 2026-12-31                 the last day that it holds

All five keys are needed. A waiver takes the failure of one gate, never an error of the case, unless it is of that:

    [[waiver]]
    case = "detector-openvino-*"
    gate = "error"
    error = "OpenVINO cannot convert"    a part of the message: an error that says otherwise stays red
    ...
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.options.file import read_settings, table_of
from harness.options.names import check_name
from harness.specs import KNOWN_ERROR, Waiver

ERROR = "error"  # the key, which waivers of errors alone have
KEYS = tuple(field.name for field in fields(Waiver))
LEAST = 8  # characters of an error's message: fewer would take any error


def load_waivers(root: Path, *, gates: Sequence[str]) -> tuple[Waiver, ...]:
    """Read the waivers of a folder's settings; `gates`: the names there are.

    Raises: ConfigError naming the file, the entry and the key, for a key that is missing, unknown, or of another kind,
    and for an unknown gate.
    """
    settings = read_settings(root)
    return parse_waivers(settings.table.get("waiver", []), gates=gates, source=settings.source)


def parse_waivers(entries: object, *, gates: Sequence[str], source: str) -> tuple[Waiver, ...]:
    """Return the waivers of a parsed `[[waiver]]`. Raises: ConfigError, as `load_waivers`."""
    if not isinstance(entries, list):
        raise ConfigError(f"{source}: waiver is {entries!r}; expected tables, each under [[waiver]]")
    return tuple(
        _waiver(table_of(entry, f"{source} [[waiver]] {number}"), gates, f"{source} [[waiver]] {number}")
        for number, entry in enumerate(entries, 1)
    )


def _waiver(table: Mapping[str, Any], gates: Sequence[str], where: str) -> Waiver:
    for key in table:
        check_name(key, KEYS, where=where)
    is_of_error = table.get("gate") == KNOWN_ERROR
    if ERROR in table and not is_of_error:
        raise ConfigError(f'{where}: {ERROR} is of a waiver with gate = "{KNOWN_ERROR}"; leave it out')
    needed = [key for key in KEYS if key != ERROR or is_of_error]
    missing = [key for key in needed if key not in table]
    if missing:
        raise ConfigError(f"{where}: {' and '.join(missing)} missing; a waiver needs {', '.join(needed)}")
    texts = {key: table[key] for key in needed if key != "expires"}
    for key, value in texts.items():
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f"{where}: {key} is {value!r}; expected a text")
    if is_of_error and len(texts[ERROR].strip()) < LEAST:
        raise ConfigError(
            f"{where}: {ERROR} is {texts[ERROR]!r}; expected a part of the message, {LEAST} characters or more"
        )
    check_name(table["gate"], (*gates, KNOWN_ERROR), where=f"{where}: gate")
    return Waiver(**texts, expires=_day(table["expires"], where))


def _day(value: object, where: str) -> str:
    try:
        if isinstance(value, str):
            return datetime.date.fromisoformat(value).isoformat()
        if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
            return value.isoformat()
    except ValueError:
        pass
    raise ConfigError(f"{where}: expires is {value!r}; expected a day like 2026-12-31")
