"""Whether there is a PyTorch that computes on a GPU here."""

from __future__ import annotations

import importlib.util

from harness.backends._child import run_child
from harness.backends._cuda.probing import availability
from harness.backends._traits import Traits, takes_files
from harness.machine.cuda_driver import probe_driver
from harness.records import Availability
from harness.specs import Precision

MODULES = ("torch", "onnx", "onnxruntime")
TRAITS = Traits(
    runtime="PyTorch on CUDA",
    extra="torch-cuda",
    device="cuda:0, ...",
    batch="up to the largest asked for",
    layers="nodes, types; of compiled modes no types",
    abilities=takes_files(
        {
            Precision.FP32: "FP32, TF32 when asked",
            Precision.FP16: "FP16",
            Precision.BF16: "BF16 of the file, or by autocast",
            Precision.INT8: "Q/DQ as float emulation",
        }
    ),
)
NO_CUDA = "none"
# In a process of its own: a build for another GPU or driver says so, or crashes, when the first kernel is launched.
CHILD = f"""
import importlib, json, torch
found = {{"torch": torch.__version__, "cuda": torch.version.cuda or "{NO_CUDA}"}}
print(json.dumps({{"step": "import", "versions": found}}), flush=True)
if torch.version.cuda:
    ones = torch.ones(2, device="cuda:0")
    if (ones + ones).sum().item() != 4.0:
        raise RuntimeError("1 + 1 is not 2 on cuda:0")
    print(json.dumps({{"step": "computed", "versions": found}}), flush=True)
    for name in sys.argv[1:]:
        found[name] = importlib.import_module(name).__version__
print(json.dumps({{"step": "done", "versions": found}}), flush=True)
"""


def probe_backend(name: str, *, others: tuple[str, ...] = (), hint: str = TRAITS.install_hint) -> Availability:
    """Look for a driver and a device, then let PyTorch compute in a child process; `others`: see `probe_torch`."""
    driver = probe_driver()
    versions, reason = ({}, driver.reason) if driver.reason else probe_torch(others)
    return availability(name, driver, versions=versions, reason=reason, install_hint=hint)


def probe_torch(others: tuple[str, ...] = ()) -> tuple[dict[str, str], str]:
    """Return the versions of PyTorch and its CUDA, and why they cannot be used, "" when they can.

    `others`: modules that are imported after it.
    """
    for module in (*others, *MODULES):
        if importlib.util.find_spec(module) is None:
            return {}, f"the Python module {module} is not installed"
    end = run_child(CHILD, *others)
    if not end.answers:
        return {}, end.reason("torch", "when imported")
    step, versions = end.answers[-1]["step"], dict(end.answers[-1]["versions"])
    if versions["cuda"] == NO_CUDA:
        return versions, f"torch {versions['torch']} is a build without CUDA"
    if step == "computed":
        return versions, end.reason(", ".join(others), "when imported")
    if step != "done" or end.returncode:
        return versions, end.reason("torch", "when it computed on cuda:0")
    return versions, ""
