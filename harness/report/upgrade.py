"""An upgrade in words: of each case one line that names both versions, then predictions, then times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.gates.baseline import GATE as BASELINE
from harness.gates.latency import GATE as LATENCY
from harness.records import Outcome, Record, Verdict
from harness.report.format import format_fraction
from harness.report.rows import Row
from harness.report.standing import Standing, counted


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeLine:
    """What an upgrade did to one case."""

    case_id: str
    anchor: str  # of the case's own section
    standing: Standing
    text: str  # "onnxruntime 1.30.0 -> 1.32.0: top-1 98.48 % unchanged, identical predictions; batch 1: ..."


def upgrade_lines(rows: Sequence[Row]) -> tuple[UpgradeLine, ...]:
    """Return a line a case, in the rows' order; none where no upgrade was judged."""
    return tuple(
        UpgradeLine(case_id=row.record.case.id, anchor=row.anchor, standing=row.standing, text=upgrade_text(row.record))
        for row in rows
        if any(verdict.upgrade for verdict in row.record.verdicts)
    )


def upgrade_text(record: Record) -> str:
    """Return both versions, and what every gate said."""
    upgrade = next((verdict.upgrade for verdict in record.verdicts if verdict.upgrade), "")
    told = dict.fromkeys(_text(record, verdict) for verdict in record.verdicts if _is_told(verdict))
    return f"{upgrade}: {'; '.join(told)}"


def _is_told(verdict: Verdict) -> bool:
    """Tell whether a verdict has a place in the line: predictions and times always, another where it found a change."""
    return verdict.gate in (BASELINE.name, LATENCY.name) or verdict.outcome is not Outcome.SAME


def _text(record: Record, verdict: Verdict) -> str:
    if verdict.gate == BASELINE.name and verdict.code == "identical" and verdict.value is not None:
        n = record.accuracy.n_images if record.accuracy else None
        return f"top-1 {format_fraction(verdict.value, n=n)} unchanged, identical predictions"
    return counted(record, verdict) or verdict.message
