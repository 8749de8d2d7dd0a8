"""Accepted changes of a case add up: ten small losses, each accepted, are one large one.

Every baseline keeps the levels it was accepted at, from the first one on. What was lost since then may not exceed a
budget; a new budget begins on purpose, with a reason that stays in the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from harness.errors import DataError
from harness.gates import RoundMedians, accepted_slowdown
from harness.records import Latency, MetricScore, Record, percent, points

TIMES_MAX_DROP = 3.0  # the budget, as a multiple of what one night may lose
MAX_KEPT = 30  # acceptances in a file, beside the first of the budget
TOP1 = "top-1"
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """One acceptance: when, by whom, and the levels it accepted."""

    at: str  # UTC, ISO 8601
    by: str
    rates: dict[str, float] = field(default_factory=dict)  # fractions, larger is better: changes are differences
    costs: dict[str, float] = field(default_factory=dict)  # above 0, smaller is better: changes are ratios
    images: str = ""  # fingerprint of what was scored; "" of times
    reason: str = ""
    starts_budget: bool = False  # earlier changes no longer count

    def __post_init__(self) -> None:
        for name, rate in self.rates.items():
            if not math.isfinite(rate):
                raise DataError(f"an accepted level of {name} is {rate}")
        for name, cost in self.costs.items():
            if not (math.isfinite(cost) and cost > 0):
                raise DataError(f"an accepted level of {name} is {cost}")


def history_of(before: Sequence[Accepted], now: Accepted, *, reason: str, starts_budget: bool) -> tuple[Accepted, ...]:
    """Return the acceptances of a case with one more; the first one starts a budget, and an equal level adds nothing.

    `before`: those in the file that is replaced.
    """
    starts = starts_budget or not before
    if not starts and _level(before[-1]) == _level(now):
        return tuple(before)
    step = replace(now, reason=reason, starts_budget=starts)
    if starts:
        return (*_trimmed(before), step)
    return _trimmed((*before, step))


def _level(step: Accepted) -> tuple[object, ...]:
    return step.rates, step.costs, step.images


def _trimmed(history: Sequence[Accepted]) -> tuple[Accepted, ...]:
    """Keep the start of the budget and the newest."""
    if len(history) <= MAX_KEPT:
        return tuple(history)
    first = start_of(history)
    newest = tuple(history[-MAX_KEPT:])
    return newest if any(step is first for step in newest) else (first, *newest)


def start_of(history: Sequence[Accepted]) -> Accepted:
    """Return the acceptance that later ones are added up against; there must be one."""
    return next((step for step in reversed(history) if step.starts_budget), history[0])


def lost_since_start(history: Sequence[Accepted]) -> Mapping[str, float]:
    """Return what was lost in all since the budget began: of a rate a difference, of a cost a ratio less one.

    Levels on other images than the step before have no change; the sum goes on from there.
    """
    first = next(place for place, step in enumerate(history) if step is start_of(history))
    lost, logs = dict[str, float](), dict[str, float]()
    for before, now in pairwise(history[first:]):
        if before.images != now.images:
            continue
        for name in before.rates.keys() & now.rates.keys():
            lost[name] = lost.get(name, 0.0) + before.rates[name] - now.rates[name]
        for name in before.costs.keys() & now.costs.keys():
            logs[name] = logs.get(name, 0.0) + math.log(now.costs[name] / before.costs[name])
    return {**lost, **{name: math.expm1(log) for name, log in logs.items()}}


def beyond_budget(record: Record, history: Sequence[Accepted]) -> str:
    """Return why a case's acceptances are more than its budget allows, "" where they are not.

    record: the one to accept, whose tolerances say the budget; `history`: with that acceptance.
    """
    for name, lost in lost_since_start(history).items():
        budget = _budget(record, name)
        if budget is not None and lost > budget + ROUNDING:
            return _told(name, lost, budget, history)
    return ""


def _budget(record: Record, name: str) -> float | None:
    tolerance = record.tolerance
    timed = next((one for one in record.latencies if name_of_times(one) == name), None)
    if timed is None:
        return TIMES_MAX_DROP * tolerance.max_drop if tolerance.drop_budget is None else tolerance.drop_budget
    if tolerance.slowdown_budget is not None:
        return tolerance.slowdown_budget
    accepted = accepted_slowdown(record, timed.batch_size)
    return None if accepted is None else TIMES_MAX_DROP * accepted


def _told(name: str, lost: float, budget: float, history: Sequence[Accepted]) -> str:
    since = f"since {start_of(history).at[:10]}"
    if name in history[-1].costs:
        return f"{name}: accepted changes add up to {percent(lost)} more {since}; the budget is {percent(budget)}"
    return (
        f"accepted changes add up to a loss of {points(lost)} of {name} {since}, now "
        f"{percent(history[-1].rates[name])}; the budget is {points(budget)}"
    )


def name_of_times(latency: RoundMedians | Latency) -> str:
    """Return what times must share to be added up: batch size, window, clock and launch."""
    return f"batch {latency.batch_size}, {latency.window}, {latency.clock} clock, {latency.launch} [ns]"


def levels_of_metric(metric: MetricScore) -> tuple[dict[str, float], dict[str, float]]:
    """Return the rates and the costs that the value of a metric is accepted by."""
    name, value = metric.name, metric.value
    if not math.isfinite(value):
        return {}, {}
    if metric.is_fraction:
        return ({name: value}, {}) if metric.higher_is_better else ({f"1 - {name}": 1 - value}, {})
    if value <= 0:
        return {}, {}
    return ({}, {f"1 / {name}": 1 / value}) if metric.higher_is_better else ({}, {name: value})


def history_lines(history: Sequence[Accepted]) -> list[str]:
    """Return a line an acceptance, oldest first, and what was lost since the budget began."""
    lines = []
    for step in history:
        levels = [f"{name} {100 * rate:.2f} %" for name, rate in step.rates.items()]
        levels += [f"{name} {cost:.4g}" for name, cost in step.costs.items()]
        notes = "; ".join(part for part in ("budget begins" if step.starts_budget else "", step.reason) if part)
        lines.append(f"  accepted {step.at[:10]} by {step.by}: {', '.join(levels)}{f' ({notes})' if notes else ''}")
    if len(history) > 1:
        told = [
            f"{name} {percent(lost, signed=True)}"
            if name in history[-1].costs
            else f"{-100 * lost:+.2f} points of {name}"
            for name, lost in lost_since_start(history).items()
        ]
        lines.append(f"  changed since the budget began: {', '.join(told) or 'nothing'}")
    return lines
