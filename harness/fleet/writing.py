"""A merged run on disk: judged as one family, written like any other run."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError, DataError
from harness.fleet.header import merged_header
from harness.fleet.judging import judge_merged
from harness.fleet.merging import merge_shards
from harness.fleet.page import write_fleet_pages
from harness.fleet.shards import ShardRun, find_shards, read_shard
from harness.gates import list_gates
from harness.records import Record, Run, Status
from harness.store.runs import N_THREADS, RunStore
from harness.store.shard_plans import read_plan


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedRun:
    """What merging made."""

    folder: Path
    run: Run
    records: tuple[Record, ...]  # judged
    lines: tuple[str, ...]

    @property
    def is_red(self) -> bool:
        """Tell whether a case failed, broke or never came, or whether nothing at all was measured."""
        cases = [record for record in self.records if not record.is_reference]
        return any(record.status in (Status.FAILED, Status.ERROR, Status.NOT_JUDGED) for record in cases) or all(
            record.status is Status.UNSUPPORTED for record in cases
        )


def merge_folders(folders: Sequence[Path], plan_file: Path, output: Path) -> MergedRun:
    """Merge the shards of a plan into one run folder, and judge all of it as one family.

    Raises: ConfigError for a plan that cannot be read or a folder that is there already; DataError for a damaged shard,
    or when none is of this plan.
    """
    plan = read_plan(plan_file)
    if output.exists():
        raise ConfigError(f"-o {output} exists already; a merged run is written once, into a folder of its own")
    shards, unreadable = _read(find_shards(folders))
    merged = merge_shards(plan, shards, list_gates(), unreadable=unreadable)
    run = merged_header(plan, merged, output.name)
    store = RunStore(output.parent, run)
    judged = judge_merged(merged, run, output)
    store.finish(run, judged, summary=None)
    lines = (*run.notes, *write_fleet_pages(output, run, judged))
    return MergedRun(folder=output, run=run, records=tuple(judged), lines=lines)


def _read(folders: Sequence[Path]) -> tuple[list[ShardRun], dict[str, str]]:
    """Read shards, and say why some cannot be: one damaged folder must not cost the night."""
    shards: list[ShardRun] = []
    unreadable: dict[str, str] = {}
    with ThreadPoolExecutor(N_THREADS) as pool:
        for folder, found in zip(folders, pool.map(_read_one, folders), strict=True):
            if isinstance(found, DataError):
                unreadable[str(folder)] = str(found)
            else:
                shards.append(found)
    return shards, unreadable


def _read_one(folder: Path) -> ShardRun | DataError:
    try:
        return read_shard(folder)
    except DataError as error:
        return error
