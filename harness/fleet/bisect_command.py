"""`harness bisect`: from a case and two lock files or commits to the change that made it worse."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness.errors import ConfigError, DataError
from harness.fleet.bisecting import BisectStep, bisect_states, locks_between
from harness.fleet.last_good import BadNight, find_bad_night, states_between
from harness.fleet.states import State, forget_worktrees, measure, states_of_commits, states_of_locks
from harness.records import Record, percent
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
    reports: Path,
    device: str = "",
) -> str:
    """Find what made a case worse between two lock files (by package) or two commits, and say it in one line.

    `run`: a run that has the case; its command is repeated. `good`, `bad`: "" takes those of the last good and the
    first bad night of the history below `reports`, on a type of `device`. `echo`: is told each step.
    Raises: HarnessError when it cannot be found, with the reason.
    """
    case = _case_of(run, case_id)
    with tempfile.TemporaryDirectory(prefix="harness-bisect-") as name:
        folder = Path(name)
        if not good and not bad:
            found_night = find_bad_night(reports, case_id, metric=metric, batch_size=batch_size, device=device)
            echo(found_night.sentence)
            good, bad = _ends(found_night, folder)
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


def _ends(bad_night: BadNight, folder: Path) -> tuple[str, str]:
    """Return the two lock files, written below a folder, or the two commits of the nights."""
    what, ends = states_between(bad_night)
    if what == "commits":
        return ends
    files = folder / f"{bad_night.before.id}.txt", folder / f"{bad_night.after.id}.txt"
    for file, text in zip(files, ends, strict=True):
        file.write_text(text)
    return str(files[0]), str(files[1])


def _states(good: str, bad: str, folder: Path) -> tuple[State, ...]:
    if Path(good).is_file() != Path(bad).is_file():
        raise ConfigError(f"--good={good} and --bad={bad}: name two lock files or two commits")
    if not Path(good).is_file():
        return states_of_commits(good, bad, folder)
    locks = locks_of(good, bad)
    if len(locks) < 2:
        raise ConfigError(f"{good} and {bad} have the same packages in the same versions")
    return states_of_locks(locks, folder)


def locks_of(good: str, bad: str) -> tuple[tuple[str, str], ...]:
    """Return the states between two lock files, as `locks_between`. Raises: DataError for a file that is no text."""
    return locks_between(_lock_text(good), _lock_text(bad))


def _lock_text(name: str) -> str:
    """Return the text of a lock file. Raises: DataError for one that is no text."""
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise DataError(f"{name}: no lock file ({why}); expected lines NAME==VERSION") from error


def _case_of(run: Path, case_id: str) -> Record:
    records = {record.case.id: record for record in load_run(run)[1] if not record.is_reference}
    if case_id not in records:
        raise DataError(f"{run} has no case {case_id}; it has: {', '.join(records) or 'none'}")
    return records[case_id]


def _in_words(change: float, metric: str) -> str:
    if metric == "top1":
        return f"top-1 {-100 * change:+.2f} points"
    return f"time {percent(math.expm1(change), signed=True)}"
