"""Which baseline files are of some devices and data, and which are of cases that are given up."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError
from harness.records import CPU, Environment
from harness.store.baseline_files import PREDICTIONS, SAMPLES, TIMES
from harness.store.baselines import BaselineStore, slug


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """One file of a baseline."""

    path: Path
    kind: str  # predictions, samples or times


def parts_for(
    store: BaselineStore, hosts: Sequence[Environment], *, dataset: str, split: str
) -> tuple[StoredPart, ...]:
    """Return the files of these types of device, by case: predictions of one data set and split, and times of any.

    `hosts`: one a device; predictions of a CPU are those of its instruction set.
    """
    types = {slug(host.device_type) for host in hosts}
    gpus = {slug(host.device_name) for host in hosts if host.device != CPU}
    isas = tuple(slug(f"{CPU}-{host.cpu_isa}-w") for host in hosts if host.device == CPU)
    of_data = slug(f"{dataset}-{split}")
    found = [
        StoredPart(path=path, kind=kind)
        for kind in (PREDICTIONS, SAMPLES)
        for path in (store.root / kind / of_data).glob("*/*.json")
        if path.parent.name in (CPU, *gpus) or path.parent.name.startswith(isas)
    ]
    times = (store.root / TIMES).glob("*/*.json")
    found += [StoredPart(path=path, kind=TIMES) for path in times if path.parent.name in types]
    return tuple(sorted(found, key=lambda part: (part.path.stem, part.kind)))


def prune_baselines(
    store: BaselineStore, *, case_ids: Collection[str] = (), backends: Collection[str] = ()
) -> tuple[Path, ...]:
    """Delete the files of these cases, and of all cases of these backends; return them.

    Raises: ConfigError for a case or backend without a file; with `backends`, BaselineError for a damaged one.
    """
    owners = {path: store.read(path).case.backend if backends else "" for path in store.paths()}
    chosen = [path for path, backend in owners.items() if path.stem in case_ids or backend in backends]
    missing = [*set(case_ids) - {path.stem for path in chosen}, *set(backends) - {owners[path] for path in chosen}]
    if missing:
        raise ConfigError(f"{store.root} holds no baseline of {', '.join(sorted(missing))}")
    for path in chosen:
        path.unlink()
    return tuple(chosen)
