"""What a probe of a CUDA backend answers: what the driver says of its devices, and why the runtime cannot be used."""

from __future__ import annotations

from collections.abc import Mapping

from harness.machine.cuda_driver import DriverProbe, fast_precisions
from harness.records import Availability


def availability(
    backend: str, driver: DriverProbe, *, versions: Mapping[str, str], reason: str, install_hint: str
) -> Availability:
    """Return the answer of a probe; `reason`: why the runtime cannot be used, "" when it can."""
    return Availability(
        backend=backend,
        usable=not reason,
        reason=reason,
        install_hint=install_hint if reason else "",
        versions=dict(versions),
        devices=tuple(f"cuda:{index}" for index in range(len(driver.names))),
        device_names=driver.names,
        driver=driver.driver,
        cuda_version=driver.cuda_version,
        compute_capabilities=driver.compute_capabilities,
        fast_precisions=fast_precisions(driver.compute_capabilities),
        device_uuids=driver.uuids,
    )
