"""What a merged night leaves for the next plan: how long each shard took, and how clear its times were."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from harness.errors import DataError
from harness.fleet.budget import clearness_of, rounds_of
from harness.fleet.shards import ShardRun
from harness.records import Record
from harness.store.durations import ShardNight, read_durations, write_durations
from harness.store.nights import FOLDER
from harness.store.shard_plans import ShardPlan


def keep_durations(
    reports: Path, plan: ShardPlan, shards: Iterable[ShardRun], records: Sequence[Record]
) -> tuple[str, ...]:
    """Add a night to the durations below a report folder; return why it could not be, as a line, or nothing.

    shards: merged, the best try of each first; records: judged. One that was not run to its end tells no time.
    """
    of_shard: dict[int, list[Record]] = {}
    for record in records:
        if record.shard is not None and not record.is_reference:
            of_shard.setdefault(record.shard.number, []).append(record)
    night: dict[tuple[str, str], ShardNight] = {}
    for shard in shards:
        planned = plan.shards[shard.origin.number]
        key = planned.device_type, planned.model
        if key not in night and shard.run.finished_at and shard.origin.is_whole:
            night[key] = ShardNight(
                seconds=_seconds(shard.run.started_at, shard.run.finished_at),
                rounds=rounds_of(planned),
                clearness=round(clearness_of(of_shard.get(planned.number, ())), 3),
            )
    try:
        write_durations(reports / FOLDER, read_durations(reports / FOLDER).with_night(night))
    except (DataError, OSError) as error:
        return (f"what the shards took is not kept: {error}",)
    return ()


def _seconds(began: str, ended: str) -> float:
    return max(1.0, (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds())
