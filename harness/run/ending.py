"""The end of a run: baselines, records, summary and report go to disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.errors import ConfigError
from harness.options.values import HarnessOptions
from harness.records import Record, Run
from harness.report.files import write_reports
from harness.report.junit import junit_properties
from harness.run.accepting import baseline_notes
from harness.run.cases import utc_now
from harness.run.plan import Plan
from harness.store.baselines import BaselineStore
from harness.store.runs import BASELINES_FOLDER, RunStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ended, and where what it found goes."""

    store: RunStore
    baselines: BaselineStore
    options: HarnessOptions
    plan: Plan
    is_clean: bool  # nothing failed
    is_full: bool  # every case there is was planned, measured and judged


def end_run(run: Run, records: Sequence[Record], ending: Ending) -> tuple[Run, list[str]]:
    """Write all files of a run, and return its final header and what to say at its end.

    records: judged, references among them. Raises: ConfigError when a file cannot be written.
    """
    folder, cases = ending.store.folder, [record for record in records if not record.is_reference]
    ending.baselines.copy_to(folder / BASELINES_FOLDER, records)
    notes = baseline_notes(
        ending.baselines,
        cases,
        options=ending.options,
        plan=ending.plan,
        clean=ending.is_clean,
        is_full=ending.is_full,
    )
    run = replace(run, finished_at=utc_now(), notes=tuple(notes), is_full=ending.is_full)
    try:
        ending.store.finish(run, records)
    except OSError as error:
        raise ConfigError(f"{folder}: the run cannot be finished ({error}); its cases are in records.jsonl") from error
    return run, notes + write_reports(folder, run, cases)


def properties_of(record: Record) -> list[tuple[str, str]]:
    """Return what junit.xml shall say of a case."""
    return junit_properties(record)
