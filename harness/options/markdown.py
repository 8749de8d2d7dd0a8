"""docs/options.md, from the rows: `python -m harness.options.markdown > docs/options.md`."""

from __future__ import annotations

import itertools

from harness.options.parsing import help_of, metavar_of
from harness.options.rows import Option
from harness.options.table import all_rows

HEAD = """# Options

Of `pytest suites/`, made from the rows in `harness/options/table.py` and in the `options` modules of the backends.

Each can be typed, or written once in `[run]` of `harness.toml` (`[tool.harness.run]` of `pyproject.toml`), under the
name in the second column. The command line beats the file, and the file beats the default; an option that is given on
the command line replaces the file's whole list. A switch that the file turns on is turned off by `--no-...`.

```toml
[run]
backend = ["ort", "openvino"]        # or "ort,openvino", as typed
batch_size = [1, 8, 32]
worker_timeout = 120
strict_verdicts = true
```

A relative path in the file starts at the file's folder (a name is a path if it holds a `/`), one that is typed at the
current folder; `--report-dir` and `--baseline-dir` start at the file's folder in both. Tolerances are written in
`[tolerance]`: [accuracy.md](accuracy.md#tolerances).

Each has a second name: `--harness-device=cuda:0`. Where another pytest plugin or a conftest file of yours has an option
of the same name, that name is theirs, ours is the second one, and the run begins with a line that names both.

Each record's `command` repeats its case alone: it holds every option that shaped the case, the file's included.
"""
PIPE = r"\|"  # a bar that ends no cell
TAIL = """
## Backends of your own

A backend from a folder of your own says in `option_names` what it takes, and reads it as text from
`options.settings[NAME]` when it builds: `--backend-option=my-engine.streams=4` is `{"streams": "4"}`. An installed
package can bring options of its own, with units and help, by an entry point of the group `harness.options`, as
[own_backend](../examples/own_backend/README.md) does. A backend of this package has an `options` module in its folder
with `GROUP`, an `OptionGroup` of `harness.options.rows`.
"""


def options_page() -> str:
    """Return docs/options.md."""
    parts = [HEAD]
    for section, rows in itertools.groupby(all_rows(), key=lambda row: row.section):
        parts.append(f"\n## {section}\n\n| option | in `[run]` | meaning |\n| --- | --- | --- |\n")
        parts += [_line(row) for row in rows]
    return "".join((*parts, TAIL))


def _line(row: Option) -> str:
    typed = f"{row.flag}, {row.negation}" if row.is_switch else f"{row.flag}={metavar_of(row)}"
    key = f"in `{row.belongs_in}`" if row.belongs_in else f"`{row.key}`"
    return _cells(f"`{typed}`", key, help_of(row))


def _cells(*texts: str) -> str:
    return f"| {' | '.join(text.replace('|', PIPE) for text in texts)} |\n"


if __name__ == "__main__":
    print(options_page(), end="")
