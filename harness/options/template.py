"""harness.toml for a new project: `[run]` with what was chosen, every other option as a comment with its default."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from harness.options.parsing import help_of
from harness.options.rows import Option
from harness.options.table import all_rows, default_of

HEAD = """\
# Defaults of every run in this folder; what is typed goes before them.

[run]
"""
TAIL = """
# Which loss and which slowdown you accept: docs/accuracy.md, "Tolerances".
[tolerance]
# max_drop = "0.5%"
# max_slowdown = "5%"
# max_build_slowdown = "50%"
# max_engine_growth = "5%"
# max_memory_growth = "10%"
# alpha = 0.001
"""


def settings_text(chosen: Mapping[str, object]) -> str:
    """Return harness.toml; `chosen`: name in [run] -> value. Options that only one run can have are left out."""
    parts = [HEAD]
    parts += [f"{key} = {_toml(value)}\n" for key, value in chosen.items()]
    rows = [row for row in all_rows() if row.key not in chosen and not row.belongs_in and row.field not in OF_ONE_RUN]
    for section, members in groupby(rows, key=lambda row: row.section):
        parts.append(f"\n# {section}\n")
        parts += [_line(row) for row in members]
    return "".join((*parts, TAIL))


OF_ONE_RUN = {"resume", "shard", "shard_attempt", "accept_regressions", "update_baselines", "worker_python"}


def _line(row: Option) -> str:
    default = default_of(row)
    value = "" if default in (None, "", ()) else _toml(_plain(row, default))
    return f"# {row.key} ={' ' + value if value else ''}  # {help_of(row)}\n"


def _plain(row: Option, value: Any) -> object:
    if row.is_switch:
        return bool(value)
    if row.is_many:
        items = [item if isinstance(item, (int, float)) else row.kind.text(item) for item in value]
        return items if len(items) != 1 else items[0]
    return value if isinstance(value, (int, float)) else row.kind.text(value)


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)  # JSON text, numbers, booleans and lists of them are TOML
