"""The start of a run: a new one, or one that was killed and goes on."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from harness import __version__
from harness.gates import Candidate, JudgeOptions, list_gates
from harness.options.commands import changed_options
from harness.options.values import HarnessOptions
from harness.records import Record, Run, ShardOrigin
from harness.run.plan import Plan
from harness.run.resuming import resumed_run
from harness.run.settings import Environments
from harness.store.drills import load_fire_drill
from harness.store.runs import RunStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A run whose folder is open."""

    run: Run
    store: RunStore
    environments: Environments
    kept: tuple[Record, ...] = ()  # of the cases that were measured before it was resumed


def begin_run(options: HarnessOptions, plan: Plan, *, command: str, gates: Collection[str]) -> Begun:
    """Open the folder of a new run, or of the one that is resumed.

    Raises: ConfigError when the report dir cannot be written or the run cannot be resumed; DataError for a damaged one.
    """
    environments = Environments(plan, Path(options.root), python=options.worker_python)
    resumed = resumed_run(options, plan, environments.of_run())
    if resumed is not None:
        store = RunStore(Path(options.report_dir), resumed.run, kept=resumed.records)
        return Begun(run=resumed.run, store=store, environments=environments, kept=resumed.records)
    now = datetime.datetime.now(datetime.timezone.utc)
    name = run_id(Path(options.report_dir), now, shard=plan.shard)
    run = header_of(name, options, plan, environments=environments, command=command, gates=gates, now=now)
    return Begun(run=run, store=RunStore(Path(options.report_dir), run), environments=environments)


def header_of(
    name: str,
    options: HarnessOptions,
    plan: Plan,
    *,
    environments: Environments,
    command: str,
    gates: Collection[str],
    now: datetime.datetime,
) -> Run:
    """Return the header of a run that begins now."""
    return Run(
        id=name,
        started_at=now.isoformat(timespec="seconds"),
        command=command,
        environment=environments.of_run(),
        backends=plan.backends,
        options=changed_options(options),
        skipped=plan.left_out,
        gates=tuple(sorted(gates)),
        due_gates=() if plan.shard is None else _due_gates(options, plan),
        strict=options.strict,
        baseline=options.baseline,
        baseline_dir=options.baseline_dir,
        url=options.report_url,
        shard=plan.shard,
        fire_drill=load_fire_drill(Path(options.report_dir), version=__version__),
    )


def _due_gates(options: HarnessOptions, plan: Plan) -> tuple[str, ...]:
    """Return the gates that are for a case of a plan, whether a selected test asks them or not."""
    asked, due = JudgeOptions(baseline=options.baseline), set[str]()
    for case in plan.cases:
        model = plan.models[case.model]
        candidate = Candidate.of_model(case, model, writes=plan.writes(case), has_metrics=case.model in plan.by_metrics)
        tolerance = plan.tolerance_of(case, model)
        due |= {gate.name for gate in list_gates() if gate.is_due(candidate, tolerance, asked)}
    return tuple(sorted(due))


def run_id(report_dir: Path, now: datetime.datetime, *, shard: ShardOrigin | None = None) -> str:
    """Return a new run's name: its UTC start, its shard, and a number when another run began in the same second."""
    stem = now.strftime("%Y%m%dT%H%M%SZ")
    if shard is not None:
        stem += f"-shard{shard.number}-{shard.attempt}"
    number, name = 1, stem
    while (report_dir / name).exists():
        number += 1
        name = f"{stem}-{number}"
    return name
