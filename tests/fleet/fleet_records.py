"""Plans and shards of a made-up fleet: two types of device, records with chosen hits."""

from dataclasses import replace

from comparison_records import ENVIRONMENT, accuracy_with, record_with

from harness.fleet.shards import ShardRun
from harness.gates import list_gates
from harness.records import Run, ShardOrigin, Status
from harness.specs import Precision
from harness.store.shard_plans import PlannedShard, ShardPlan

N = 2_000
COMMIT = "a60ce33"
FINGERPRINT = "f" * 64
DIGEST = "d" * 64
HERE = replace(ENVIRONMENT, commit=COMMIT)
TYPES = {
    "small": replace(HERE, n_cpus=2),
    "large": replace(HERE, n_cpus=64),
}
GATES = tuple(gate.name for gate in list_gates())


def case_record(model, precision, device, *, wrong=(), **changes):
    """A record of one case, not judged yet; `wrong`: its missed images."""
    record = record_with(
        accuracy_with(n=N, wrong=wrong),
        precision=precision,
        environment=TYPES[device],
        weight_bits=8 if precision is Precision.INT8 else 32,
        status=Status.NOT_JUDGED,
        **changes,
    )
    case = replace(record.case, model=model)
    return replace(record, case=case, artifact=replace(record.artifact, precision=precision))


def night(models=("lenet5", "mlp"), wrong=lambda model, device: ()):
    """All records of a night: FP32 right everywhere, INT8 wrong as asked."""
    return [
        case_record(model, precision, device, wrong=() if precision is Precision.FP32 else wrong(model, device))
        for device in TYPES
        for model in models
        for precision in (Precision.FP32, Precision.INT8)
    ]


def device_of(record):
    return next(name for name, found in TYPES.items() if found.device_type == record.environment.device_type)


def plan_of(groups, **changes):
    """The plan whose shards hold these groups of records; a group is of one device type."""
    shards = tuple(
        PlannedShard(
            number=number,
            device=device_of(group[0]),
            device_type=group[0].environment.device_type,
            model=group[0].case.model,
            run={},
            cases=tuple(record.case for record in group),
            fingerprint=FINGERPRINT,
            model_sha256="b" * 64,
        )
        for number, group in enumerate(groups)
    )
    values = {"commit": COMMIT, "shards": shards, "digest": DIGEST}
    return ShardPlan(**(values | changes))


def by_shard(records):
    """The groups that planning makes: all cases of one model on one device type."""
    groups = {}
    for record in records:
        groups.setdefault((record.environment.device_type, record.case.model), []).append(record)
    return list(groups.values())


def shard_run(number, records, *, attempt=1, name=None, **changes):
    """What a shard left that ran to its end."""
    environment = records[0].environment if records else HERE
    values = {
        "id": f"run-{number}-{attempt}",
        "started_at": "2026-11-21T01:00:00+00:00",
        "finished_at": "2026-11-21T01:10:00+00:00",
        "command": "pytest suites/",
        "environment": environment,
        "backends": (),
        "options": {"--score-images": str(N), "--shard": str(number)},
        "gates": GATES,
        "due_gates": GATES,
        "shard": ShardOrigin(plan=DIGEST, number=number, attempt=attempt, host="node", is_whole=True),
    }
    return ShardRun(
        name=name or f"shards/{number}-{attempt}", run=Run(**(values | changes)), records=tuple(records), baselines={}
    )
