"""`harness fleet run`: the shards of a plan on this host's cards, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from harness.errors import ConfigError
from harness.fleet.driving import Drive, Executor
from harness.fleet.local import LocalExecutor
from harness.fleet.ray_driver import RayExecutor
from harness.store.shard_plans import read_plan


def run_fleet(
    plan_file: Path,
    report_dir: Path,
    *,
    device: str = "",
    cards: Sequence[str] = (),
    ray_address: str | None = None,
    checkout: str = "",
    deadline_s: float,
    max_attempts: int,
    echo: Callable[[str], None],
) -> list[int]:
    """Run a plan's shards, and return the numbers of those that no try finished.

    `device`: the type that this host has, `cards` its GPUs; or `ray_address`: of a cluster ("auto" finds it).
    Raises: ConfigError for a device type that is nowhere to be had, or when neither is given.
    """
    plan = read_plan(plan_file)
    executor: Executor
    if ray_address is not None:
        executor = RayExecutor(plan_file, report_dir, address=ray_address, checkout=checkout)
        devices: Sequence[str] = plan.devices
    else:
        if device not in plan.devices:
            raise ConfigError(f"--device={device}: the plan has {', '.join(plan.devices)}; name the one of this host")
        executor, devices = LocalExecutor(device, plan_file.absolute(), report_dir, cards=cards), (device,)
    drive = Drive(
        plan, executor, report_dir, devices=devices, deadline_s=deadline_s, max_attempts=max_attempts, echo=echo
    )
    return drive.run()
