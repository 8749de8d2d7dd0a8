"""The tables of docs/backends.md, from what the backends say of themselves: `python -m harness.backends._table`."""

from __future__ import annotations

from collections.abc import Iterable

from harness.backends import list_backends, load_backend
from harness.backends._traits import Ability, Traits
from harness.options.groups import backend_groups
from harness.specs import Precision

CAN = ("backend", "runtime", "extra", "device", *(precision.value.upper() for precision in Precision))
HOW = ("backend", "a batch", "layers", "options of its own")


def known_traits() -> dict[str, Traits]:
    """Return what each of our backends says of itself, by name."""
    loaded = {name: load_backend(name) for name in list_backends()}
    return {name: traits for name, b in loaded.items() if isinstance(traits := getattr(b, "traits", None), Traits)}


def tables() -> str:
    """Return both tables as Markdown: what each can do, and how it runs."""
    traits = known_traits()
    can = ((f"`{name}`", t.runtime, f"`{t.extra}`", t.device, *_abilities(t)) for name, t in traits.items())
    how = ((f"`{name}`", t.batch, t.layers, _flags(name)) for name, t in traits.items())
    return f"{_table(CAN, can)}\n{_table(HOW, how)}"


def _abilities(traits: Traits) -> Iterable[str]:
    for precision in Precision:
        ability = traits.abilities.get(precision, Ability(runs="", takes=()))
        yield ability.runs if ability.takes else f"no{': ' if ability.runs else ''}{ability.runs}"


def _flags(name: str) -> str:
    group = backend_groups().get(name)
    return ", ".join(f"`{row.flag}`" for row in group.rows) if group else ""


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (head, ("---",) * len(head), *rows)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    print(tables(), end="")
