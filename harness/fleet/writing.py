"""A merged run on disk: judged as one family, written like any other run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.errors import ConfigError
from harness.fleet.header import merged_header
from harness.fleet.judging import judge_merged
from harness.fleet.keeping import keep_durations
from harness.fleet.merging import MergedRun, merge_shards
from harness.fleet.page import write_fleet_pages
from harness.fleet.shards import find_shards, read_shards
from harness.store.runs import RunStore
from harness.store.shard_plans import read_plan
from harness.store.spreading import without_collecting


def merge_folders(folders: Sequence[Path], plan_file: Path, output: Path) -> MergedRun:
    """Merge the shards of a plan into one run folder, and judge all of it as one family.

    Raises: ConfigError for a plan that cannot be read or a folder that is there already; DataError for a damaged shard,
    or when none is of this plan.
    """
    with without_collecting():
        return _merged(folders, plan_file, output)


def _merged(folders: Sequence[Path], plan_file: Path, output: Path) -> MergedRun:
    plan = read_plan(plan_file)
    if output.exists():
        raise ConfigError(f"-o {output} exists already; a merged run is written once, into a folder of its own")
    shards, unreadable = read_shards(find_shards(folders))
    merged = merge_shards(plan, shards, unreadable=unreadable)
    run = merged_header(plan, merged, output.name)
    store = RunStore(output.parent, run)
    judged = judge_merged(merged, run, output)
    store.finish(run, judged, summary=None)
    kept = keep_durations(output.parent, plan, merged.kept, judged)
    lines = (*run.notes, *kept, *write_fleet_pages(output, run, judged))
    return MergedRun(folder=output, run=run, records=tuple(judged), lines=lines)
