"""Baselines at the end of a run: those asked for are written, missing ones are named."""

from __future__ import annotations

from collections.abc import Sequence

from harness.gates import Candidate, list_gates
from harness.options.values import HarnessOptions
from harness.records import Outcome, Record, Status
from harness.run.cases import utc_now
from harness.store.baselines import BaselineStore, failed_against_baseline, replaced_lines

MAX_NAMED = 3


def baseline_notes(
    store: BaselineStore,
    records: Sequence[Record],
    *,
    options: HarnessOptions,
    clean: bool,
) -> list[str]:
    """Write the baselines that were asked for, and return what to say of baselines.

    records: judged, references left out. `clean`: nothing failed.
    Raises: BaselineError for a damaged file, ConfigError when the folder cannot be written.
    """
    if options.writes_baselines:
        notes = _written(store, records, clean=clean, accepts_regressions=options.accept_regressions)
    else:
        notes = _missing(records)
    return notes


def is_complete(record: Record) -> bool:
    """Tell whether a record has all that a baseline is for; half a one would make the next run blind."""
    if record.status is not Status.PASSED and not failed_against_baseline(record):
        return False
    if not record.latencies:
        return False
    if record.timing_only:
        return True
    candidate = Candidate(case=record.case, writes="nothing")
    needed = {
        gate.name for gate in list_gates() if gate.in_family and not gate.reads_baseline and gate.applies(candidate)
    }
    return record.accuracy is not None and needed <= {verdict.gate for verdict in record.verdicts}


def only_regressions(records: Sequence[Record]) -> bool:
    """Tell whether whatever failed of a run failed against its baseline alone."""
    return all(
        record.status in (Status.PASSED, Status.UNSUPPORTED) or failed_against_baseline(record) for record in records
    )


def _written(store: BaselineStore, records: Sequence[Record], *, clean: bool, accepts_regressions: bool) -> list[str]:
    whole = [record for record in records if is_complete(record)]
    for record in whole:
        store.queue(record, accepted_by="pytest --update-baselines", accepted_at=utc_now())
    written = store.flush(is_clean=clean)
    if clean:
        replaced = [f"baselines: replaced {line}" for line in replaced_lines(records, written)]
        notes = [*replaced, f"baselines: wrote those of {len(whole)} cases"]
    else:
        notes = ["baselines: none written, run not clean"]
        if not accepts_regressions and only_regressions(records):
            notes[0] += " (regressed, or not comparable: --accept-regressions writes them all the same)"
    n_partial = len(records) - len(whole)
    if clean and n_partial:
        notes.append(f"baselines: {n_partial} not written: not scored, timed and judged in this run")
    return notes


def _missing(records: Sequence[Record]) -> list[str]:
    """Say which cases have no baseline of predictions, and which none of times, one line each."""
    stored = [gate for gate in list_gates() if gate.reads_baseline]
    notes = []
    for gate in stored:
        missing = [
            record.case.id
            for record in records
            if any(v.gate == gate.name and v.outcome is Outcome.NO_BASELINE for v in record.verdicts)
        ]
        if missing:
            more = ", ..." if len(missing) > MAX_NAMED else ""
            notes.append(
                f"{gate.name}: {len(missing)} of {len(records)} cases have no baseline here "
                f"({', '.join(missing[:MAX_NAMED])}{more})"
            )
    if notes:
        notes.append("create them with --update-baselines, or: harness baseline accept latest")
    return notes
