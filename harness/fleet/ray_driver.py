"""A Ray cluster as an executor (extra `ray`): a custom resource a device type, one shard a task.

    ray start --address=HEAD:6379 --resources='{"h100": 4}'        # on every node, in a checkout; 4 cards of its own

Ray's own retries are off: a frozen node is declared dead after a minute, but its task is not tried again for longer
than a night waits, so the deadline and the next try are the driver's.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.fleet.driving import Answer, command_of_shard
from harness.store.shard_plans import PlannedShard

TAIL_LINES = 3


class RayExecutor:
    """Runs shards as tasks of a Ray cluster; run folders come back as archives and are unpacked here."""

    def __init__(self, plan_file: Path, report_dir: Path, *, address: str = "", checkout: str = "") -> None:
        """`address`: of the cluster, "" for one of this machine; `checkout`: the folder on the nodes, "" for the same.

        Raises: ConfigError without Ray.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves a site that nobody asked
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ConfigError("Ray is not installed; pip install 'nn-engine-harness[ray]'") from error
        if not ray.is_initialized():
            ray.init(address=address or None, log_to_driver=False, configure_logging=False)
        self._ray: Any = ray
        self._report_dir, self._checkout = report_dir, checkout or str(Path.cwd())
        self._plan = ray.put(plan_file.read_bytes())

    def capacity(self, device: str) -> int:
        """Return how many devices of a type the cluster has now; of dead nodes none."""
        return int(self._ray.cluster_resources().get(device, 0))

    def submit(self, shard: PlannedShard, attempt: int) -> Any:
        """Start a shard on a node that has its type of device."""
        task = self._ray.remote(run_shard)
        placed = task.options(num_cpus=0, resources={shard.device: 1}, max_retries=0)
        return placed.remote(self._plan, shard.number, attempt, self._checkout)

    def wait(self, handles: Sequence[Any], timeout_s: float) -> list[tuple[Any, Answer]]:
        """Return the shards that ended or were lost with their node, at the latest after a time."""
        if not handles:
            return []
        done, _ = self._ray.wait(list(handles), num_returns=1, timeout=timeout_s)
        return [(handle, self._answer(handle)) for handle in done]

    def _answer(self, handle: Any) -> Answer:
        try:
            exit_code, tail, archive = self._ray.get(handle)
        except self._ray.exceptions.RayError as error:
            return Answer(exit_code=-1, tail=f"lost: {type(error).__name__}")
        if archive:
            self._report_dir.mkdir(parents=True, exist_ok=True)
            with tarfile.open(fileobj=io.BytesIO(archive)) as files:
                files.extractall(self._report_dir, filter="data")
        return Answer(exit_code=exit_code, tail=tail)


def run_shard(plan: bytes, number: int, attempt: int, checkout: str) -> tuple[int, str, bytes]:
    """Run one try of a shard on a node: (exit code, end of its output, its run folder as a tar archive)."""
    with tempfile.TemporaryDirectory(prefix="harness-shard-") as name:
        folder = Path(name)
        (folder / "shards.json").write_bytes(plan)
        command = command_of_shard(sys.executable, number, attempt, folder / "shards.json", folder / "runs")
        found = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as files:
            for path in sorted((folder / "runs").glob("*")):
                files.add(path, path.name)
    lines = [line for line in f"{found.stdout}\n{found.stderr}".splitlines() if line.strip()]
    return found.returncode, " | ".join(lines[-TAIL_LINES:]), archive.getvalue()
