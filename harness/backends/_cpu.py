"""What the CPU adapters share: which cases they take, their windows, how a runtime is imported."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BackendUnavailable, BuildError, ConfigError
from harness.machine.cpu import int8_isa, int8_weight_bits
from harness.models.onnx_graph import check_scales, load_model, one_line
from harness.precision import find_recipe
from harness.records import CPU, Artifact, Availability, EngineFile, Support
from harness.specs import Case
from harness.store.cache import sha256_of_file

if TYPE_CHECKING:
    from onnx import ModelProto

INSTALL_HINT = "pip install 'nn-engine-harness[cpu]'"
WINDOWS = ("compute", "end_to_end")
LAUNCHES = ("auto", "call")
PROFILE_NS = 1_000_000_000  # time spent on profiled runs
MIN_PROFILE_RUNS, MAX_PROFILE_RUNS = 3, 50  # a run adds some 7 KB to ONNX Runtime's profile


def support_on_cpu(case: Case, backend: str) -> Support:
    """Say whether a CPU runtime that reads Q/DQ files can do a case.

    FP16 and BF16 run, in FP32 kernels where the CPU has no others: that is read back, not refused.
    """
    if case.device != CPU:
        return Support(supported=False, reason=f"{backend} runs on cpu here, not on {case.device}")
    if find_recipe(case.precision, case.recipe).quantizes_in:
        reason = f"recipe {case.recipe} quantizes inside another runtime; {backend} takes files with Q/DQ nodes"
        return Support(supported=False, reason=reason)
    return Support(supported=True, int8_weight_bits=qdq_weight_bits())


def qdq_weight_bits() -> int:
    """Return the weight bits of Q/DQ files on this CPU: 7 where its 8-bit kernels saturate."""
    return int8_weight_bits(int8_isa())


def checked_model(artifact: Artifact, backend: str, device: str) -> ModelProto:
    """Load the ONNX file that a CPU engine is built from. Raises: BuildError for another device or a bad file."""
    check_device(backend, device)
    return prepared_model(artifact)


def prepared_model(artifact: Artifact) -> ModelProto:
    """Load the ONNX file that an engine is built from. Raises: BuildError for one that is gone, or bad scales."""
    if not Path(artifact.onnx_path).is_file():
        raise BuildError(f"{artifact.onnx_path} does not exist; prepare {artifact.model} again")
    model = load_model(artifact.onnx_path)
    check_scales(model, artifact.onnx_path)
    return model


def check_engine_file(file: EngineFile, model: str) -> None:
    """Refuse an engine that is gone, or is not the one that was named. Raises: BuildError."""
    try:
        found = sha256_of_file(Path(file.path))
    except OSError as error:
        raise BuildError(f"{model}: engine {file.path} cannot be read ({error.strerror})") from error
    if found != file.sha256:
        raise BuildError(f"{model}: engine {file.path} is not the one of sha256 {file.sha256[:16]}")


def check_device(backend: str, device: str) -> None:
    """Refuse another device than the CPU. Raises: BuildError."""
    if device != CPU:
        raise BuildError(f"{backend} was asked for device {device}; it runs on cpu")


def check_timer_request(window: str, launch: str, engine: str) -> None:
    """Refuse a window or launch that a CPU engine lacks. Raises: ConfigError."""
    if window not in WINDOWS or launch not in LAUNCHES:
        more = "; end_to_end is what host is on a GPU" if window == "host" else ""
        raise ConfigError(
            f"{engine}: a CPU engine has no window {window!r} with launch {launch!r}; "
            f"windows are {' and '.join(WINDOWS)}, launch is auto{more}"
        )


def n_profile_runs(run_ns: float) -> int:
    """Return how many profiled runs fit into about a second, at least 3 and at most 50."""
    return min(max(math.ceil(PROFILE_NS / max(run_ns, 1.0)), MIN_PROFILE_RUNS), MAX_PROFILE_RUNS)


def import_runtime(module: str, install_hint: str = INSTALL_HINT) -> Any:
    """Import a runtime. Raises: BackendUnavailable with the reason and what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailable(f"{import_reason(module, error)}; {install_hint}") from error


def import_reason(module: str, error: ImportError) -> str:
    """Return one line on why a module could not be imported."""
    if isinstance(error, ModuleNotFoundError) and error.name == module:
        return f"{module} is not installed"
    return f"{module} cannot be imported: {one_line(error)}"


def unusable(backend: str, reason: str, install_hint: str = INSTALL_HINT) -> Availability:
    """Return the answer of a probe that failed."""
    return Availability(backend=backend, usable=False, reason=reason, install_hint=install_hint)
