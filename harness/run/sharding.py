"""A run as one shard of a plan: the plan gives its options, and a machine that it is not planned for is refused."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.options.parsing import options_from_namespace, shaping_flags
from harness.options.values import HarnessOptions
from harness.records import CPU, ShardOrigin
from harness.run.folders import root_of_run
from harness.run.plan import Plan
from harness.run.settings import Environments
from harness.store.shard_plans import ShardPlan, is_same_commit, read_plan


def options_of_run(o: Any, *, root: Path, called_in: Path | None = None) -> HarnessOptions:
    """Turn parsed options into ours; those of a shard come from its plan.

    `root`: pytest's; `called_in`: the folder that pytest was called in, where nobody chose the root.
    Raises: ConfigError, one line, for what `options_from_namespace` refuses, a plan that cannot be read, or an option
    that was typed beside a shard although its plan decides it.
    """
    root = root if called_in is None else root_of_run(root, called_in)
    options = options_from_namespace(o, root=root)
    if options.shard is None:
        return options
    plan = read_plan(Path(options.shard_plan))
    shard, source = plan.shard(options.shard), f"{options.shard_plan}, shard {options.shard}"
    if shaping_flags(o):
        raise ConfigError(
            f"{', '.join(shaping_flags(o))}: the plan of the shards decides this; write it in the fleet's file "
            "and plan again"
        )
    if options.writes_baselines:
        raise ConfigError("a shard writes no baselines: merge the shards, then: harness baseline accept RUN")
    options = options_from_namespace(o, root=root, planned=shard.run, source=source)
    if (options.strict, options.baseline) != (plan.strict, plan.baseline):
        raise ConfigError(f"{source}: strict verdicts or --baseline are not as planned; plan again")
    return options


def shard_of(options: HarnessOptions, plan: Plan) -> Plan:
    """Return the plan of a run as the shard that was asked for; as it is where none was.

    Raises: ConfigError when the checkout, the cases or the device are not those that were planned.
    """
    if options.shard is None:
        return plan
    planned = read_plan(Path(options.shard_plan))
    environments = Environments(plan, Path(options.root), python=options.worker_python)
    _check(options, planned, plan, environments)
    origin = ShardOrigin(
        plan=planned.digest,
        number=options.shard,
        attempt=options.shard_attempt,
        host=socket.gethostname(),
        device_uuids={
            device: uuid
            for found in plan.backends
            for device, uuid in zip(found.devices, found.device_uuids, strict=False)
            if device != CPU and uuid
        },
    )
    n_night = sum(len(shard.cases) for shard in planned.shards)
    return replace(plan, shard=origin, share_of_night=len(plan.cases) / n_night)


def _check(options: HarnessOptions, planned: ShardPlan, plan: Plan, environments: Environments) -> None:
    shard = planned.shard(options.shard or 0)
    where = f"shard {shard.number} of {options.shard_plan}"
    commit = environments.of_run().commit
    if not is_same_commit(commit, planned.commit):
        raise ConfigError(
            f"{where} is planned at commit {planned.commit or 'none'}; this checkout is {commit or 'none'}"
        )
    wanted, here = {case.id for case in shard.cases}, {case.id for case in plan.cases}
    if wanted != here:
        raise ConfigError(f"{where} has other cases than there are here: {', '.join(sorted(wanted ^ here))}")
    for case in plan.cases:
        found = environments.of(case.backend, case.device).device_type
        if found != shard.device_type:
            raise ConfigError(f"{where} is planned for {shard.device_type}; {case.backend} has {found} here")
