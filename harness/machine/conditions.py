"""What else the machine does while rounds are timed, seen without root, and what of it makes a time doubtful."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from harness.machine.cuda_driver import probe_driver
from harness.machine.nvml import GPU_IDLE, Card, CardReading, open_card
from harness.records import CPU, CardConditions, Conditions

PROC_STAT = Path("/proc/stat")
MAX_STOLEN = 0.01  # of the time of all CPUs
MAX_OTHERS = 0.25  # of the time of all CPUs: one of two cores is half of it
MAX_CLOCK_DROP = 0.75  # of the median SM clock: below, a round ran on another card, so to speak
# Settings that let threads without work spin, and the values that do not. Source: OpenMP 5.2, section 21.7; Intel and
# LLVM OpenMP, KMP_BLOCKTIME; ONNX Runtime, onnxruntime_session_options_config_keys.h.
SPINNING_VARIABLES = {"OMP_WAIT_POLICY": ("passive",), "KMP_BLOCKTIME": ("0",), "GOMP_SPINCOUNT": ("0",)}
SPINNING_OPTION = "allow_spinning"  # how such an option's name ends
PINNED, STOLEN_CPU, BUSY_MACHINE, SPINNING = CPU_FLAGS = ("pinned", "stolen_cpu", "busy_machine", "spinning_threads")
SHARED_GPU, POWER_CAPPED, THROTTLED = CARD_FLAGS = ("shared_gpu", "power_capped", "throttled")


class CpuTimes(NamedTuple):
    """Time that all CPUs have spent since the machine started [s]."""

    busy: float
    idle: float
    stolen: float
    own: float  # of this run's processes


def read_cpu(family: frozenset[int]) -> CpuTimes | None:
    """Read the CPUs' times and the share of a family of processes; None where the system has no /proc/stat."""
    try:
        line = PROC_STAT.read_text().partition("\n")[0]
    except OSError:
        return None
    return cpu_times(line, os.sysconf("SC_CLK_TCK"), sum(map(_cpu_s, family)))


def family_of(own: int) -> frozenset[int]:
    """Return a run's processes: this one, its parent, and all that the parent has started."""
    try:
        parent = psutil.Process(own).parent()
        children = () if parent is None else parent.children(recursive=True)
    except psutil.Error:
        return frozenset({own})
    return frozenset({own, *(() if parent is None else (parent.pid,)), *(child.pid for child in children)})


def cpu_times(line: str, ticks_per_s: int, own_s: float) -> CpuTimes | None:
    """Return the CPUs' times from the first line of /proc/stat; None for a line of another kind. Source: proc(5)."""
    name, *fields = line.split()
    if name != "cpu" or len(fields) < 8 or not all(field.isdigit() for field in fields):
        return None
    user, nice, system, idle, iowait, irq, softirq, stolen = (int(field) / ticks_per_s for field in fields[:8])
    return CpuTimes(busy=user + nice + system + irq + softirq, idle=idle + iowait, stolen=stolen, own=own_s)


