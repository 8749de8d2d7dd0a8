"""The fire drill in words: whether the gates behind a report were shown what they must find."""

from __future__ import annotations

from harness.records import FireDrill, Run

DATE_LETTERS = len("2026-12-01")
MAX_NAMED = 4
NOT_RUN = "not run"


def drill_text(run: Run) -> str:
    """Return "18/18 on 2026-12-01", with the plants that were not red, or "not run"."""
    drill = run.fire_drill
    if drill is None:
        return NOT_RUN
    text = f"{drill.n_red}/{drill.n_plants} on {drill.at[:DATE_LETTERS]}"
    return text if drill.is_green else f"{text}, NOT GREEN: {_missed(drill)}"


def has_failed_drill(run: Run) -> bool:
    """Tell whether a drill was run and did not prove the gates."""
    return run.fire_drill is not None and not run.fire_drill.is_green


def _missed(drill: FireDrill) -> str:
    more = len(drill.missed) - MAX_NAMED
    return ", ".join(drill.missed[:MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")
