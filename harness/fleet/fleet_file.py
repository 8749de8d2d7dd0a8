"""The fleet's file: what is run on which types of device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.options.file import read_toml, table_of
from harness.options.names import check_name
from harness.options.table import FLEET

DEVICE_KEYS = ("name", "type", "run", "minutes")
FLEET_KEYS = ("run", "device")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetDevice:
    """One type of device of a fleet."""

    name: str  # as schedulers know it: a Ray resource, a Slurm GRES, a runner's label
    type: str  # as `Environment.device_type` says it
    run: Mapping[str, Any]  # as `[run]` of harness.toml; the fleet's own with this device's on top
    minutes: float | None = None  # that a night may take, all devices of this type together; None: as many as it takes


def read_fleet(path: Path) -> tuple[FleetDevice, ...]:
    """Read a fleet's file.

        [run]                              # as in harness.toml, for every shard
        precision = ["fp32", "int8"]

        [[device]]
        name = "h100"
        type = "NVIDIA H100 80GB HBM3"
        run = { backend = ["trt"], device = "cuda:0" }
        minutes = 600                      # budget of a night; default: none

    Raises: ConfigError for a file that is none, an unknown key, a name or type that is there twice, or a budget that is
    no number.
    """
    if not path.is_file():
        raise ConfigError(f"--fleet={path}: there is no such file; docs/fleet.md shows one")
    table = read_toml(path)
    for key in table:
        check_name(key, FLEET_KEYS, where=str(path))
    shared = table_of(table.get("run", {}), f"{path} [run]")
    devices: list[FleetDevice] = []
    given = table.get("device", [])
    for place, entry in enumerate(given if isinstance(given, list) else [given], start=1):
        where = f"{path} [[device]] {place}"
        for key in table_of(entry, where):
            check_name(key, DEVICE_KEYS, where=where)
        name, kind = entry.get("name"), entry.get("type")
        if not (isinstance(name, str) and name and isinstance(kind, str) and kind):
            raise ConfigError(f"{where}: a device needs a name, and its type as records say it: harness doctor")
        run = {**shared, **table_of(entry.get("run", {}), f"{where} run")}
        for row in FLEET:
            if row.key in run:
                raise ConfigError(f"{where}: {row.key} is what each shard is started with, not what is planned")
        if {name, kind} & {text for device in devices for text in (device.name, device.type)}:
            raise ConfigError(f"{where}: the name {name} or the type {kind} is there twice")
        devices.append(
            FleetDevice(
                name=name, type=kind, run=run, minutes=_minutes(entry.get("minutes"), f"{path} [[device]] {name}")
            )
        )
    if not devices:
        raise ConfigError(f"{path}: no [[device]], so nothing to run on")
    return tuple(devices)


def _minutes(given: object, where: str) -> float | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise ConfigError(f"{where}: minutes = {given!r}; expected the device minutes of a night, more than 0")
    return float(given)
