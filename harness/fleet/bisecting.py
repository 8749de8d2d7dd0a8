"""Which of many states in a row made a case worse: halving, and at each half a paired sequential test. Runs nothing.

A state is a lock file, one with some packages of another, or a commit. The first is known to be good and the last one
to be bad; a trial measures one state and the first in turn, so that whatever else changes hits both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from harness.errors import MeasurementError
from harness.stats import SignTest

ERROR = 0.01  # rate of wrong answers, over all steps
MAX_TRIALS = 60  # of one step; noise that hides the change is an error, not an answer
RESOLUTION = {
    "p50_ns": 0.01,
    "top1": 0.0,
}  # a change that is not larger is none: of log time, of the fraction of images

Measure = Callable[[int], float]  # state -> its value: a time [ns] or a top-1 [fraction]


@dataclass(frozen=True, slots=True, kw_only=True)
class BisectStep:
    """One state that was compared with the first one."""

    state: int
    is_bad: bool
    n_trials: int
    change: float  # median over its trials: of log time, or of the fraction of images lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisected:
    """The first bad state, and how it was found."""

    first_bad: int
    change: float  # of the last state against the first
    steps: tuple[BisectStep, ...]


def bisect_states(
    n_states: int, measure: Measure, *, metric: str, note: Callable[[BisectStep], None] = lambda step: None
) -> Bisected:
    """Find the first bad one of states 0 (good) to n - 1 (bad), in 1 + log2(n - 1) steps.

    `metric`: p50_ns (more is worse) or top1 (less is). `note`: is told each step.
    Raises: MeasurementError when the last state is not worse than the first, or the noise hides the change.
    """
    if n_states < 2:
        raise MeasurementError(f"{n_states} states: a good and a bad one are needed to look between them")
    n_steps = 1 + math.ceil(math.log2(max(n_states - 1, 1)))
    error = ERROR / n_steps
    steps: list[BisectStep] = []

    def decide(state: int, limit: float) -> BisectStep:
        step = _compare(state, measure, metric=metric, limit=limit, error=error)
        steps.append(step)
        note(step)
        return step

    whole = decide(n_states - 1, RESOLUTION[metric])
    if not whole.is_bad:
        raise MeasurementError("the last state is no worse than the first here: there is nothing to find")
    good, bad = 0, n_states - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if decide(middle, whole.change / 2).is_bad:
            bad = middle
        else:
            good = middle
    return Bisected(first_bad=bad, change=whole.change, steps=tuple(steps))


def _compare(state: int, measure: Measure, *, metric: str, limit: float, error: float) -> BisectStep:
    """Try a state against the first until it is surely worse by more than the limit, or surely not."""
    test, changes = SignTest(error=error), list[float]()
    while test.decision is None:
        if test.n_trials >= MAX_TRIALS:
            raise MeasurementError(
                f"state {state}: {test.n_for} of {test.n_trials} trials call it bad; the noise hides the change"
            )
        in_turn = (0, state) if test.n_trials % 2 else (state, 0)  # whoever is second runs on a warmer machine
        values = {one: measure(one) for one in in_turn}
        changes.append(_worsening(values[0], values[state], metric))
        test = test.after(changes[-1] > limit)
    return BisectStep(state=state, is_bad=test.decision, n_trials=test.n_trials, change=median(changes))


def _worsening(good: float, here: float, metric: str) -> float:
    if not all(math.isfinite(value) for value in (good, here)):
        raise MeasurementError(f"{metric} of {good} and {here} cannot be compared")
    if metric == "top1":
        return good - here
    if good <= 0 or here <= 0:
        raise MeasurementError(f"times of {good} and {here} ns are none")
    return math.log(here / good)


def locks_between(good: str, bad: str) -> tuple[tuple[str, str], ...]:
    """Return (what changed last, lock file) of every state between two lock files, package by package by name.

    Lines are requirements (`name==version`), options and comments stay as in the bad file. The first state is the good
    file, the last has all packages of the bad one.
    """
    before, after = _packages(good), _packages(bad)
    rest = [line for line in bad.splitlines() if _package_name(line) is None]
    current = dict(before)
    states = [("", _lock(rest, current))]
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        if now is None:
            del current[name]
        else:
            current[name] = now
        states.append((f"{name} {_version(was)} -> {_version(now)}", _lock(rest, current)))
    return tuple(states)


def _packages(text: str) -> dict[str, str]:
    found = ((_package_name(line), line.strip()) for line in text.splitlines())
    return {name: line for name, line in found if name is not None}


def _package_name(line: str) -> str | None:
    text = line.strip()
    if not text or text[0] in "#-":
        return None
    end = next((place for place, letter in enumerate(text) if letter in "=<>!~;[ @"), len(text))
    return text[:end].lower().replace("_", "-")


def _version(line: str | None) -> str:
    return "absent" if line is None else line.partition("==")[2].split(" ")[0].split(";")[0] or line


def _lock(rest: Sequence[str], packages: dict[str, str]) -> str:
    return "\n".join([*rest, *(packages[name] for name in sorted(packages))]) + "\n"
