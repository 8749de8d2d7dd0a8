"""What the CPU adapters share: which cases they take, their windows, how a runtime is imported."""

from __future__ import annotations

import importlib
import math
from typing import Any

from harness.errors import BackendUnavailable, ConfigError
from harness.machine.cpu import int8_isa, int8_weight_bits
from harness.models.onnx_graph import one_line
from harness.records import Availability, Support
from harness.specs import Case, Precision

INSTALL_HINT = "pip install 'nn-engine-harness[cpu]'"
QDQ_RECIPES = ("qdq", "nncf")  # prefixes of the recipes whose artifact holds Q/DQ nodes
WINDOWS = ("compute", "end_to_end")
LAUNCHES = ("auto", "call")
PROFILE_NS = 1_000_000_000  # time spent on profiled runs
MIN_PROFILE_RUNS, MAX_PROFILE_RUNS = 3, 50  # a run adds some 7 KB to ONNX Runtime's profile


def support_on_cpu(case: Case, backend: str) -> Support:
    """Say whether a CPU runtime that reads Q/DQ files can do a case.

    FP16 and BF16 run, in FP32 kernels where the CPU has no others: that is read back, not refused.
    """
    if case.device != "cpu":
        return Support(supported=False, reason=f"{backend} runs on cpu here, not on {case.device}")
    if case.precision is Precision.INT8 and not case.recipe.startswith(QDQ_RECIPES):
        reason = f"recipe {case.recipe} quantizes inside another runtime; {backend} takes files with Q/DQ nodes"
        return Support(supported=False, reason=reason)
    return Support(supported=True, int8_weight_bits=int8_weight_bits(int8_isa()))


def check_timer_request(window: str, launch: str, engine: str) -> None:
    """Refuse a window or launch that a CPU engine lacks. Raises: ConfigError."""
    if window not in WINDOWS or launch not in LAUNCHES:
        raise ConfigError(
            f"{engine}: a CPU engine has no window {window!r} with launch {launch!r}; "
            f"windows are {' and '.join(WINDOWS)}, launch is auto"
        )


def n_profile_runs(run_ns: float) -> int:
    """Return how many profiled runs fit into about a second, at least 3 and at most 50."""
    return min(max(math.ceil(PROFILE_NS / max(run_ns, 1.0)), MIN_PROFILE_RUNS), MAX_PROFILE_RUNS)


def import_runtime(module: str) -> Any:
    """Import a runtime. Raises: BackendUnavailable with the reason and what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailable(f"{import_reason(module, error)}; {INSTALL_HINT}") from error


def import_reason(module: str, error: ImportError) -> str:
    """Return one line on why a module could not be imported."""
    if isinstance(error, ModuleNotFoundError) and error.name == module:
        return f"{module} is not installed"
    return f"{module} cannot be imported: {one_line(error)}"


def unusable(backend: str, reason: str) -> Availability:
    """Return the answer of a probe that failed."""
    return Availability(backend=backend, usable=False, reason=reason, install_hint=INSTALL_HINT)
