"""The run folders that shards left: found, read, and those that are not of the plan refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import DataError
from harness.gates import Gate
from harness.records import Record, Run, ShardOrigin
from harness.store.runs import BASELINES_FOLDER, load_header, read_records
from harness.store.shard_plans import PlannedShard, ShardPlan, is_same_commit
from harness.store.slim import slimmed


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRun:
    """What one try of one shard left."""

    name: str  # its folder, for messages
    run: Run
    records: tuple[Record, ...]
    baselines: Mapping[str, str] = field(default_factory=dict)  # file below its folder of baselines -> sha256

    @property
    def origin(self) -> ShardOrigin:
        """Return which shard it is. Raises: DataError for a run that is none."""
        if self.run.shard is None:
            raise DataError(f"{self.name} is no shard: it was run without --shard")
        return self.run.shard

    def rank(self, gates: Sequence[Gate]) -> tuple[object, ...]:
        """Return its place among all tries of all shards: whole ones first, then the earliest try."""
        origin = self.origin
        return bool(self.why_not_whole(gates)), origin.attempt, origin.number, self.run.started_at, self.run.id

    def why_not_whole(self, gates: Sequence[Gate]) -> str:
        """Return why nothing may be concluded from it; "" for a shard that was run to its end.

        `gates`: those that any shard was asked. One that was due here and was not asked was left out by naming some of
        the suites only.
        """
        number = self.origin.number
        if not self.run.finished_at or not self.origin.is_whole:
            return f"shard {number} was not run to its end"
        for gate in gates:
            if gate.name in self.run.due_gates and gate.name not in self.run.gates:
                return f"shard {number} was run without gate {gate.name}"
        return ""


def find_shards(paths: Iterable[Path]) -> list[Path]:
    """Return the run folders among some folders, or directly in them, each once, sorted.

    Raises: DataError for a folder that neither is one nor holds one.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        inside = [path] if (path / "run.json").is_file() else [header.parent for header in path.glob("*/run.json")]
        inside = [folder for folder in inside if not folder.is_symlink() or folder == path]
        if not inside:
            raise DataError(f"{path} holds no run: a shard's folder is written by `pytest suites/ --shard=K`")
        found |= {folder.resolve(): folder for folder in inside}
    return sorted(found.values())


def read_shard(folder: Path) -> ShardRun:
    """Read what a shard left. Raises: DataError for a damaged folder."""
    run = load_header(folder)
    kept = folder / BASELINES_FOLDER
    return ShardRun(
        name=str(folder),
        run=run,
        records=tuple(slimmed(record) for record in read_records(folder)),
        baselines={
            str(path.relative_to(kept)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(kept.rglob("*.json"))
        },
    )


def read_shards(folders: Sequence[Path]) -> tuple[list[ShardRun], dict[str, str]]:
    """Read shards; of those that cannot be, return why: one damaged folder must not cost the night."""
    shards: list[ShardRun] = []
    unreadable: dict[str, str] = {}
    for folder in folders:
        try:
            shards.append(read_shard(folder))
        except DataError as error:
            unreadable[str(folder)] = str(error)
    return shards, unreadable


def why_refused(shard: ShardRun, plan: ShardPlan) -> str:
    """Return why a folder is no part of this plan's merge; "" when it is."""
    origin = shard.run.shard
    if origin is None:
        return "it was run without --shard"
    if origin.plan != plan.digest:
        return f"it is of another plan ({origin.plan[:8]}, not {plan.digest[:8]})"
    if not 0 <= origin.number < len(plan.shards):
        return f"the plan has no shard {origin.number}"
    if not is_same_commit(shard.run.environment.commit, plan.commit):
        return f"it was run at commit {shard.run.environment.commit or 'none'}, the plan is of {plan.commit or 'none'}"
    if (shard.run.strict, shard.run.baseline) != (plan.strict, plan.baseline):
        return "strict verdicts or --baseline are not as planned"
    planned = plan.shards[origin.number]
    return next((why for record in shard.records if (why := _why_foreign(record, planned))), "")


def _why_foreign(record: Record, planned: PlannedShard) -> str:
    for what, scores in (("images", record.accuracy), ("samples", record.samples)):
        if scores is not None and scores.fingerprint != planned.fingerprint:
            found, wanted = scores.fingerprint[:8], planned.fingerprint[:8]
            return f"{record.case.id} scored other {what} ({found}) than planned ({wanted or 'none'})"
    artifact = record.artifact
    if artifact is not None and planned.model_sha256 not in ("", artifact.source_sha256):
        found, wanted = artifact.source_sha256[:8], planned.model_sha256[:8]
        return f"{record.case.id} ran another file of {record.case.model} ({found}) than planned ({wanted})"
    if record.is_reference or record.absent:
        return ""
    if record.environment.device_type != planned.device_type:
        return f"it ran on {record.environment.device_type}, planned on {planned.device_type}"
    if record.case.id not in {case.id for case in planned.cases}:
        return f"{record.case.id} is not planned for shard {planned.number}"
    return ""
