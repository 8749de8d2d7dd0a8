"""`harness bisect`: from a case and two lock files or commits to the change that made it worse."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness.errors import ConfigError, DataError
from harness.fleet.bisecting import BisectStep, bisect_states, locks_between
from harness.fleet.states import State, forget_worktrees, measure, states_of_commits, states_of_locks
from harness.records import Record
from harness.store.runs import load_run


def bisect_case(
    case_id: str,
    good: str,
    bad: str,
    *,
    run: Path,
    metric: str,
    batch_size: int | None,
    echo: Callable[[str], None],
) -> str:
    """Find what made a case worse between two lock files (by package) or two commits, and say it in one line.

    `run`: a run that has the case; its command is repeated. `echo`: is told each step.
    Raises: HarnessError when it cannot be found, with the reason.
    """
    case = _case_of(run, case_id)
    with tempfile.TemporaryDirectory(prefix="harness-bisect-") as name:
        folder = Path(name)
        states = _states(good, bad, folder)
        echo(f"{len(states) - 1} changes between {good} and {bad}")

        def note(step: BisectStep) -> None:
            word = "bad" if step.is_bad else "good"
            here = states[step.state].name or good
            echo(f"  up to {here}: {word} ({_in_words(step.change, metric)}, {step.n_trials} trials)")

        found = bisect_states(
            len(states),
            lambda state: measure(states[state], case, metric=metric, batch_size=batch_size, folder=folder),
            metric=metric,
            note=note,
        )
    if not Path(good).is_file():
        forget_worktrees()
    culprit = states[found.first_bad].name
    return f"{case_id}: {_in_words(found.change, metric)} since {culprit}, found in {len(found.steps)} steps"


def _states(good: str, bad: str, folder: Path) -> tuple[State, ...]:
    if Path(good).is_file() != Path(bad).is_file():
        raise ConfigError(f"--good={good} and --bad={bad}: name two lock files or two commits")
    if not Path(good).is_file():
        return states_of_commits(good, bad, folder)
    locks = locks_between(Path(good).read_text(), Path(bad).read_text())
    if len(locks) < 2:
        raise ConfigError(f"{good} and {bad} have the same packages in the same versions")
    return states_of_locks(locks, folder)


def _case_of(run: Path, case_id: str) -> Record:
    records = {record.case.id: record for record in load_run(run)[1] if not record.is_reference}
    if case_id not in records:
        raise DataError(f"{run} has no case {case_id}; it has: {', '.join(records) or 'none'}")
    return records[case_id]


def _in_words(change: float, metric: str) -> str:
    if metric == "top1":
        return f"top-1 {-100 * change:+.2f} points"
    return f"time {100 * (math.exp(change) - 1):+.1f} %"
