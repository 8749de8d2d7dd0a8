"""The cards of this host as an executor: one chain of shards a card, each process seeing its own card as `cuda:0`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue

from harness.fleet.driving import Answer, command_of_shard
from harness.store.shard_plans import PlannedShard

VISIBLE = "CUDA_VISIBLE_DEVICES"
TAIL_LINES = 3


class LocalExecutor:
    """Runs the shards of one device type on this host; a card never times two at once, so ids need no index."""

    def __init__(self, device: str, plan_file: Path, report_dir: Path, *, cards: Sequence[str] = ()) -> None:
        """`cards`: indices or UUIDs of GPUs, one chain each; without any there is one chain, on the CPU."""
        self._device, self._plan_file, self._report_dir = device, plan_file, report_dir
        self._n_chains = len(cards) or 1
        self._free: SimpleQueue[str] = SimpleQueue()
        for card in cards or ("",):
            self._free.put(card)
        self._pool = ThreadPoolExecutor(self._n_chains)

    def capacity(self, device: str) -> int:
        """Return the number of chains, for the one type of device there is."""
        return self._n_chains if device == self._device else 0

    def submit(self, shard: PlannedShard, attempt: int) -> Future[Answer]:
        """Start a shard on the card that is free."""
        return self._pool.submit(self._run, shard.number, attempt)

    def wait(self, handles: Sequence[Future[Answer]], timeout_s: float) -> list[tuple[Future[Answer], Answer]]:
        """Return the shards that ended, at the latest after a time."""
        return [(done, done.result()) for done in wait(handles, timeout_s, FIRST_COMPLETED).done]

    def _run(self, number: int, attempt: int) -> Answer:
        card = self._free.get()
        try:
            command = command_of_shard(sys.executable, number, attempt, self._plan_file, self._report_dir)
            environment = {**os.environ, VISIBLE: card} if card else None
            found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        finally:
            self._free.put(card)
        lines = [line for line in f"{found.stdout}\n{found.stderr}".splitlines() if line.strip()]
        return Answer(exit_code=found.returncode, tail=" | ".join(lines[-TAIL_LINES:]))
