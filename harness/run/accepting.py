"""Baselines at the end of a run: those asked for are written, missing ones are named."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import BaselineError, ConfigError
from harness.gates import Candidate, list_gates
from harness.options.values import HarnessOptions
from harness.records import Outcome, Record, Status
from harness.run.calibrated import calibration_notes
from harness.run.cases import utc_now
from harness.run.settings import cache_folder
from harness.run.waiving import waiver_notes
from harness.store.baselines import BaselineStore, failed_against_baseline, has_waived, replaced_lines
from harness.store.controls import ControlStore

MAX_NAMED = 3


def baseline_notes(
    store: BaselineStore,
    records: Sequence[Record],
    *,
    options: HarnessOptions,
    clean: bool,
) -> list[str]:
    """Write the baselines that were asked for, and return what to say of them, of the latency gate and of waivers.

    records: judged, references left out. `clean`: nothing failed.
    Raises: BaselineError for a damaged file, ConfigError when the folder cannot be written.
    """
    if options.writes_baselines:
        controls = ControlStore(cache_folder(options.engine_cache))
        notes = _written(store, controls, records, clean=clean, accepts_regressions=options.accept_regressions)
    else:
        notes = _missing(records)
    return [*notes, *calibration_notes(options.baseline_dir, records), *waiver_notes(options, records)]


def accepted_lines(
    store: BaselineStore,
    records: Sequence[Record],
    *,
    case_ids: Sequence[str],
    by: str,
    engine_cache: str,
    reason: str = "",
    new_budget: bool = False,
) -> list[str]:
    """Make cases of a stored run the baselines on purpose, keep their engines, and return what to say of it.

    `new_budget`: what their changes add up to counts from here on, for a reason.
    Raises: BaselineError for a case that cannot be accepted; ConfigError for one that the run does not have, and for a
    new budget without a reason.
    """
    if new_budget and not reason.strip():
        raise ConfigError("--new-budget: say why with --reason=TEXT; it stays in the baseline's history")
    written = store.accept(
        records, case_ids=case_ids, accepted_by=by, accepted_at=utc_now(), reason=reason, new_budget=new_budget
    )
    timed = [record for record in records if not record.is_reference and record.valid_latencies]
    accepted = [record for record in timed if store.times_path(record) in written]
    lines = [*replaced_lines(records, written), *(f"wrote {path}" for path in written)]
    return [*lines, *kept_engines(ControlStore(cache_folder(engine_cache)), accepted)]


def is_complete(record: Record) -> bool:
    """Tell whether a record has all that a baseline is for; half a one would make the next run blind."""
    if record.status is not Status.PASSED and not failed_against_baseline(record):
        return False
    if has_waived(record):  # what is known to be wrong is nothing to compare with
        return False
    if not record.latencies or any(latency.void for latency in record.latencies):
        return False
    has_metrics = record.samples is not None and record.samples.leading is not None
    if record.timing_only and not has_metrics:
        return True
    candidate = Candidate(case=record.case, writes="nothing", timing_only=record.timing_only, has_metrics=has_metrics)
    needed = {
        gate.name for gate in list_gates() if gate.in_family and not gate.reads_baseline and gate.applies(candidate)
    }
    return (has_metrics or record.accuracy is not None) and needed <= {verdict.gate for verdict in record.verdicts}


def only_regressions(records: Sequence[Record]) -> bool:
    """Tell whether whatever failed of a run failed against its baseline alone."""
    return all(
        record.status in (Status.PASSED, Status.UNSUPPORTED) or failed_against_baseline(record) for record in records
    )


def kept_engines(controls: ControlStore, records: Sequence[Record]) -> list[str]:
    """Keep the engines of accepted records, and say of which none could be kept: those are not timed again."""
    lost = {record.case.id: why for record in records if record.valid_latencies and (why := controls.keep(record))}
    if not lost:
        return []
    name, why = next(iter(lost.items()))
    return [f"baselines: the engines of {len(lost)} cases were not kept, so they cannot be timed again ({name}: {why})"]


def _written(
    store: BaselineStore,
    controls: ControlStore,
    records: Sequence[Record],
    *,
    clean: bool,
    accepts_regressions: bool,
) -> list[str]:
    whole, refused = [], []
    for record in records:
        try:
            if is_complete(record):
                store.queue(record, accepted_by="pytest --update-baselines", accepted_at=utc_now())
                whole.append(record)
        except BaselineError as error:  # its budget is spent
            refused.append(f"baselines: not written: {error}")
    written = store.flush(is_clean=clean)
    if clean:
        kept = kept_engines(controls, whole)
        replaced = [f"baselines: replaced {line}" for line in replaced_lines(records, written)]
        notes = [*replaced, f"baselines: wrote those of {len(whole)} cases", *refused, *kept]
    else:
        notes = ["baselines: none written, run not clean"]
        if not accepts_regressions and only_regressions(records):
            notes[0] += " (regressed, or not comparable: --accept-regressions writes them all the same)"
    n_partial = len(records) - len(whole) - len(refused)
    if clean and n_partial:
        notes.append(f"baselines: {n_partial} not written: not scored, timed and judged in this run, or waived")
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
