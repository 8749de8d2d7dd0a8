"""An upgrade in words: of each case one line that names both versions, then predictions, then times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.gates.baseline import GATE as BASELINE
from harness.gates.latency import GATE as LATENCY
from harness.records import Outcome, Record, Verdict, percent, percent_range
from harness.report.format import MINUS, MISSING, format_fraction, format_lost_gained
from harness.report.rows import Row
from harness.report.standing import Standing, counted

IDENTICAL = "identical"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeTime:
    """What an upgrade did to the time of one batch size."""

    batch_size: int
    text: str  # the gate's whole sentence
    change: str  # "-1.20 to +0.80 %", or in a word or two why there is none
    sees: str  # "2.90 %": the slowdown that would have been seen beside a pass; "" = not told


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeLine:
    """What an upgrade did to one case."""

    case_id: str
    anchor: str  # of the case's own section
    standing: Standing
    upgrade: str  # "onnxruntime 1.30.0 -> 1.32.0"
    predictions: str  # what became of them, in a sentence; "" = not scored, or not compared
    n_changed: str  # the same in a word or two: "identical", "3/5" (lost/gained)
    times: tuple[UpgradeTime, ...]
    others: tuple[str, ...]  # what other gates found

    @property
    def text(self) -> str:
        """Return all of it: "onnxruntime 1.30.0 -> 1.32.0: top-1 98.48 % unchanged, identical predictions; ..."."""
        told = dict.fromkeys((self.predictions, *self.others, *(time.text for time in self.times)))
        return f"{self.upgrade}: {'; '.join(text for text in told if text)}"

    def time(self, batch_size: int) -> UpgradeTime | None:
        """Return what became of one batch size, None where it was not judged."""
        return next((time for time in self.times if time.batch_size == batch_size), None)


def upgrade_lines(rows: Sequence[Row]) -> tuple[UpgradeLine, ...]:
    """Return a line a case, in the rows' order; none where no upgrade was judged."""
    return tuple(_line(row) for row in rows if any(verdict.upgrade for verdict in row.record.verdicts))


def _line(row: Row) -> UpgradeLine:
    record = row.record
    times = [verdict for verdict in record.verdicts if verdict.gate == LATENCY.name and verdict.batch_size is not None]
    scored = [verdict for verdict in record.verdicts if verdict.gate == BASELINE.name]
    others = [verdict for verdict in record.verdicts if verdict not in times and verdict not in scored]
    return UpgradeLine(
        case_id=record.case.id,
        anchor=row.anchor,
        standing=row.standing,
        upgrade=next(verdict.upgrade for verdict in record.verdicts if verdict.upgrade),
        predictions="; ".join(dict.fromkeys(_text(record, verdict) for verdict in scored)),
        n_changed=_changed(scored),
        times=tuple(_time(verdict) for verdict in times),
        others=tuple(_text(record, verdict) for verdict in others if verdict.outcome is not Outcome.SAME),
    )


def _text(record: Record, verdict: Verdict) -> str:
    if verdict.gate == BASELINE.name and verdict.code == IDENTICAL and verdict.value is not None:
        n = record.accuracy.n_images if record.accuracy else None
        return f"top-1 {format_fraction(verdict.value, n=n)} unchanged, identical predictions"
    return counted(record, verdict) or verdict.message


def _changed(scored: Sequence[Verdict]) -> str:
    for verdict in scored:
        if verdict.code == IDENTICAL:
            return IDENTICAL
        if verdict.n_lost is not None:
            return format_lost_gained(verdict.n_lost, verdict.n_gained)
    return MISSING


def _time(verdict: Verdict) -> UpgradeTime:
    low, high = verdict.change_low, verdict.change_high
    if low is None or high is None:
        change = verdict.code.replace("_", " ")
    else:
        change = percent_range(low, high, signed=True).replace("-", MINUS)
    is_told = verdict.detectable is not None and not verdict.is_failure
    return UpgradeTime(
        batch_size=verdict.batch_size or 0,
        text=verdict.message,
        change=change,
        sees=percent(verdict.detectable or 0.0) if is_told else "",
    )
