"""Known failures: a waiver takes the failure of its gate until its last day, and says so; then it is red again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.records import Verdict
from harness.specs import Waiver


def waived(verdicts: Sequence[Verdict], waivers: Sequence[Waiver], *, on: str) -> tuple[Verdict, ...]:
    """Return the verdicts of a case with its waivers applied; `on`: the day of the night, ISO 8601.

    A failure under a waiver in force does not fail the case; one whose waiver has lapsed says so and fails.
    """
    return tuple(_waived(verdict, waivers, on) for verdict in verdicts)


def _waived(verdict: Verdict, waivers: Sequence[Waiver], on: str) -> Verdict:
    of_gate = [waiver for waiver in waivers if waiver.gate == verdict.gate]
    if not verdict.is_failure or not of_gate:
        return verdict
    last = max(of_gate, key=lambda waiver: waiver.expires)
    why = f"{last.reason} ({last.link})"
    if last.holds_on(on):
        return replace(verdict, is_failure=False, waived=f"waived until {last.expires}: {why}")
    return replace(verdict, message=f"{verdict.message}; its waiver lapsed after {last.expires}: {why}")
