"""An engine of a module on a GPU, or a GPU that is let go of again."""

from __future__ import annotations

from typing import Any

from harness.backends._cpu import import_runtime
from harness.backends._cuda.opening import gpu_for_engine
from harness.backends._cuda.options import CudaOptions
from harness.backends._host.agreement import N_IMAGES, compared
from harness.backends._host.request import OpenRequest
from harness.backends.torch.compiled import Target
from harness.backends.torch.graph import check_operators
from harness.backends.torch_cuda.engine import TorchCudaEngine
from harness.backends.torch_cuda.module import CudaModule
from harness.specs import Precision


def open_engine(
    request: OpenRequest, *, index: int, install_hint: str, kind: type[CudaModule] = CudaModule
) -> TorchCudaEngine:
    """Open a module of some kind on a GPU as an engine, and compare what is not INT8 with ONNX Runtime.

    Raises: BuildError, BackendUnavailable, Unsupported.
    """
    check_operators(request.model, request.label)
    torch = import_runtime("torch", install_hint)
    # A free batch takes as many images as the comparison needs.
    largest = request.input.shape[0] or max(N_IMAGES, *request.batch_sizes)
    with gpu_for_engine(index) as gpu:
        target = Target(
            device=f"cuda:{index}",
            index=index,
            kind=f"{gpu.name}, {gpu.compute_capability}",
            tf32=CudaOptions.of(request.options.settings).tf32,
        )

        def make_module(stream: Any) -> CudaModule:
            return kind(torch, request, target, stream=stream, largest=largest)

        engine = TorchCudaEngine(make_module, gpu, request, largest=largest)
        try:
            if request.artifact.precision is not Precision.INT8:
                smallest = min(request.batch_sizes)
                engine.facts = compared(engine, request.model, batch_size=smallest, label=request.label)
        except BaseException:
            engine.close()
            raise
        return engine
