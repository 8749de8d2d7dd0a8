"""Getting a plan's shards run: as many at a time as there are devices, and again where one is lost.

What runs them is an `Executor`: the cards of this host, or a Ray cluster. A shard that is late is tried again elsewhere
while the first try goes on: a frozen machine is not told from a slow one, and merging drops what came twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.errors import ConfigError, DataError
from harness.options.commands import words_of
from harness.store.runs import load_header
from harness.store.shard_plans import PlannedShard, ShardPlan

DEADLINE_S = 3600.0
MAX_ATTEMPTS = 3
POLL_S = 2.0
RAN = (0, 1)  # exit codes of pytest: a failed verdict is an answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How one try of a shard ended."""

    exit_code: int
    tail: str = ""  # of its output


class Executor(Protocol):
    """Something that runs shards, each as a process of the suites on a device of its type."""

    def capacity(self, device: str) -> int:
        """Return how many shards of a device type can run at a time."""

    def submit(self, shard: PlannedShard, attempt: int) -> Any:
        """Start one try of a shard, and return what stands for it."""

    def wait(self, handles: Sequence[Any], timeout_s: float) -> list[tuple[Any, Answer]]:
        """Return the tries that ended, at the latest after a time; their run folders lie where they belong."""


@dataclass(slots=True, kw_only=True)
class _Try:
    shard: PlannedShard
    attempt: int
    began: float
    is_late: bool = False


class Drive:
    """One night's driving: what is still to run, what runs, what was lost."""

    def __init__(
        self,
        plan: ShardPlan,
        executor: Executor,
        report_dir: Path,
        *,
        devices: Sequence[str],
        deadline_s: float = DEADLINE_S,
        max_attempts: int = MAX_ATTEMPTS,
        echo: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Begin where an earlier driver ended: shards whose whole run lies in the report folder are done.

        Raises: ConfigError when a device type of the plan is nowhere to be had.
        """
        self._executor, self._echo = executor, echo
        self._deadline_s, self._max_attempts = deadline_s, max_attempts
        self._attempts = attempts_so_far(report_dir, plan)
        self._done = {number for number, (_, is_whole) in self._attempts.items() if is_whole}
        shards = [shard for shard in plan.shards if shard.device in devices]
        self._waiting = [shard for shard in shards if shard.number not in self._done]
        self._running: dict[int, tuple[Any, _Try]] = {}  # by a number of its own
        self._n_started = 0
        self.lost: list[int] = []
        lacking = [device for device in dict.fromkeys(s.device for s in self._waiting) if not executor.capacity(device)]
        if lacking:
            raise ConfigError(f"the plan needs {', '.join(lacking)}, which is nowhere here: shards would wait for ever")

    def run(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> list[int]:
        """Run all shards, and return the numbers of those that no try finished."""
        idle_since = clock()
        while self._waiting or self._running:
            self._start(clock())
            if self._running:
                idle_since = clock()
            elif clock() - idle_since > self._deadline_s:
                self._give_up()
            else:
                sleep(POLL_S)  # every device that is left over was lost; another may come
            handles = [handle for handle, _ in self._running.values()]
            for ended, answer in self._executor.wait(handles, POLL_S):
                self._end(next(key for key, (handle, _) in self._running.items() if handle is ended), answer)
            self._look_for_late(clock())
        return sorted(self.lost)

    def _start(self, now: float) -> None:
        for shard in list(self._waiting):
            busy = sum(t.shard.device == shard.device for _, t in self._running.values())
            if busy >= self._executor.capacity(shard.device):
                continue
            self._waiting.remove(shard)
            attempt = self._attempts.get(shard.number, (0, False))[0] + 1
            self._attempts[shard.number] = attempt, False
            self._n_started += 1
            begun = _Try(shard=shard, attempt=attempt, began=now)
            self._running[self._n_started] = self._executor.submit(shard, attempt), begun

    def _end(self, key: int, answer: Answer) -> None:
        _, ended = self._running.pop(key)
        number = ended.shard.number
        if answer.exit_code in RAN:
            self._done.add(number)
            self.lost = [one for one in self.lost if one != number]  # a late try came after all
            self._waiting = [shard for shard in self._waiting if shard.number != number]
            self._echo(f"shard {number} ({ended.shard.device}, {ended.shard.model}) done, attempt {ended.attempt}")
            self._forget_late()
        elif number not in self._done and not ended.is_late:
            self._again(ended, answer.tail or f"exit code {answer.exit_code}")

    def _again(self, ended: _Try, why: str) -> None:
        number = ended.shard.number
        is_last = self._attempts[number][0] >= self._max_attempts
        self._echo(f"shard {number} attempt {ended.attempt}: {why}; {'given up' if is_last else 'tried again'}")
        if is_last:
            self.lost.append(number)
        else:
            self._waiting.append(ended.shard)

    def _give_up(self) -> None:
        for shard in self._waiting:
            self._echo(f"shard {shard.number}: no {shard.device} for {self._deadline_s:g} s; given up")
            self.lost.append(shard.number)
        self._waiting = []

    def _look_for_late(self, now: float) -> None:
        for _, one in self._running.values():
            deadline_s = one.shard.deadline_s or self._deadline_s
            if not one.is_late and now - one.began > deadline_s:
                one.is_late = True
                if one.shard.number not in self._done:
                    self._again(one, f"no answer after {deadline_s:g} s")
        self._forget_late()

    def _forget_late(self) -> None:
        """Stop waiting for late tries once there is nothing else to wait for: a frozen machine may never answer."""
        if self._waiting or any(not one.is_late for _, one in self._running.values()):
            return
        self._running = {}


def attempts_so_far(report_dir: Path, plan: ShardPlan) -> dict[int, tuple[int, bool]]:
    """Return, of every shard that a report folder holds, the newest attempt and whether one was run to its end."""
    found: dict[int, tuple[int, bool]] = {}
    for header in report_dir.glob("*/run.json"):
        try:
            run = load_header(header.parent)
        except DataError:
            continue
        if run.shard is None or run.shard.plan != plan.digest:
            continue
        attempt, is_whole = found.get(run.shard.number, (0, False))
        whole = bool(run.finished_at) and run.shard.is_whole
        found[run.shard.number] = max(attempt, run.shard.attempt), is_whole or whole
    return found


def command_of_shard(python: str, number: int, attempt: int, plan_file: Path, report_dir: Path) -> list[str]:
    """Return the command line that runs one try of a shard."""
    shard = words_of(shard=number, shard_attempt=attempt, shard_plan=str(plan_file), report_dir=str(report_dir))
    return [python, "-m", "pytest", "suites/", "-p", "no:cacheprovider", *shard]
