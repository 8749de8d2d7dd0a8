"""PyTorch on the CPU: `BACKEND` is the adapter. `import torch` happens in `build`, in worker processes only."""

from __future__ import annotations

import contextlib
import os

from harness.backends._cpu import import_runtime
from harness.backends._host.adapter import HostBackend
from harness.backends._host.request import Opened, OpenRequest
from harness.backends._traits import Traits, takes_files
from harness.backends.torch.compiled import call_of_mode
from harness.backends.torch.graph import check_operators, module_of
from harness.backends.torch.options import COMPILED, TorchOptions
from harness.backends.torch.runner import TorchRunner, scope_of
from harness.specs import Precision


class TorchBackend(HostBackend):
    """Runs ONNX files as PyTorch modules."""

    name = "torch"
    required_modules = ("torch", "onnx", "onnxruntime")
    distributions = ("torch",)
    is_light = False
    traits = Traits(
        runtime="PyTorch",
        extra="torch",
        batch="free",
        layers="nodes, types, times; of compiled modes no types, no times",
        abilities=takes_files(
            {
                Precision.FP32: "FP32",
                Precision.FP16: "FP16, slow on a CPU",
                Precision.BF16: "BF16 of the file, or by autocast",
                Precision.INT8: "Q/DQ as float emulation",
            }
        ),
    )

    def open(self, request: OpenRequest) -> Opened:
        """Make a module of the file, and of that what the mode asks for. Raises: BuildError, Unsupported."""
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a spinning pool takes the cores of what is timed next
        torch = import_runtime("torch", self.install_hint)
        torch.set_num_threads(request.options.num_threads)
        with contextlib.suppress(RuntimeError):  # may be set once in a process
            torch.set_num_interop_threads(1)
        check_operators(request.model, request.label)
        module = module_of(torch, request.model)
        mode = TorchOptions.of(request.options.settings).mode
        scope = scope_of(torch, request, mode)
        call, made = call_of_mode(torch, module, request, mode, versions=self.versions())
        tells_kernels = mode not in COMPILED
        return Opened(
            runner=TorchRunner(torch, module, call, scope=scope, tells_kernels=tells_kernels),
            engine_bytes=len(made.data) if made is not None else os.path.getsize(request.artifact.onnx_path),
            options={
                "mode": mode,
                "num_threads": str(torch.get_num_threads()),
                "num_interop_threads": str(torch.get_num_interop_threads()),
            },
            notes=() if made is not None else ("engine size is that of the ONNX file",),
            converted=made,
        )


BACKEND = TorchBackend()
