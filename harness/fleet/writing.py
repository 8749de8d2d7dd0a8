"""A merged run on disk: judged as one family, written like any other run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError, DataError
from harness.fleet.header import merged_header
from harness.fleet.judging import judge_merged
from harness.fleet.merging import merge_shards
from harness.fleet.shards import ShardRun, find_shards, read_shard
from harness.gates import list_gates
from harness.records import Record, Run, Status
from harness.report.files import summary_of_run
from harness.store.runs import RunStore
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
    store.finish(run, judged, summary=summary_of_run(run, [r for r in judged if not r.is_reference]))
    return MergedRun(folder=output, run=run, records=tuple(judged), lines=run.notes)


def _read(folders: Sequence[Path]) -> tuple[list[ShardRun], dict[str, str]]:
    """Read shards, and say why some cannot be: one damaged folder must not cost the night."""
    shards: list[ShardRun] = []
    unreadable: dict[str, str] = {}
    for folder in folders:
        try:
            shards.append(read_shard(folder))
        except DataError as error:
            unreadable[str(folder)] = str(error)
    return shards, unreadable
