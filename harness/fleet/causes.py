"""Many changes, few causes: groups of cases that moved together, each in one line. Pure.

A group is all cases of one device type, compute capability, card, host, backend, precision, recipe or model. Whether it
moved is one exact test of signs over its cases, and all groups share one false-alarm rate (Holm), so that a new driver
is told as what it is and not as three hundred slow cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from harness.gates.baseline import GATE as BASELINE
from harness.gates.latency import GATE as LATENCY
from harness.records import Outcome, Record, Status
from harness.stats import holm_p, mcnemar_p

T = TypeVar("T")
ALPHA = 0.01  # of any false group in a night; a hint, and no verdict
MIN_SHARE = 0.9  # of a group's cases must have moved the same way
SMALLEST = {"time": math.log(1.01), "top-1": 0.0}  # median changes that are told [log of time, fraction of images]
MIN_CASES = 2  # of a group of errors
COMPARED = (Outcome.SAME, Outcome.IMPROVED, Outcome.REGRESSED, Outcome.INCONCLUSIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How one case moved against its baseline; more is worse."""

    record: Record
    value: float  # log of the ratio of times, or the fraction of images lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A group of cases that moved together."""

    kind: str  # time, top-1 or error
    group: str  # "device type", "backend", ...
    name: str  # which of them
    records: tuple[Record, ...]  # those of the group that moved this way
    n_cases: int  # of the group
    change: float = 0.0  # median [log of time, fraction of images lost]
    p_value: float | None = None  # adjusted for all groups; errors are not tested
    since: str = ""  # what else changed for all of them

    @property
    def sentence(self) -> str:
        """Return the one line: what happened to which cases, since when."""
        here = "every case" if self.group == "" else f"{self.group} {self.name}"
        of = f"{len(self.records)} of {self.n_cases} cases" if len(self.records) < self.n_cases else _all(self.n_cases)
        on = of if self.group == "" else f"{of} of {here}"
        since = f" since {self.since}" if self.since else ""
        if self.kind == "error":
            reasons = {record.reason or record.error for record in self.records}
            why = reasons.pop() if len(reasons) == 1 else f"{len(reasons)} reasons"
            return f"error on {on}: {why}"
        if self.kind == "time":
            word = "slower" if self.change > 0 else "faster"
            return f"{abs(math.expm1(self.change)):.1%} {word} on {on}{since} ({_p_text(self.p_value)})"
        word = "lost" if self.change > 0 else "gained"
        return f"{100 * abs(self.change):.2g} points of top-1 {word} on {on}{since} ({_p_text(self.p_value)})"


def _p_text(p_value: float | None) -> str:
    """Return "p = 2e-88"; what is smaller than any number that is kept is told so."""
    smallest = 1e-300
    return f"p < {smallest:g}" if p_value is not None and p_value < smallest else f"p = {p_value:.1g}"


def _all(n_cases: int) -> str:
    return f"all {n_cases} cases"


GROUPS: tuple[tuple[str, Callable[[Record], str]], ...] = (  # the first name of equal groups is told
    ("", lambda record: "all"),
    ("device type", lambda record: record.environment.device_type),
    ("compute capability", lambda record: record.environment.compute_capability),
    ("card", lambda record: record.shard.device_uuids.get(record.case.device, "") if record.shard else ""),
    ("host", lambda record: record.shard.host if record.shard else ""),
    ("backend", lambda record: record.case.backend),
    ("precision", lambda record: record.case.asked),
    ("model", lambda record: record.case.model),
)


def joint_causes(records: Iterable[Record]) -> tuple[Cause, ...]:
    """Return the groups of a night that moved or broke together, the surest and largest first.

    records: judged against baselines; references are passed over.
    """
    cases = [record for record in records if not record.is_reference]
    causes = list(_errors(cases))
    for kind, changes in (("top-1", _lost_images(cases)), ("time", _slower_times(cases))):
        causes += _moved_together(kind, changes)
    return tuple(causes)


def _lost_images(cases: Sequence[Record]) -> list[Change]:
    found = []
    for record in cases:
        verdict = next((v for v in record.verdicts if v.gate == BASELINE.name and v.outcome in COMPARED), None)
        if verdict is not None and verdict.n_lost is not None and verdict.n_gained is not None and record.accuracy:
            lost = (verdict.n_lost - verdict.n_gained) / record.accuracy.n_images
            found.append(Change(record=record, value=lost))
    return found


def _slower_times(cases: Sequence[Record]) -> list[Change]:
    found = []
    for record in cases:
        ratios = [
            math.log(verdict.value / verdict.baseline_value)
            for verdict in record.verdicts
            if verdict.gate == LATENCY.name and verdict.outcome in COMPARED and verdict.value and verdict.baseline_value
        ]
        if ratios:
            found.append(Change(record=record, value=median(ratios)))
    return found


def _moved_together(kind: str, changes: Sequence[Change]) -> list[Cause]:
    """Return the groups of one kind of change: the surest, then the surest of the cases that are left, and so on."""
    left, causes = list(changes), list[Cause]()
    while left:
        groups = _groups(left, lambda change: change.record)
        p_values = holm_p([_sign_p(members) for _, _, members in groups]).tolist()
        best: Cause | None = None
        for (group, name, members), p_value in zip(groups, p_values, strict=True):
            cause = _cause(kind, group, name, members, p_value)
            if cause is not None and (best is None or _is_better(cause, best)):
                best = cause
        if best is None:
            break
        causes.append(best)
        explained = {record.key for record in best.records}
        left = [change for change in left if change.record.key not in explained]
    return causes


def _is_better(one: Cause, other: Cause) -> bool:
    """Tell whether one cause explains more; of two alike the one tested first is kept."""
    return len(one.records) > len(other.records)


def _cause(kind: str, group: str, name: str, members: Sequence[Change], p_value: float) -> Cause | None:
    change = median(member.value for member in members)
    if p_value > ALPHA or not abs(change) > SMALLEST[kind]:
        return None
    same_way = [member for member in members if member.value * change > 0]
    if len(same_way) < MIN_SHARE * len(members):
        return None
    return Cause(
        kind=kind,
        group=group,
        name=name,
        records=tuple(member.record for member in same_way),
        n_cases=len(members),
        change=change,
        p_value=p_value,
    )


def _sign_p(members: Sequence[Change]) -> float:
    """Return the exact two-sided p-value of "as many cases got worse as better"; unmoved ones say nothing."""
    return mcnemar_p(sum(m.value > 0 for m in members), sum(m.value < 0 for m in members))


def _errors(cases: Sequence[Record]) -> Iterable[Cause]:
    """Yield the largest groups whose cases nearly all ended in an error."""
    left = [record for record in cases if record.status is not Status.UNSUPPORTED]
    while True:
        best: Cause | None = None
        for group, name, members in _groups(left, lambda record: record):
            broken = tuple(record for record in members if record.status is Status.ERROR)
            if len(broken) < max(MIN_CASES, MIN_SHARE * len(members)):
                continue
            cause = Cause(kind="error", group=group, name=name, records=broken, n_cases=len(members))
            if best is None or _is_better(cause, best):
                best = cause
        if best is None:
            return
        yield best
        explained = {record.key for record in best.records}
        left = [record for record in left if record.key not in explained]


def _groups(items: Sequence[T], record_of: Callable[[T], Record]) -> list[tuple[str, str, list[T]]]:
    found: dict[tuple[str, str], list[T]] = {}
    for item in items:
        for group, name_of in GROUPS:
            name = name_of(record_of(item))
            if name:
                found.setdefault((group, name), []).append(item)
    return [(group, name, members) for (group, name), members in found.items()]
