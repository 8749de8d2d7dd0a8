"""One GPU as NVIDIA's management library tells of it, through `nvidia-ml-py`: everything works without either."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

MODULE = "pynvml"  # of the distribution nvidia-ml-py
W_PER_MW = 1e-3
# Source: NVML API Reference, nvmlClocksEventReasons; the bits are older than their newer name.
REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
SLOWDOWNS = frozenset({"hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"})
GPU_IDLE = "gpu_idle"  # between two rounds any card is


class CardReading(NamedTuple):
    """What a card says at one moment; None is what it does not say."""

    sm_clock_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    reasons: frozenset[str] = frozenset()

    @property
    def is_slowed(self) -> bool:
        """Tell whether the card was too hot, short of power, or braked from outside."""
        return bool(self.reasons & SLOWDOWNS)


class Card:
    """One GPU. A question that the library, the driver or the card does not answer is None, never an error."""

    def __init__(self, nvml: Any, handle: Any, uuid: str) -> None:
        self._nvml, self._handle, self.uuid = nvml, handle, uuid

    def reading(self) -> CardReading:
        """Read clock, temperature, power and the reasons for which clocks are held down."""
        nvml = self._nvml
        power_mw = self._ask("nvmlDeviceGetPowerUsage")
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if bits is None:  # before driver 535 and nvidia-ml-py 12.535
            bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return CardReading(
            sm_clock_mhz=_number(self._ask("nvmlDeviceGetClockInfo", getattr(nvml, "NVML_CLOCK_SM", 1))),
            temperature_c=_number(self._ask("nvmlDeviceGetTemperature", getattr(nvml, "NVML_TEMPERATURE_GPU", 0))),
            power_w=None if power_mw is None else power_mw * W_PER_MW,
            reasons=frozenset(name for bit, name in REASONS.items() if (bits or 0) & bit),
        )

    def energy_mj(self) -> int | None:
        """Return the energy that the card has taken since its driver was loaded [mJ]; Volta and newer tell it."""
        energy = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if energy is None else int(energy)

    def power_w(self) -> float | None:
        """Return the power that the card takes [W]."""
        power_mw = self._ask("nvmlDeviceGetPowerUsage")
        return None if power_mw is None else float(power_mw * W_PER_MW)

    def process_ids(self) -> frozenset[int] | None:
        """Return the processes with a compute context on the card, as the library numbers them."""
        found = self._ask("nvmlDeviceGetComputeRunningProcesses")
        return None if found is None else frozenset(int(process.pid) for process in found)

    def _ask(self, name: str, *arguments: object) -> Any:
        function = getattr(self._nvml, name, None)
        if function is None:
            return None
        try:
            return function(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None


def open_card(uuid: str) -> Card | None:
    """Return the card of a UUID as CUDA says it, "GPU-..."; None without library, driver, or such a card.

    The library stays open until the process ends.
    """
    if not uuid:
        return None
    try:
        nvml = importlib.import_module(MODULE)
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        return Card(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid), uuid)
    except nvml.NVMLError:
        return None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
