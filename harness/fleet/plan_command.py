"""`harness plan`: a fleet's file and what earlier nights took become a plan of shards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.fleet.budget import SECONDS_A_MINUTE, arranged
from harness.fleet.fleet_file import read_fleet
from harness.fleet.planning import plan_fleet
from harness.run.folders import models_folder
from harness.store.durations import Durations, read_durations
from harness.store.nights import FOLDER
from harness.store.shard_plans import ShardPlan, numbers_in_words, write_plan


def write_fleet_plan(path: Path, output: Path, *, reports: Path) -> list[str]:
    """Plan a fleet in the current folder, write the plan, and say what it holds.

    `reports`: the folder of merged runs, whose history says what shards took. Raises: HarnessError.
    """
    plan = plan_fleet(path, root=Path.cwd(), models_dir=models_folder(Path.cwd()))
    budgets = {device.name: device.minutes for device in read_fleet(path)}
    plan = arranged_plan(plan, read_durations(reports / FOLDER), budgets)
    write_plan(plan, output)
    return [*plan_lines(plan), f"wrote {output}"]


def arranged_plan(plan: ShardPlan, durations: Durations, budgets: dict[str, float | None]) -> ShardPlan:
    """Return a plan with the shards of each device type the longest first, within its budget [device minutes].

    Raises: ConfigError for a budget that is too small.
    """
    shards, dropped = [], []
    for device in plan.devices:
        found, told = arranged(plan.of_device(device), durations, minutes=budgets.get(device))
        shards += found
        dropped += told
    numbered = tuple(replace(shard, number=number) for number, shard in enumerate(shards))
    return replace(plan, shards=numbered, dropped=tuple(dropped))


def plan_lines(plan: ShardPlan) -> list[str]:
    """Return what a plan holds, a line a device type, and what a budget has taken from it."""
    lines = []
    for device in plan.devices:
        shards = plan.of_device(device)
        n_cases = sum(len(shard.cases) for shard in shards)
        lines.append(f"{device}: shards {numbers_in_words(shards)}, {n_cases} cases on {shards[0].device_type}")
        known = [shard for shard in shards if shard.expected_s]
        if known:
            minutes = sum(shard.expected_s for shard in known) / SECONDS_A_MINUTE
            limit = max(shard.deadline_s for shard in known) / SECONDS_A_MINUTE
            of = "" if len(known) == len(shards) else f" of the {len(known)} that were measured"
            lines.append(f"{device}: about {minutes:.0f} device minutes{of}; none should take more than {limit:.0f}")
    lines += [
        f"{one.case.id} on {one.device_type}: its times are accepted, {one.reason}: it will be red; give it up: "
        f"harness baseline prune --case {one.case.id}"
        for one in plan.unplanned
    ]
    lines += plan.dropped
    if plan.commit.endswith("+") or not plan.commit:
        lines.append("this checkout has changes or no commit: shards cannot be told from those of other changes")
    return lines
