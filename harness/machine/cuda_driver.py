"""What the CUDA driver says of itself and its devices, through ctypes: neither a missing driver nor an old one harms.

Knows no CUDA library for Python; `cuda` does everything else.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from pathlib import Path

LIBRARY = "libcuda.so.1"
MANAGEMENT_LIBRARY = "libnvidia-ml.so.1"
KERNEL_MODULE = Path("/proc/driver/nvidia/version")
VERSION_CHARACTERS = 80  # NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE
COMPUTE_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


class DriverProbe:
    """What the driver says without any CUDA library: devices, names, versions; `reason` when there is none."""

    def __init__(
        self,
        reason: str = "",
        names: tuple[str, ...] = (),
        driver: str = "",
        cuda_version: str = "",
        compute_capabilities: tuple[str, ...] = (),
    ) -> None:
        self.reason, self.names = reason, names
        self.driver = driver  # NVIDIA's, for example 580.65.06; "" where nothing tells it
        self.cuda_version = cuda_version  # the latest CUDA that the driver serves, for example 13.0
        self.compute_capabilities = compute_capabilities  # one a device


def probe_driver(library: str = LIBRARY) -> DriverProbe:
    """Ask the CUDA driver for its devices through ctypes; it cannot crash where no driver is installed."""
    try:
        cuda = ctypes.CDLL(library)
    except OSError as error:
        return DriverProbe(reason=f"no CUDA driver: {error}")
    status = cuda.cuInit(0)
    if status == NO_DEVICE:
        return DriverProbe(reason="no CUDA device: the driver is installed but lists none")
    if status != 0:
        return DriverProbe(reason=f"no CUDA driver: cuInit returned {status}")
    n_devices, version = ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(n_devices))
    cuda.cuDriverGetVersion(ctypes.byref(version))
    names = tuple(_device_name(cuda, ordinal) for ordinal in range(n_devices.value))
    if not names:
        return DriverProbe(reason="no CUDA device: the driver is installed but lists none")
    return DriverProbe(
        names=names,
        driver=driver_version(),
        cuda_version=_dotted(version.value),
        compute_capabilities=tuple(_compute_capability(cuda, ordinal) for ordinal in range(n_devices.value)),
    )


def driver_version(library: str = MANAGEMENT_LIBRARY, kernel_module: Path = KERNEL_MODULE) -> str:
    """Return the version of NVIDIA's driver, for example `580.65.06`; "" where nothing tells it.

    The management library says it, else the kernel module's file; containers may lack either.
    """
    found = _version_from_nvml(library)
    if found:
        return found
    try:
        text = kernel_module.read_text(errors="replace")
    except OSError:
        return ""
    match = re.search(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", text, re.MULTILINE)
    return match[1] if match else ""


def _version_from_nvml(library: str) -> str:
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        return ""
    if nvml.nvmlInit_v2() != 0:
        return ""
    text = ctypes.create_string_buffer(VERSION_CHARACTERS)
    status = nvml.nvmlSystemGetDriverVersion(text, len(text))
    nvml.nvmlShutdown()
    return text.value.decode(errors="replace") if status == 0 else ""


def _device_name(cuda: ctypes.CDLL, ordinal: int) -> str:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    cuda.cuDeviceGet(ctypes.byref(device), ordinal)
    cuda.cuDeviceGetName(name, len(name), device)
    return name.value.decode(errors="replace")


def _compute_capability(cuda: ctypes.CDLL, ordinal: int) -> str:
    device, number, numbers = ctypes.c_int(), ctypes.c_int(), []
    cuda.cuDeviceGet(ctypes.byref(device), ordinal)
    for attribute in COMPUTE_CAPABILITY:
        cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        numbers.append(str(number.value))
    return ".".join(numbers)


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


# Compute capability from which a precision is faster than FP32, and those newer ones that lack it again.
# Source: CUDA C++ Programming Guide, throughput of native arithmetic instructions; TensorRT's support matrix.
FAST_SINCE = {"fp32": (0, 0), "fp16": (6, 0), "bf16": (8, 0), "int8": (6, 1)}
SLOW_AGAIN = {("fp16", (6, 1))}


def fast_precisions(compute_capabilities: Sequence[str]) -> tuple[str, ...]:
    """Return what all GPUs of these compute capabilities ("9.0") have fast kernels for, () where that is not known."""
    try:
        known = [tuple(int(part) for part in text.split(".")) for text in compute_capabilities]
    except ValueError:
        return ()
    if not known:
        return ()
    return tuple(
        name
        for name, first in FAST_SINCE.items()
        if all(capability >= first and (name, capability) not in SLOW_AGAIN for capability in known)
    )
