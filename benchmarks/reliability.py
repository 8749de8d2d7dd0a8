"""The sections of docs/reliability.md that scripts write: each lies between two comments with its name."""

import datetime
import importlib.metadata
import os
import platform
import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"


def versions(*distributions):
    """Return when and on what a section was made, in one sentence."""
    named = [f"{name} {importlib.metadata.version(name)}" for name in distributions]
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    python = f"Python {platform.python_version()}"
    return f"Made {today} on {os.cpu_count()} CPUs, {', '.join([python, platform.system(), *named])}."


def write_section(name, text, page=PAGE):
    """Put text between `<!-- NAME -->` and `<!-- /NAME -->`. Raises: LookupError for a page without them."""
    content = page.read_text(encoding="utf-8")
    section = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not section.search(content):
        raise LookupError(f"{page} has no section {name}")
    page.write_text(section.sub(lambda m: f"{m[1]}{text}\n{m[2]}", content), encoding="utf-8")
