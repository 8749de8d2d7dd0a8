"""States that can be measured: environments made from lock files, and checkouts of commits. Starts processes."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.errors import ConfigError, MeasurementError
from harness.options.commands import words_of
from harness.records import Record
from harness.stats import round_medians
from harness.store.runs import load_run

MAX_TAIL = 5  # lines of a failed process that are told


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One state in the row: what changed in it, where its suites are run, and by which Python engines are built."""

    name: str
    checkout: Path
    worker_python: str


def states_of_locks(names_and_texts: Sequence[tuple[str, str]], folder: Path) -> tuple[State, ...]:
    """Return the states of lock files; each gets an environment below a folder, made when it is first measured."""
    states = []
    for name, text in names_and_texts:
        place = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        place.mkdir(parents=True, exist_ok=True)
        (place / "requirements.txt").write_text(text)
        states.append(State(name=name, checkout=Path.cwd(), worker_python=str(place / "bin" / "python")))
    return tuple(states)


def states_of_commits(first: str, last: str, folder: Path) -> tuple[State, ...]:
    """Return the commits from a good one to a bad one, oldest first; each gets a worktree below a folder."""
    listed = _output(["git", "rev-list", "--reverse", "--first-parent", f"{first}..{last}"]).split()
    commits = [_output(["git", "rev-parse", f"{first}^{{commit}}"]).strip(), *listed]
    if len(commits) < 2:
        raise ConfigError(f"--good={first}: no commit lies between it and {last}")
    return tuple(
        State(name=commit[:12], checkout=folder / commit[:12], worker_python=sys.executable) for commit in commits
    )


def prepare(state: State) -> None:
    """Make a state's environment or worktree, once. Raises: ConfigError when it cannot be made."""
    python = Path(state.worker_python)
    lock = python.parent.parent / "requirements.txt"
    if lock.is_file() and not python.exists():
        _output([sys.executable, "-m", "venv", str(python.parent.parent)])
        _output([str(python), "-m", "pip", "install", "-q", "-r", str(lock)])
    if not state.checkout.exists():
        _output(["git", "worktree", "add", "--detach", str(state.checkout), state.name])


def forget_worktrees() -> None:
    """Let git forget worktrees whose folders are gone. Raises: ConfigError outside a checkout."""
    _output(["git", "worktree", "prune"])


def measure(state: State, case: Record, *, metric: str, batch_size: int | None, folder: Path) -> float:
    """Run one case alone in a state and return its value: p50 [ns] or top-1 [fraction].

    Raises: MeasurementError when the run leaves no such value.
    """
    prepare(state)
    report_dir = folder / "runs"
    here = words_of(worker_python=state.worker_python, baseline="ignore", report_dir=str(report_dir))
    words = [*shlex.split(case.command)[1:], *here]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=state.checkout,
        env={**os.environ, "PYTHONPATH": str(state.checkout)},  # the harness of that commit, in workers too
        capture_output=True,
        text=True,
        check=False,
    )
    latest = report_dir / "latest"
    if found.returncode not in (0, 1) or not latest.exists():
        raise MeasurementError(f"{state.name or 'the good state'} cannot be run: {_tail(found)}")
    try:
        return value_of(load_run(latest)[1], case, metric=metric, batch_size=batch_size)
    finally:
        latest.unlink()  # the next state must not be taken for this one


def value_of(records: Sequence[Record], case: Record, *, metric: str, batch_size: int | None) -> float:
    """Return a case's value among the records of a run. Raises: MeasurementError when it has none."""
    record = next((found for found in records if found.case.id == case.case.id), None)
    if record is None:
        raise MeasurementError(f"the run has no case {case.case.id}")
    if metric == "top1":
        if record.accuracy is None:
            raise MeasurementError(f"{case.case.id} was not scored: {record.error or record.unsupported}")
        return record.accuracy.top1
    for latency in record.valid_latencies:
        if batch_size in (None, latency.batch_size):
            return float(np.median(round_medians(latency.rounds_ns.array())))
    raise MeasurementError(f"{case.case.id} was not timed: {record.error or record.unsupported or batch_size}")


def _output(words: Sequence[str]) -> str:
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    if found.returncode:
        raise ConfigError(f"{shlex.join(words)}: {_tail(found)}")
    return found.stdout


def _tail(found: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in f"{found.stdout}\n{found.stderr}".splitlines() if line.strip()]
    return " | ".join(lines[-MAX_TAIL:]) or f"exit code {found.returncode}"
