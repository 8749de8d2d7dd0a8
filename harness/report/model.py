"""The report of a run, made once: every word and number that a reader sees, for whatever prints it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.records import Record, Run
from harness.report.across import Across, Overview, across_from_rows, overview_from_rows
from harness.report.details import FULL_CASES, Detail, details_from_rows
from harness.report.facts import machine_facts, run_length_s, tone_of_run, version_facts
from harness.report.rows import Row, batch_sizes, missing_cases, rows_by_reason, rows_from_records
from harness.report.standing import NEEDS_A_LOOK, Standing, verdict_sentence
from harness.report.trends import Trends, trends_from_history
from harness.report.upgrade import UpgradeLine, upgrade_lines
from harness.store.history import History

PreviousRun = tuple[Run, Sequence[Record]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run as it is told."""

    run: Run
    previous: Run | None  # what it is compared with beside the baselines
    sentence: str  # the headline
    tone: str  # bad, warn or good
    rows: tuple[Row, ...]  # one a case, bad ones first
    details: tuple[Detail, ...]  # in the rows' order
    counts: dict[Standing, int]
    missing: tuple[str, ...]  # cases of the previous run that did not run
    sizes: tuple[int, ...]  # every timed batch size, ascending [images]
    machine: tuple[tuple[str, str], ...]  # (name, text)
    versions: tuple[tuple[str, str, str], ...]  # (library, version, that of the previous run where it differs)
    length_s: float | None
    overview: Overview
    across: Across
    trends: Trends | None

    @property
    def records(self) -> tuple[Record, ...]:
        """Return the records behind the rows."""
        return tuple(row.record for row in self.rows)

    @property
    def upgrade(self) -> tuple[UpgradeLine, ...]:
        """Return what an upgrade did, a line a case in the rows' order; nothing where two nights are compared."""
        return upgrade_lines(self.rows)

    @property
    def attention(self) -> tuple[tuple[Row, ...], ...]:
        """Return the rows that need a look, worst first; rows of one reason stand together."""
        found = (row for row in self.rows if row.standing in NEEDS_A_LOOK)
        told = rows_by_reason(found, lambda row: (row.standing.value, row.finding, row.advice))
        return tuple(group for _, group in told)


def build_report(
    run: Run,
    records: Sequence[Record],
    *,
    previous: PreviousRun | None = None,
    history: History | None = None,
    full_cases: int = FULL_CASES,
) -> Report:
    """Make the report of a run from its records alone; those measured only for comparison are no part of it.

    `full_cases`: how many cases, worst first, keep pictures, confusion matrix and all layers.
    """
    cases = [record for record in records if not record.is_reference]
    rows = tuple(sorted(rows_from_records(cases, previous=previous), key=_worst_first))
    missing = tuple(missing_cases(run, cases, previous))
    sizes = tuple(batch_sizes(rows))
    return Report(
        run=run,
        previous=previous[0] if previous else None,
        sentence=verdict_sentence(run, [row.record for row in rows], missing=missing),
        tone=tone_of_run(run, rows, missing),
        rows=rows,
        details=details_from_rows(rows, full_cases=full_cases),
        counts=dict(Counter(row.standing for row in rows)),
        missing=missing,
        sizes=sizes,
        machine=tuple(machine_facts(run, cases)),
        versions=tuple(version_facts(run, records, previous)),
        length_s=run_length_s(run),
        overview=overview_from_rows(rows),
        across=across_from_rows(rows, sizes),
        trends=trends_from_history(history),
    )


def rows_of_cases(records: Sequence[Record]) -> tuple[Row, ...]:
    """Return the rows of cases as programs read them: in the order given, compared with no other run."""
    return rows_from_records(records)


def _worst_first(row: Row) -> tuple[int, int]:
    lost = row.against_fp32.n_lost if row.against_fp32 and row.against_fp32.n_lost else 0
    return (row.standing.rank, -lost) if row.standing in NEEDS_A_LOOK else (len(Standing), 0)
