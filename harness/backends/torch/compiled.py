"""The other ways that PyTorch runs a module: a frozen TorchScript, torch.compile, a package of AOTInductor."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.backends._cpu import import_runtime
from harness.backends._host.conversion import Converted, converted, run_converter
from harness.backends._host.request import OpenRequest
from harness.backends.torch import aoti
from harness.backends.torch.options import COMPILE, COMPILED, EAGER, SCRIPT
from harness.errors import BuildError
from harness.store.cache import make_own_folder

Call = Callable[[Any], Any]
INDUCTOR_CACHE = "TORCHINDUCTOR_CACHE_DIR"  # else it writes into the temporary folder
LARGEST_BATCH = 1024  # that a package takes, unless a larger one is asked for
REVISION = 2  # raised when the same PyTorch would be given another module


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The device that code is made for."""

    device: str = "cpu"  # as PyTorch calls it
    index: int | None = None  # of a GPU
    kind: str = ""  # of a GPU: its name and compute capability, which its code is made for
    tf32: bool = False


CPU_TARGET = Target()


def call_of_mode(
    torch: Any,
    module: Any,
    request: OpenRequest,
    mode: str,
    *,
    versions: Mapping[str, str],
    target: Target = CPU_TARGET,
) -> tuple[Call, Converted | None]:
    """Return the call that runs a module in some mode, and what was converted for it.

    `module`: on the device of `target` already. Raises: BuildError.
    """
    if mode == EAGER:
        return module, None
    if mode in COMPILED and shutil.which("g++") is None:
        raise BuildError(f"{request.label}: mode {mode} needs a C++ compiler (g++); there is none")
    try:
        if mode == SCRIPT:
            return _scripted(torch, module, request, target), None
        if mode == COMPILE:
            return _compiled(torch, module, request, target), None
        made = _package(request, versions, target)
        return _loaded(made, target), made
    except (RuntimeError, ValueError, TypeError) as error:
        raise BuildError(f"{request.label}: PyTorch's mode {mode} fails: {' '.join(str(error).split())}") from error


def _example(torch: Any, request: OpenRequest, target: Target) -> Any:
    row = [size or 1 for size in request.input.shape[1:]]
    return torch.rand(request.input.shape[0] or aoti.EXAMPLE_BATCH, *row, device=target.device)


def _scripted(torch: Any, module: Any, request: OpenRequest, target: Target) -> Call:
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says at every call that TorchScript is old
        scripted: Call = torch.jit.freeze(torch.jit.trace(module, _example(torch, request, target)))
    return scripted


def _compiled(torch: Any, module: Any, request: OpenRequest, target: Target) -> Call:
    if request.options.cache_dir:
        folder = Path(request.options.cache_dir) / "torchinductor"
        make_own_folder(folder)  # shared objects, which PyTorch loads as it finds them
        os.environ[INDUCTOR_CACHE] = str(folder)
    with torch.inference_mode():
        # An exported graph has no Python left that would be compiled piece by piece.
        graph = aoti.exported_module(torch, module, *_free_shape(request), target.device).module()
        compiled: Call = torch.compile(graph, dynamic=request.input.shape[0] is None)
        compiled(_example(torch, request, target))
    return compiled


def _package(request: OpenRequest, versions: Mapping[str, str], target: Target) -> Converted:
    """Return what AOTInductor compiles of the artifact. Raises: BuildError."""
    largest, shape = _free_shape(request)

    def make(folder: Path) -> tuple[bytes, dict[str, str]]:
        import_runtime("onnx").save(request.model, str(folder / aoti.MODEL))
        code = f"from {aoti.__name__} import main; main(*sys.argv[1:])"
        asked = (request.options.num_threads, target.device, int(target.tf32), largest, *shape)
        words = [str(word) for word in asked]
        here = {INDUCTOR_CACHE: str(folder / "cache")}
        run_converter("AOTInductor", code, *words, subject=request.subject, folder=folder, environment=here)
        return (folder / aoti.RESULT).read_bytes(), {}

    key = {
        "to": "pt2",
        "artifact": request.artifact.sha256,
        "threads": request.options.num_threads,
        "largest": largest,
        "device": target.kind,
        "tf32": target.tf32,
        "revision": REVISION,
        **versions,
    }
    return converted(request.options, key, f"{request.artifact.model}.pt2", make)


def _free_shape(request: OpenRequest) -> tuple[int, tuple[int, ...]]:
    """Return the largest batch and an image's shape, or 0 and the shape of a fixed batch."""
    fixed, row = request.input.shape[0], tuple(size or 1 for size in request.input.shape[1:])
    return (0, (fixed, *row)) if fixed else (max(LARGEST_BATCH, *request.batch_sizes), row)


def _loaded(made: Converted, target: Target) -> Call:
    inductor = import_runtime("torch._inductor")
    with tempfile.TemporaryDirectory(prefix="harness-torch-") as folder:
        path = Path(folder) / aoti.RESULT
        path.write_bytes(made.data)
        # On a GPU no locks and events of its own: they could not be captured into a CUDA graph.
        on_gpu = {} if target.index is None else {"run_single_threaded": True, "device_index": target.index}
        loaded: Call = inductor.aoti_load_package(str(path), **on_gpu)
    return loaded
