"""What backends make of nets of one operator each, as it is told: a table, and what changed since other lists. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.records import OperatorOutcome
from harness.report.format import plural
from harness.store.operator_lists import OperatorList

WORST_FIRST = ("error", "wrong", "unsupported", "ok")
RANKS = {"ok": 0, "unsupported": 1, "wrong": 2, "error": 2}  # a higher one is worse
TONES = {"error": "bad", "wrong": "bad", "unsupported": "quiet", "ok": "good", "": "quiet"}
MAX_NETS = 12  # named of one operator in one list
MAX_NAMED = 6  # operators in a headline

Lists = Mapping[str, OperatorList]  # by cell: backend, precision and device


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorState:
    """One operator in one list."""

    text: str  # "wrong 1 of 2, error 0.25"
    tone: str  # bad, quiet or good
    nets: tuple[tuple[str, str, str], ...] = ()  # (net, state, reason) of those that are not sound
    n_left_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRow:
    """One operator that is not sound in every list; its states stand in the order of the lists."""

    operator: str
    states: tuple[OperatorState, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorsView:
    """Some lists, and what changed since others."""

    cells: tuple[tuple[str, int, str], ...]  # (cell, nets, versions: "onnxruntime 1.31.0 -> 1.32.0")
    rows: tuple[OperatorRow, ...]
    n_operators: int
    against: str  # what they are compared with, in words
    worse: tuple[tuple[str, str], ...]  # (cell, sentence)
    better: tuple[tuple[str, str], ...]
    gone: tuple[tuple[str, str], ...]  # what was there and is not any more
    alone: tuple[str, ...]  # cells that have nothing to be compared with

    @property
    def agreement(self) -> str:
        """Return how many operators are sound."""
        n_sound, nets = self.n_operators - len(self.rows), (f"{cell}: {n:,} nets" for cell, n, _ in self.cells)
        return (
            f"{n_sound} of {self.n_operators} operators agree with ONNX's reference in all their nets "
            f"({', '.join(nets)})."
        )

    @property
    def is_compared(self) -> bool:
        """Tell whether any list has one to be compared with."""
        return len(self.alone) < len(self.cells)

    @property
    def worse_than(self) -> str:
        """Return what the bad operators are, in words."""
        return f"worse than {self.against}" if self.is_compared else "wrong or in error"

    @property
    def sentence(self) -> str:
        """Return the headline."""
        names = list(dict.fromkeys(text.partition(":")[0] for _, text in self.worse))
        if names:
            more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            verb = "is" if len(names) == 1 else "are"
            told = ", ".join(names[:MAX_NAMED]) + more
            return f"{plural(len(names), 'operator')} {verb} {self.worse_than}: {told}"
        if not self.is_compared:
            return f"No operator is wrong or in error; nothing of it is in {self.against}"
        if self.gone:
            return f"Something is missing that is in {self.against}; no operator that ran is worse"
        return f"No operator is worse than {self.against}"

    @property
    def tone(self) -> str:
        """Return bad, warn or good."""
        if self.worse or self.gone:
            return "bad"
        return "warn" if self.alone else "good"


def operators_view(lists: Lists, before: Lists, *, against: str) -> OperatorsView:
    """Return some lists beside others. `against`: what the others are, in words: "the accepted list"."""
    by_operator = {name: _by_operator(found.outcomes) for name, found in lists.items()}
    operators = sorted({operator for found in by_operator.values() for operator in found})
    odd = [
        o for o in operators if any(_state(found.get(o, ())) != "ok" for found in by_operator.values() if o in found)
    ]
    rows = (
        OperatorRow(operator=o, states=tuple(_told(found.get(o, ())) for found in by_operator.values())) for o in odd
    )
    shared = {name: (found, before[name]) for name, found in lists.items() if name in before}
    return OperatorsView(
        cells=tuple((name, len(one.outcomes), _versions(one, before.get(name))) for name, one in lists.items()),
        rows=tuple(rows),
        n_operators=len(operators),
        against=against,
        worse=tuple((name, line) for name, one in lists.items() for line in complaints(one, before.get(name))),
        better=tuple((name, line) for name, (one, was) in shared.items() for line in gains(one, was)),
        gone=(
            *(
                (name, f"no list; it had {plural(len(one.outcomes), 'net')}")
                for name, one in before.items()
                if name not in lists
            ),
            *((name, line) for name, (one, was) in shared.items() for line in _gone_nets(one, was)),
        ),
        alone=tuple(name for name in lists if name not in before),
    )


def complaints(found: OperatorList, accepted: OperatorList | None) -> list[str]:
    """Return a line for each operator that is worse than accepted; without an accepted list, for each that is bad."""
    before = {one.net: one for one in accepted.outcomes} if accepted else {}
    worse: dict[str, list[OperatorOutcome]] = {}
    for one in found.outcomes:
        known = before.get(one.net)
        rank = RANKS[known.state] if known else RANKS["unsupported"]
        if RANKS[one.state] > rank:
            worse.setdefault(one.operator, []).append(one)
    return [_line(operator, outcomes, before) for operator, outcomes in worse.items()]


def gains(found: OperatorList, accepted: OperatorList) -> list[str]:
    """Return a line for each operator of which nets are better than accepted."""
    before = {one.net: one for one in accepted.outcomes}
    better: dict[str, list[OperatorOutcome]] = {}
    for one in found.outcomes:
        known = before.get(one.net)
        if known is not None and RANKS[one.state] < RANKS[known.state]:
            better.setdefault(one.operator, []).append(one)
    return [_line(operator, outcomes, before) for operator, outcomes in better.items()]


def operators_markdown(view: OperatorsView) -> str:
    """Return a view as Markdown: its table, and what changed."""
    lines = [view.agreement]
    if view.rows:
        lines += ["", f"| operator | {' | '.join(cell for cell, _, _ in view.cells)} |"]
        lines += [f"| --- |{' --- |' * len(view.cells)}"]
        lines += [f"| {row.operator} | {' | '.join(state.text for state in row.states)} |" for row in view.rows]
    return "\n".join([*lines, *(f"- {line}" if line else "" for line in _changes(view))]) + "\n"


def comparison_of_operators(view: OperatorsView) -> list[str]:
    """Return a comparison as lines for the terminal, the headline last."""
    versions = [f"{cell}: {versions}" for cell, _, versions in view.cells if versions]
    return [*versions, *filter(None, _changes(view)), f"{view.sentence}."]


def _changes(view: OperatorsView) -> list[str]:
    told = (("worse", view.worse), ("better", view.better), ("gone", view.gone))
    lines = [f"{word}: {cell}: {text}" for word, found in told for cell, text in found]
    lines += [f"not compared: {cell}: it is not in {view.against}" for cell in view.alone]
    return ["", *lines] if lines else []


def _by_operator(outcomes: Iterable[OperatorOutcome]) -> dict[str, list[OperatorOutcome]]:
    found: dict[str, list[OperatorOutcome]] = {}
    for one in outcomes:
        found.setdefault(one.operator, []).append(one)
    return found


def _state(outcomes: Sequence[OperatorOutcome]) -> str:
    states = {one.state for one in outcomes}
    return next((state for state in WORST_FIRST if state in states), "")


def _told(outcomes: Sequence[OperatorOutcome]) -> OperatorState:
    """Return the worst state of an operator's nets, how many have it, and the largest error."""
    state = _state(outcomes)
    if state in ("", "ok"):
        return OperatorState(text=state or "—", tone=TONES[state])
    bad = [one for one in outcomes if one.state == state]
    error = max((one.error for one in bad if one.error is not None), default=None)
    size = "" if error is None else f", error {error:.2g}"
    odd = sorted((one for one in outcomes if one.state != "ok"), key=lambda one: WORST_FIRST.index(one.state))
    return OperatorState(
        text=f"{state} {len(bad)} of {len(outcomes)}{size}",
        tone=TONES[state],
        nets=tuple((one.net, one.state, one.reason) for one in odd[:MAX_NETS]),
        n_left_out=max(0, len(odd) - MAX_NETS),
    )


def _line(operator: str, outcomes: Sequence[OperatorOutcome], before: Mapping[str, OperatorOutcome]) -> str:
    first = outcomes[0]
    more = f" and {len(outcomes) - 1} more" if len(outcomes) > 1 else ""
    was = f", was {before[first.net].state}" if first.net in before else ""
    why = f": {first.reason}" if first.reason else ""
    return f"{operator}: {first.net}{more} {first.state}{was}{why}"


def _gone_nets(found: OperatorList, before: OperatorList) -> list[str]:
    ran = {one.net for one in found.outcomes}
    gone = [one.net for one in before.outcomes if one.net not in ran]
    return [f"{plural(len(gone), 'net')} did not run: {', '.join(gone[:MAX_NAMED])}"] if gone else []


def _versions(now: OperatorList, before: OperatorList | None) -> str:
    known = before.versions if before else {}
    told = []
    for name, version in now.versions.items():
        was = known.get(name, version)
        told.append(f"{name} {version}" if was == version else f"{name} {was} -> {version}")
    return ", ".join(told)
