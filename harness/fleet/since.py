"""What else changed for all cases of a joint cause, between their baselines and this night."""

from __future__ import annotations

from dataclasses import replace

from harness.errors import BaselineError
from harness.fleet.causes import Cause
from harness.records import Environment
from harness.store.baselines import BaselineStore
from harness.store.history import changed_versions

MAX_ASKED = 20  # cases of a cause whose baselines are read


def with_since(cause: Cause, baselines: BaselineStore) -> Cause:
    """Return a cause with the versions that changed for every one of its cases; as it is where none did."""
    if cause.p_value is None:
        return cause
    common: dict[str, tuple[str, str]] | None = None
    for record in cause.records[:MAX_ASKED]:
        try:
            stored = baselines.load(record)
        except BaselineError:
            continue
        if stored is None:
            continue
        there = (stored.timed_on if cause.kind == "time" else None) or stored.environment
        changed = changed_versions(_versions(there), _versions(record.environment))
        common = changed if common is None else dict(common.items() & changed.items())
    told = ", ".join(
        f"{name} {was or 'absent'} -> {now or 'gone'}" for name, (was, now) in sorted((common or {}).items())
    )
    return replace(cause, since=told)


def _versions(environment: Environment) -> dict[str, str]:
    named = {"driver": environment.driver, "CUDA": environment.cuda_version, "commit": environment.commit[:12]}
    return environment.versions | {name: text for name, text in named.items() if text}
