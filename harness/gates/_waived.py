"""Known failures: a waiver takes the failure of its gate, or an error, until its last day; then it is red again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.records import Outcome, Verdict
from harness.specs import KNOWN_ERROR, Waiver, waiver_of_error


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
        return replace(verdict, is_failure=False, waived=last.text)
    return replace(verdict, message=f"{verdict.message}; its waiver lapsed after {last.expires}: {why}")


def known_error(message: str, waivers: Sequence[Waiver], *, on: str) -> Verdict | None:
    """Return the verdict of an error that a waiver in force takes, None of any other; `on`: as `waived`."""
    last = waiver_of_error(message, waivers)
    if last is None or not last.holds_on(on):
        return None
    return Verdict(
        gate=KNOWN_ERROR,
        outcome=Outcome.INCOMPARABLE,
        code="known_error",
        message=message,
        waived=last.text,
    )


def unknown_error(message: str, waivers: Sequence[Waiver], *, on: str) -> str:
    """Return an error's message with what became of the waivers of its case: lapsed, or of another error."""
    if not message:
        return ""
    last = waiver_of_error(message, waivers)
    if last is not None and not last.holds_on(on):
        return f"{message}; its waiver lapsed after {last.expires}: {last.reason} ({last.link})"
    others = [waiver.error for waiver in waivers if waiver.gate == KNOWN_ERROR and last is None]
    return f"{message}; not the error that is waived, which says {others[0]!r}" if others else message
