"""The machine and software a record was made on, read once per process. No runtime is imported."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from harness.machine.cpu import int8_isa
from harness.records import Environment

DISTRIBUTIONS = (
    "nn-engine-harness",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "nncf",
    "tensorrt",
    "tensorrt-rtx",
    "pycuda",
    "cuda-bindings",
)
GIT_TIMEOUT_S = 5


def collect_environment(
    *,
    device: str = "cpu",
    device_name: str = "",
    driver: str = "",
    cuda_version: str = "",
    compute_capability: str = "",
    versions: Mapping[str, str] | None = None,
    checkout: Path | None = None,
) -> Environment:
    """Describe this machine; `versions` (as read from the runtimes) win over the installed distributions'."""
    cpu = cpu_model()
    memory = psutil.virtual_memory().total
    n_cpus = psutil.cpu_count() or 1
    accelerator = f"{device_name}, " if device_name and device != "cpu" else ""
    return Environment(
        machine=f"{accelerator}{cpu}, {n_cpus} CPUs, {memory / 2**30:.0f} GiB",
        cpu_model=cpu,
        cpu_isa=int8_isa(),
        n_cpus=n_cpus,
        memory_bytes=memory,
        os=platform.platform(aliased=True, terse=True),
        python=platform.python_version(),
        versions={**installed_versions(DISTRIBUTIONS), **(versions or {})},
        device=device,
        device_name=device_name or cpu,
        driver=driver,
        cuda_version=cuda_version,
        compute_capability=compute_capability,
        commit=commit_of(checkout) if checkout else "",
    )


def installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed."""
    found = {}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_model() -> str:
    """Return the CPU's model name, from /proc/cpuinfo where there is one."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def commit_of(checkout: Path) -> str:
    """Return the checkout's commit, with `+` when files differ from it; empty outside a git checkout."""
    git = shutil.which("git")
    if not git:
        return ""
    try:
        head = subprocess.run(
            [git, "-C", str(checkout), "describe", "--always", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return ""
    return head.stdout.strip()
