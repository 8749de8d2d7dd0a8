"""The end of a run: baselines, records, summary and report go to disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.errors import ConfigError
from harness.options.values import HarnessOptions
from harness.records import Record, Run
from harness.report.files import report_of_run, summary_of_run, write_reports
from harness.report.model import Report, build_report
from harness.report.terminal import summary_lines, wrapped
from harness.run.accepting import baseline_notes, only_regressions
from harness.run.cases import utc_now
from harness.store.baselines import BaselineStore
from harness.store.runs import BASELINES_FOLDER, RunStore

UNJUDGED = "the run was interrupted before it was judged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ended, and where what it found goes."""

    store: RunStore
    baselines: BaselineStore
    options: HarnessOptions
    is_clean: bool  # nothing failed
    had_end: bool  # every test that was selected ran


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What is told at the end of a run."""

    report: Report
    notes: tuple[str, ...] = ()  # of baselines, and where the files are

    def lines(self, *, color: bool, width: int | None = None) -> list[str]:
        """Return what the terminal shows, in lines of at most `width` characters where that can be."""
        notes = [line for note in self.notes for line in wrapped(note, width)]
        return [*summary_lines(self.report, color=color, width=width), *notes]


def end_run(run: Run, records: Sequence[Record], ending: Ending) -> Ended:
    """Write all files of a run, and return what to tell of it.

    records: judged, references among them. Raises: ConfigError when a file cannot be written.
    """
    folder, cases = ending.store.folder, [record for record in records if not record.is_reference]
    ending.baselines.copy_to(folder / BASELINES_FOLDER, records)
    accepts = ending.had_end and ending.options.accept_regressions and only_regressions(cases)
    notes = baseline_notes(
        ending.baselines,
        cases,
        options=ending.options,
        clean=ending.is_clean or accepts,
    )
    run = replace(run, finished_at=utc_now(), notes=tuple(notes))
    try:
        ending.store.finish(run, records, summary=summary_of_run(run, cases))
    except OSError as error:
        raise ConfigError(f"{folder}: the run cannot be finished ({error}); its cases are in records.jsonl") from error
    report = report_of_run(folder, run, records)
    return Ended(report=report, notes=(*notes, *write_reports(folder, report)))


def interrupted_run(run: Run, records: Sequence[Record], store: RunStore, *, n_planned: int, how: str) -> Ended:
    """Write what there is of an interrupted run, and return what to tell of it. Nothing of it is judged.

    records: as measured. Raises: ConfigError when a file cannot be written.
    """
    measured = [record for record in records if not record.is_reference]
    note = (
        f"the run was interrupted ({how}) when {len(measured)} of {n_planned} cases had begun; none is judged. "
        f"Go on with the same command and --resume={run.id}"
    )
    unjudged = [replace(record, reason=record.error or UNJUDGED) for record in measured]
    try:
        store.interrupt(run, unjudged, summary=summary_of_run(run, unjudged))
    except OSError as error:
        raise ConfigError(f"{store.folder}: the interrupted run cannot be written ({error})") from error
    report = report_of_run(store.folder, replace(run, notes=(*run.notes, note)), unjudged)
    return Ended(report=report, notes=(note, *write_reports(store.folder, report)))


def ended_unwritten(run: Run, records: Sequence[Record]) -> Ended:
    """Return what to tell of a run whose files could not be written."""
    return Ended(report=build_report(run, records))
