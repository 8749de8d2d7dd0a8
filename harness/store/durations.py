"""How long the shards of earlier nights took, and how clear their verdicts on times were: what a plan is made by.

<report dir>/history/durations.json      by type of device and model, the newest nights last
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from harness.errors import DataError
from harness.store.runs import json_from, write_atomically
from harness.store.sealed import Damaged, check_digest, decoded, sealed, values_of

FILE = "durations.json"
KEPT = 14  # nights of a shard


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardNight:
    """One night of the cases of one model on one type of device."""

    seconds: float  # wall time of the whole shard
    rounds: int  # that each time was taken over
    clearness: float  # how far its least clear time was from being looked into, in widths of its interval


@dataclass(frozen=True, kw_only=True)
class Durations:
    """The nights of all shards, oldest first."""

    shards: Mapping[str, Mapping[str, tuple[ShardNight, ...]]] = field(default_factory=dict)  # device type -> model

    def of(self, device_type: str, model: str) -> tuple[ShardNight, ...]:
        """Return the nights of a shard; () for one that was never run to its end."""
        return self.shards.get(device_type, {}).get(model, ())

    def with_night(self, night: Mapping[tuple[str, str], ShardNight]) -> Durations:
        """Return them with one more night. `night`: by (device type, model)."""
        shards = {device: dict(models) for device, models in self.shards.items()}
        for (device, model), one in night.items():
            models = shards.setdefault(device, {})
            models[model] = (*models.get(model, ()), one)[-KEPT:]
        return Durations(shards=shards)


def read_durations(folder: Path) -> Durations:
    """Read the durations below a folder of history; none without a file. Raises: DataError for a damaged one."""
    path = folder / FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Durations()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    try:
        check_digest(values_of(data))
        return decoded(data, Durations)
    except Damaged as error:
        raise DataError(f"{path}: the file is damaged ({error}); delete it, the next nights fill it again") from error


def write_durations(folder: Path, durations: Durations) -> None:
    """Write the durations below a folder of history. Raises: OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FILE, sealed(json_from(msgspec.to_builtins(durations))))
