"""The records of many shards become those of one run. Pure: whatever order or copies they come in, the run is the same.

Verdicts are not added up: whatever a shard concluded from its few cases is thrown away, and all records are judged
together, as one family (`harness.gates.judge_records`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import DataError
from harness.fleet.shards import ShardRun, why_refused
from harness.gates import Gate, list_gates
from harness.records import Environment, Record, RecordKey, Run, ShardOrigin, Status
from harness.store.baseline_files import TIMES
from harness.store.shard_plans import ShardPlan, UnplannedCase

MAX_TOLD = 20  # refused folders that are named


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The records of a fleet's night, not judged yet, and what became of the shards."""

    records: tuple[Record, ...]  # by device type and case; references last
    kept: tuple[ShardRun, ...]  # best try first
    sources: Mapping[RecordKey, str]  # case -> the folder it is from
    refused: Mapping[str, str]  # folder -> why
    n_duplicates: int
    dropped: tuple[str, ...]  # to keep a budget, in words
    missing: tuple[RecordKey, ...]  # planned and brought by none; each has a record with an error

    @property
    def lines(self) -> list[str]:
        """Return what is told of the merging, a line each."""
        lines = [f"{len(self.kept)} shards merged, {self.n_duplicates} duplicate records dropped"]
        lines += [f"refused: {name}: {why}" for name, why in [*self.refused.items()][:MAX_TOLD]]
        if len(self.refused) > MAX_TOLD:
            lines.append(f"refused: {len(self.refused) - MAX_TOLD} more")
        if self.missing:
            lines.append(f"{len(self.missing)} planned cases never came")
        return [*lines, *self.dropped]


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


def merge_shards(
    plan: ShardPlan,
    shards: Iterable[ShardRun],
    gates: Sequence[Gate] | None = None,
    *,
    unreadable: Mapping[str, str] | None = None,
) -> Merged:
    """Choose one record for every planned case; one that no shard brought is an error of its own.

    `gates`: all there are (default: those that this process knows); `unreadable`: folders that cannot be read, and
    why. Of several tries the first that ran to its end counts: a red one is not made good by trying again.
    Raises: DataError when every shard is refused.
    """
    gates = list_gates() if gates is None else gates
    kept, refused = _sorted_out(plan, tuple(shards), gates)
    refused |= {name: (why, None) for name, why in (unreadable or {}).items()}
    if not kept:
        reasons = "; ".join(f"{name}: {why}" for name, (why, _) in refused.items()) or "there is none"
        raise DataError(f"no shard can be merged: {reasons}")
    cases: dict[RecordKey, Record] = {}
    sources: dict[RecordKey, str] = {}
    references: dict[tuple[RecordKey, str], Record] = {}
    n_records = 0
    asked = _asked(kept, gates)
    for shard in kept:
        why = shard.why_not_whole(asked)
        for record in shard.records:
            found = replace(record, shard=shard.origin, error=record.error or why)
            if record.absent and record.key in plan.places:
                continue  # what one shard does not have another one may
            if record.is_reference:
                references.setdefault((record.key, record.environment.host_type), found)
            else:
                n_records += 1
                cases.setdefault(record.key, found)
                sources.setdefault(record.key, shard.name)
    n_duplicates = n_records - len(cases)
    missing = tuple(sorted(plan.places.keys() - cases.keys()))
    why_not = {origin.number: why for why, origin in refused.values() if origin and origin.plan == plan.digest}
    cases |= {key: _missing_record(key, plan, kept, why_not) for key in missing}
    for one in plan.unplanned:
        cases.setdefault(RecordKey(one.device_type, one.case.id), _absent_record(one))
    beside = [
        record
        for (key, host), record in sorted(references.items(), key=lambda item: item[0])
        if key not in cases or cases[key].environment.host_type != host
    ]
    return Merged(
        records=(*(cases[key] for key in sorted(cases)), *beside),
        kept=tuple(kept),
        sources=sources,
        refused={name: why for name, (why, _) in sorted(refused.items())},
        n_duplicates=n_duplicates,
        dropped=plan.dropped,
        missing=missing,
    )


Refused = dict[str, tuple[str, ShardOrigin | None]]


def _sorted_out(plan: ShardPlan, shards: Sequence[ShardRun], gates: Sequence[Gate]) -> tuple[list[ShardRun], Refused]:
    """Return the shards of the plan, the best try of each first, and the others with their reasons, by name."""
    refused: Refused = {}
    for shard in shards:
        why = why_refused(shard, plan)
        if why:
            refused[shard.name] = why, shard.run.shard
    asked = _asked([shard for shard in shards if shard.name not in refused], gates)
    kept: list[ShardRun] = []
    copies: dict[str, tuple[str, str]] = {}
    ranked = sorted((shard for shard in shards if shard.name not in refused), key=lambda shard: shard.rank(asked))
    for shard in ranked:
        other = next(
            (name for name, digest in shard.baselines.items() if copies.get(name, ("", digest))[1] != digest), ""
        )
        if other:
            refused[shard.name] = f"its baseline {other} is another than that of {copies[other][0]}", shard.run.shard
            continue
        copies |= {name: (shard.name, digest) for name, digest in shard.baselines.items() if name not in copies}
        kept.append(shard)
    return kept, refused


def _asked(shards: Iterable[ShardRun], gates: Sequence[Gate]) -> tuple[Gate, ...]:
    names = {name for shard in shards for name in shard.run.gates}
    return tuple(gate for gate in gates if gate.name in names)


def _missing_record(key: RecordKey, plan: ShardPlan, kept: Sequence[ShardRun], why_not: Mapping[int, str]) -> Record:
    """Return the record of a case that was planned and never came: an error, which no gate can pass."""
    shard = plan.places[key]
    case = next(case for case in shard.cases if case.id == key.case_id)
    if any(other.origin.number == shard.number for other in kept):
        why = f"shard {shard.number} came without this case"
    elif shard.number in why_not:
        why = f"shard {shard.number} was refused: {why_not[shard.number]}"
    else:
        why = f"shard {shard.number} never came"
    return Record(
        case=case,
        environment=_environment_of(shard.device_type),
        recorded_at="",
        error=f"{why} ({shard.device}, {shard.model})",
    )


def _absent_record(one: UnplannedCase) -> Record:
    """Return the record of a case that is expected and that no shard was to run."""
    return Record(
        case=one.case,
        environment=_environment_of(one.device_type),
        recorded_at="",
        absent=one.reason,
        baseline_parts=(TIMES,),
    )


def _environment_of(device_type: str) -> Environment:
    """Return what is known of a machine that nothing came from: the type of its device."""
    return Environment(
        machine="",
        cpu_model="",
        cpu_isa="",
        n_cpus=0,
        memory_bytes=0,
        os="",
        python="",
        device="",
        device_name=device_type,
    )
