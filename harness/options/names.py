"""A name that nobody knows, and the nearest one that somebody does."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from harness.errors import ConfigError


def check_name(name: str, known: Iterable[str], *, where: str) -> None:
    """Check that a name is known. Raises: ConfigError with the nearest known name, or all of them."""
    names = sorted(set(known))
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    raise ConfigError(f"{where}: unknown name {name!r}; {hint}")


def near_names(name: str, names: Sequence[str]) -> str:
    """Return a hint with the nearest known names, or all of them."""
    known = list(dict.fromkeys(names))  # several precisions may have a recipe of one name
    near = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