def n_cpus_allowed() -> int:
    """Return on how many CPUs this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return psutil.cpu_count() or 1


def load_average() -> float | None:
    """Return how many processes ran or waited in the last minute, on average."""
    try:
        return float(os.getloadavg()[0])
    except (AttributeError, OSError):
        return None


def spinning_settings(options: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the settings that let idle threads spin, NAME=value: an engine's options as read back, and variables."""
    found = [f"{name}={value}" for name, value in options.items() if name.endswith(SPINNING_OPTION) and value != "0"]
    for name, quiet in SPINNING_VARIABLES.items():
        value = environment.get(name, "").strip().lower()
        if value and value not in quiet:
            found.append(f"{name}={value}")
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a watch asks; tests put others in."""

    cpu: Callable[[frozenset[int]], CpuTimes | None] = read_cpu
    allowed: Callable[[], int] = n_cpus_allowed
    load: Callable[[], float | None] = load_average
    n_cpus: int = psutil.cpu_count() or 1


class Watch:
    """Looks at the machine before, between and after the rounds of one timing; never while a clock runs."""

    def __init__(
        self, card: Card | None = None, *, spinning: tuple[str, ...] = (), sources: Sources | None = None
    ) -> None:
        self.card = card
        self._spinning, self._sources = spinning, sources or Sources()
        self._family = family_of(os.getpid())
        self._before: CpuTimes | None = None
        self._readings: list[CardReading] = []

    def begin(self) -> None:
        """Start anew: the rounds begin."""
        self._before, self._readings = self._sources.cpu(self._family), []

    def after_round(self) -> None:
        """Read the card; a round of all arms has ended."""
        if self.card is not None:
            self._readings.append(self.card.reading())

    def slowed_rounds(self) -> tuple[int, ...]:
        """Return the rounds in which the card was held down, or ran at less than 75 % of its median SM clock."""
        clocks = [reading.sm_clock_mhz for reading in self._readings if reading.sm_clock_mhz is not None]
        least = MAX_CLOCK_DROP * float(np.median(clocks)) if clocks else 0.0
        return tuple(
            index
            for index, reading in enumerate(self._readings)
            if reading.is_slowed or (reading.sm_clock_mhz is not None and reading.sm_clock_mhz < least)
        )

    def seen(self) -> Conditions:
        """Return what was seen since `begin`."""
        sources = self._sources
        stolen, others = _shares(self._before, sources.cpu(self._family))
        return Conditions(
            n_cpus=sources.n_cpus,
            n_cpus_allowed=sources.allowed(),
            stolen=stolen,
            others=others,
            load=sources.load(),
            spinning=self._spinning,
            card=None if self.card is None else _card_conditions(self.card, self._readings, self._family),
        )


def card_of(device: str) -> Card | None:
    """Return the card behind a CUDA device as this process numbers it; None for a CPU, or where NVML is not there."""
    index = device.partition(":")[2]
    if device == CPU or not index.isdigit():
        return None
    uuids = probe_driver().uuids
    return open_card(uuids[int(index)]) if int(index) < len(uuids) else None


def condition_flags(seen: Conditions) -> tuple[str, ...]:
    """Return the doubts that rest on what was seen."""
    card = seen.card
    doubts = {
        PINNED: seen.n_cpus_allowed < seen.n_cpus,
        STOLEN_CPU: seen.stolen is not None and seen.stolen > MAX_STOLEN,
        BUSY_MACHINE: seen.others is not None and seen.others > MAX_OTHERS,
        SPINNING: bool(seen.spinning),
        SHARED_GPU: card is not None and bool(card.n_other_processes),
        POWER_CAPPED: card is not None and "sw_power_cap" in card.throttle_reasons,
    }
    return tuple(flag for flag, is_raised in doubts.items() if is_raised)


def other_processes(found: frozenset[int] | None, family: frozenset[int], own: int) -> int | None:
    """Return how many of a card's processes are not of this run's family.

    None where this process is not among them: in a container NVML may number processes as the host does, or hide them.
    """
    return None if found is None or own not in found else len(found - family)


def _cpu_s(process_id: int) -> float:
    """Return the CPU time of a process [s]; 0 of one that has ended."""
    try:
        spent = psutil.Process(process_id).cpu_times()
    except psutil.Error:
        return 0.0
    return float(spent.user + spent.system)


def _shares(before: CpuTimes | None, after: CpuTimes | None) -> tuple[float | None, float | None]:
    """Return the shares of all CPUs' time that were stolen, and that other processes took."""
    if before is None or after is None:
        return None, None
    busy, idle, stolen, own = (late - early for early, late in zip(before, after, strict=True))
    total = busy + idle + stolen
    if total <= 0:  # less than a tick
        return None, None
    return max(0.0, stolen / total), max(0.0, (busy - own) / total)


def _card_conditions(card: Card, readings: list[CardReading], family: frozenset[int]) -> CardConditions:
    clocks = [reading.sm_clock_mhz for reading in readings if reading.sm_clock_mhz is not None]
    powers = [reading.power_w for reading in readings if reading.power_w is not None]
    temperatures = [reading.temperature_c for reading in readings if reading.temperature_c is not None]
    reasons = frozenset().union(*(reading.reasons for reading in readings)) - {
        GPU_IDLE
    }  # between rounds any card idles
    return CardConditions(
        uuid=card.uuid,
        n_readings=len(readings),
        sm_clock_mhz=float(np.median(clocks)) if clocks else None,
        sm_clock_low_mhz=min(clocks) if clocks else None,
        temperature_c=max(temperatures) if temperatures else None,
        power_w=float(np.median(powers)) if powers else None,
        throttle_reasons=tuple(sorted(reasons)),
        n_other_processes=other_processes(card.process_ids(), family, os.getpid()),
    )
