"""The last good and the first bad night of a case, and the lock files or commits that lie between them."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.errors import ConfigError, DataError
from harness.store.history import History, HistoryRun, Step
from harness.store.nights import FOLDER, read_series

HARNESS = "nn-engine-harness"
NO_PACKAGES = ("driver", "CUDA", "commit", "device", "machine", HARNESS)  # versions that no lock file brings back


@dataclass(frozen=True, slots=True, kw_only=True)
class BadNight:
    """The newest lasting change of a case to the worse, and what was there on both sides of it."""

    device_type: str
    step: Step
    before: HistoryRun
    after: HistoryRun

    @property
    def locks(self) -> tuple[str, str] | None:
        """Return the lock files of before and after, None where no package changed."""
        good, bad = (_lock(run.versions) for run in (self.before, self.after))
        return None if good == bad else (good, bad)

    @property
    def commits(self) -> tuple[str, str] | None:
        """Return the commits of before and after, None where it is the same or one of them had changes of its own."""
        good, bad = (run.versions.get("commit", "") for run in (self.before, self.after))
        return (good, bad) if good and bad and good != bad and "+" not in good + bad else None

    @property
    def sentence(self) -> str:
        """Return where and when it became worse, and what else changed then."""
        changed = ", ".join(
            f"{name} {was or 'absent'} -> {now or 'gone'}" for name, (was, now) in self.step.changed.items()
        )
        return (
            f"{self.step.case_id} on {self.device_type}: worse since run {self.after.id} "
            f"(good in {self.before.id}); {changed or 'nothing that is recorded changed'}"
        )


def find_bad_night(reports: Path, case_id: str, *, metric: str, batch_size: int | None, device: str) -> BadNight:
    """Find the newest lasting change of a case to the worse among the nights below a report folder.

    `metric`: p50_ns or top1; `device`: a part of the name of the type of device.
    Raises: DataError where there is none, or no history; ConfigError where it cannot be read.
    """
    found = [
        _bad_night(device_type, history, step)
        for device_type, history in read_series(reports / FOLDER, case_id, device=device).items()
        for step in history.steps
        if step.is_worse and step.metric.name == metric and batch_size in (None, step.metric.batch_size)
    ]
    if not found:
        raise DataError(
            f"{reports}: {case_id} has not become worse for good on any night; give --good and --bad to compare two "
            "lock files or commits all the same"
        )
    return max(found, key=lambda one: one.after.started_at)


def _bad_night(device_type: str, history: History, step: Step) -> BadNight:
    known = np.flatnonzero(np.isfinite(history.series(step.case_id)[step.metric][: step.run_index]))
    return BadNight(
        device_type=device_type, step=step, before=history.runs[int(known[-1])], after=history.runs[step.run_index]
    )


def _lock(versions: Mapping[str, str]) -> str:
    """Return a lock file of the packages that a night recorded, and of what the harness itself needs, as it is here."""
    packages = {name: version for name, version in versions.items() if name not in NO_PACKAGES}
    for requirement in importlib.metadata.requires(HARNESS) or ():
        name = re.split(r"[^A-Za-z0-9._-]", requirement)[0]
        if "extra ==" not in requirement and name not in packages:
            try:
                packages[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue  # of another Python
    return "".join(f"{name}=={version}\n" for name, version in sorted(packages.items()))


def states_between(bad_night: BadNight) -> tuple[str, tuple[str, str]]:
    """Return what is to be halved, "packages" or "commits", and its two ends.

    Raises: ConfigError where neither changed.
    """
    if bad_night.locks is not None:
        return "packages", bad_night.locks
    if bad_night.commits is not None:
        return "commits", bad_night.commits
    raise ConfigError(f"{bad_night.sentence}: no package or commit that could be taken back and forth")
