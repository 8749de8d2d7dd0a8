"""The table of operators: one row for each that is not sound everywhere, one column a backend and precision. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.records import OperatorOutcome

WORST_FIRST = ("error", "wrong", "unsupported", "ok")


def operators_markdown(lists: Mapping[str, Sequence[OperatorOutcome]]) -> str:
    """Return the table of some lists, by their names, as Markdown."""
    by_operator = {name: _by_operator(outcomes) for name, outcomes in lists.items()}
    operators = sorted({operator for found in by_operator.values() for operator in found})
    odd = [
        o for o in operators if any(_state(found.get(o, ())) != "ok" for found in by_operator.values() if o in found)
    ]
    lines = [
        f"{len(operators) - len(odd)} of {len(operators)} operators agree with ONNX's reference in all their nets "
        f"({', '.join(f'{name}: {len(outcomes):,} nets' for name, outcomes in lists.items())})."
    ]
    if odd:
        lines += ["", f"| operator | {' | '.join(lists)} |", f"| --- |{' --- |' * len(lists)}"]
        lines += [f"| {o} | {' | '.join(_cell(found.get(o, ())) for found in by_operator.values())} |" for o in odd]
    return "\n".join(lines) + "\n"


def _by_operator(outcomes: Sequence[OperatorOutcome]) -> dict[str, list[OperatorOutcome]]:
    found: dict[str, list[OperatorOutcome]] = {}
    for one in outcomes:
        found.setdefault(one.operator, []).append(one)
    return found


def _state(outcomes: Sequence[OperatorOutcome]) -> str:
    states = {one.state for one in outcomes}
    return next((state for state in WORST_FIRST if state in states), "")


def _cell(outcomes: Sequence[OperatorOutcome]) -> str:
    """Return the worst state of an operator's nets, how many have it, and the largest error."""
    state = _state(outcomes)
    if state in ("", "ok"):
        return state or "—"
    bad = [one for one in outcomes if one.state == state]
    error = max((one.error for one in bad if one.error is not None), default=None)
    size = "" if error is None else f", error {error:.2g}"
    return f"{state} {len(bad)} of {len(outcomes)}{size}"
