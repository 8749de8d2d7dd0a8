"""The plan of a fleet as a file: which cases there are, cut into shards, and what every shard is held to.

    shards.json     written once a night by `harness plan`, read by every shard and by `harness merge`

It holds no time and no name of a machine: the same checkout, fleet and data give the same bytes and the same digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import ConfigError, DataError
from harness.records import RecordKey
from harness.specs import Case
from harness.store.runs import json_from, write_atomically
from harness.store.sealed import Damaged, decoded, values_of

PLAN_SCHEMA = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    """One process's share: all cases of one model on one type of device."""

    number: int
    device: str  # name of the device type in the fleet's file, by which schedulers know it
    device_type: str  # as `Environment.device_type` says it
    model: str
    run: dict[str, Any]  # as `[run]` of harness.toml
    cases: tuple[Case, ...]
    expected_s: float = 0.0  # what it took on earlier nights [s]; 0 = no night has measured it
    deadline_s: float = 0.0  # after which it hangs [s]; 0 = not known
    fingerprint: str = ""  # of what is scored, as of `Accuracy` or `SampleScores`; "" = nothing is
    model_sha256: str = ""  # of its model file with external data; "" = its card does not tell


@dataclass(frozen=True, slots=True, kw_only=True)
class UnplannedCase:
    """A case that times are accepted of and no shard runs."""

    case: Case
    device_type: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """All shards of a night, and what holds for each of them."""

    commit: str  # of the checkout that planned; every shard runs the same
    shards: tuple[PlannedShard, ...]
    schema: int = PLAN_SCHEMA
    unplanned: tuple[UnplannedCase, ...] = ()  # red in the merged run
    dropped: tuple[str, ...] = ()  # to keep a budget, in words
    strict: bool = False  # as `Run.strict` of every shard
    baseline: str = "auto"
    digest: str = field(default="", compare=False)  # sha256 of the file; set when it is read

    @cached_property
    def places(self) -> dict[RecordKey, PlannedShard]:
        """Return the shard of every planned case."""
        return {RecordKey(shard.device_type, case.id): shard for shard in self.shards for case in shard.cases}

    def of_device(self, device: str) -> tuple[PlannedShard, ...]:
        """Return the shards of one device type; their numbers follow one another."""
        return tuple(shard for shard in self.shards if shard.device == device)

    @property
    def devices(self) -> tuple[str, ...]:
        """Return the names of the device types, in their order."""
        return tuple(dict.fromkeys(shard.device for shard in self.shards))

    def shard(self, number: int) -> PlannedShard:
        """Return one shard. Raises: ConfigError for a number that no shard has."""
        if not 0 <= number < len(self.shards):
            raise ConfigError(f"--shard={number}: the plan has shards 0 to {len(self.shards) - 1}")
        return self.shards[number]


def check_plan(plan: ShardPlan) -> None:
    """Check that shards are numbered in order and no case is in two of them.

    Raises: DataError for one that is; a case in two shards would be measured twice and merged once.
    """
    seen: dict[RecordKey, int] = {}
    for place, shard in enumerate(plan.shards):
        if shard.number != place:
            raise DataError(f"shard {place} of the plan is numbered {shard.number}")
        for case in shard.cases:
            other = seen.setdefault(RecordKey(shard.device_type, case.id), place)
            if other != place:
                raise DataError(f"{case.id} on {shard.device_type} is in the shards {other} and {place}")


def write_plan(plan: ShardPlan, path: Path) -> None:
    """Write a plan. Raises: DataError for one that contradicts itself, ConfigError when it cannot be written."""
    check_plan(plan)
    document = msgspec.to_builtins(plan)
    del document["digest"]
    try:
        write_atomically(path, json_from(document))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror})") from error


def read_plan(path: Path) -> ShardPlan:
    """Read a plan. Raises: ConfigError without one; DataError for a damaged file or another schema."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: no plan of shards ({error.strerror}); write one: harness plan") from error
    try:
        schema = values_of(data).get("schema")
        if schema != PLAN_SCHEMA:
            raise DataError(f"{path}: schema {schema}; this harness reads {PLAN_SCHEMA}; plan again: harness plan")
        plan = decoded(data, ShardPlan)
    except Damaged as error:
        raise DataError(f"{path}: not a plan of shards ({error}); plan again: harness plan") from error
    check_plan(plan)
    return replace(plan, digest=hashlib.sha256(data).hexdigest())


def is_same_commit(one: str, other: str) -> bool:
    """Tell whether two checkouts are alike; `+` marks one with changes, and repositories abbreviate unlike."""
    here, there = one.removesuffix("+"), other.removesuffix("+")
    is_alike = here == there or bool(here and there and (here.startswith(there) or there.startswith(here)))
    return is_alike and one.endswith("+") == other.endswith("+")


def numbers_in_words(shards: Iterable[PlannedShard]) -> str:
    """Return "3-17", or "3" of a single one, of shards that follow one another."""
    numbers = [shard.number for shard in shards]
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
