"""What a night says of waivers: which lapsed, which are no longer needed, which fit no case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.gates import list_gates
from harness.options.values import HarnessOptions
from harness.options.waivers import load_waivers
from harness.records import Outcome, Record, Status
from harness.specs import KNOWN_ERROR, Waiver

HOLDS = (Outcome.SAME, Outcome.IMPROVED)
FILE = "harness.toml"


def waivers_of(options: HarnessOptions) -> tuple[Waiver, ...]:
    """Read the waivers of the project. Raises: ConfigError."""
    return load_waivers(Path(options.root), gates=[gate.name for gate in list_gates()])


def waiver_notes(options: HarnessOptions, records: Sequence[Record]) -> list[str]:
    """Return a line for every waiver that somebody has to look at.

    records: judged, references left out. Raises: ConfigError.
    """
    notes = []
    chosen = options.models or options.backends != HarnessOptions().backends
    for waiver in waivers_of(options):
        under = [record for record in records if waiver.matches(record.case.id)]
        told = _told(waiver, under)
        if not told and not under and not chosen:
            told = "fits no case of this run; see whether the case is called otherwise now"
        if told:
            notes.append(f"waiver of {waiver.case}, gate {waiver.gate}: {told}")
    return notes


def _told(waiver: Waiver, records: Sequence[Record]) -> str:
    if waiver.gate == KNOWN_ERROR:
        return _told_of_error(waiver, records)
    verdicts = [(record, verdict) for record in records for verdict in record.verdicts if verdict.gate == waiver.gate]
    if any(verdict.is_failure and not waiver.holds_on(night_of(record)) for record, verdict in verdicts):
        return f"lapsed after {waiver.expires}: {waiver.reason} ({waiver.link}); fix it, or give it another date"
    if verdicts and all(verdict.outcome in HOLDS and not verdict.waived for _, verdict in verdicts):
        return f"no longer needed, nothing fails there; remove it from {FILE}"
    return ""


def _told_of_error(waiver: Waiver, records: Sequence[Record]) -> str:
    if any(waiver.takes_error(record.error) and not waiver.holds_on(night_of(record)) for record in records):
        return f"lapsed after {waiver.expires}: {waiver.reason} ({waiver.link}); fix it, or give it another date"
    ran = [record for record in records if record.status not in (Status.UNSUPPORTED, Status.ABSENT)]
    if ran and not any(record.error for record in ran):
        return f"no longer needed, no error there; remove it from {FILE}"
    return ""


def night_of(record: Record) -> str:
    """Return the day of a record, ISO 8601."""
    return record.recorded_at[: len("2026-12-31")]
