"""The header of a merged run: what all shards have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

from harness.fleet.merging import Merged
from harness.fleet.shards import ShardRun
from harness.options.table import all_rows
from harness.records import Availability, Environment, FireDrill, Run
from harness.store.shard_plans import ShardPlan

COMMAND = "harness merge"


def merged_header(plan: ShardPlan, merged: Merged, name: str) -> Run:
    """Return the header of a merged run. It reads no clock: the same shards give the same header."""
    runs = [shard.run for shard in merged.kept]
    shaping = {row.flag for row in all_rows() if row.role != "run"}
    starts = [run.started_at for run in runs]
    return Run(
        id=name,
        started_at=min(starts),
        finished_at=max([*starts, *(run.finished_at for run in runs)]),
        command=COMMAND,
        environment=common_environment(plan, [run.environment for run in runs]),
        backends=_backends(merged.kept),
        options={name: text for name, text in _common_items(run.options for run in runs).items() if name in shaping},
        gates=tuple(sorted({gate for run in runs for gate in run.gates})),
        strict=plan.strict,
        baseline=plan.baseline,
        baseline_dir=min(run.baseline_dir for run in runs),
        notes=tuple(merged.lines),
        n_shards=len(plan.shards),
        fire_drill=_worst_drill([run.fire_drill for run in runs]),
    )


def _worst_drill(drills: Sequence[FireDrill | None]) -> FireDrill | None:
    """Return the drill that proves least, None where one machine ran none."""
    known = [drill for drill in drills if drill is not None]
    return min(known, key=lambda drill: (drill.is_green, drill.n_red, drill.at)) if len(known) == len(drills) else None


def common_environment(plan: ShardPlan, environments: Sequence[Environment]) -> Environment:
    """Return what is the same on all machines; what differs is left empty, and told by each record."""
    first = environments[0]
    common: dict[str, Any] = {}
    for field in fields(Environment):
        values = [getattr(environment, field.name) for environment in environments]
        if field.name == "versions":
            common[field.name] = _common_items(values)
        elif any(value != values[0] for value in values):
            common[field.name] = type(values[0])()
    n_types = len({shard.device_type for shard in plan.shards})
    if n_types > 1:
        common["machine"] = f"{n_types} types of device"
    return replace(first, **common)


def _common_items(tables: Iterable[dict[str, str]]) -> dict[str, str]:
    first, *others = tables
    return {name: text for name, text in first.items() if all(table.get(name) == text for table in others)}


def _backends(shards: Iterable[ShardRun]) -> tuple[Availability, ...]:
    """Return every backend in each of its versions; devices are told by the records."""
    found = {
        (backend.backend, *sorted(backend.versions.items())): replace(
            backend, devices=(), device_names=(), device_uuids=(), compute_capabilities=(), driver="", cuda_version=""
        )
        for shard in shards
        for backend in shard.run.backends
    }
    return tuple(found[key] for key in sorted(found))
