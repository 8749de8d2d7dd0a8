"""A fleet's file becomes shards: one for all cases of one model on one type of device."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.fleet.fleet_file import read_fleet
from harness.fleet.unplanned import unplanned_cases
from harness.machine.environment import commit_of
from harness.options.parsing import options_from_namespace
from harness.options.values import HarnessOptions
from harness.run.data import Fingerprints
from harness.run.planning_ahead import cases_ahead
from harness.specs import DatasetRequest, ModelSpec, model_name
from harness.store.shard_plans import PlannedShard, ShardPlan, UnplannedCase


def plan_fleet(path: Path, *, root: Path, models_dir: Path) -> ShardPlan:
    """Cut the cases of a fleet into shards. `root`: of the checkout, whose harness.toml the shards will read too.

    What is scored is read once, so that a shard that scored something else is known.
    Raises: ConfigError for an option that is none, a backend left to `auto`, or device types that are judged unlike;
    DataError for images or samples that cannot be read.
    """
    shards: list[PlannedShard] = []
    models: dict[str, ModelSpec] = {}
    unplanned: list[UnplannedCase] = []
    fingerprints: Fingerprints | None = None
    shared: list[tuple[DatasetRequest, bool, str]] = []
    for device in read_fleet(path):
        where = f"{path} [[device]] {device.name}"
        options = options_from_namespace(argparse.Namespace(), root=root, planned=device.run, source=where)
        shared.append((options.data, options.strict, options.baseline))
        if shared[-1] != shared[0]:
            raise ConfigError(
                f"{where}: images, strict verdicts and baselines are the whole fleet's: put them in [run]"
            )
        fingerprints = fingerprints or Fingerprints(options)
        found, cases = cases_ahead(options, models_dir=models_dir, where=where)
        for name, spec in found.items():
            if models.setdefault(name, spec) != spec:
                raise ConfigError(f"{where}: {name} is another model than on another device")
            shards.append(
                PlannedShard(
                    number=len(shards),
                    device=device.name,
                    device_type=device.type,
                    model=name,
                    run=_run_of(device.run, options, name),
                    cases=tuple(case for case in cases if case.model == name),
                    fingerprint=fingerprints.of(spec),
                    model_sha256=spec.sha256,
                )
            )
        unplanned += unplanned_cases(options, device_type=device.type, models=found, planned=cases)
    _, strict, baseline = shared[0]
    return ShardPlan(
        commit=commit_of(root), shards=tuple(shards), strict=strict, baseline=baseline, unplanned=tuple(unplanned)
    )


def _run_of(run: Mapping[str, Any], options: HarnessOptions, model: str) -> dict[str, Any]:
    """Return what a shard's `[run]` says: nothing that chooses its cases is left to a default."""
    as_typed = next((name for name in options.models if model_name(name) == model), model)
    chosen: dict[str, Any] = {
        "backend": list(options.backends),
        "precision": [precision.value for precision in options.precisions],
        "model": [as_typed],
    }
    if options.recipes:
        chosen["recipe"] = list(options.recipes)
    return {**run, **chosen}
