"""ExecuTorch on the CPU by XNNPACK: `BACKEND` is the adapter. Programs are lowered in a child and run in the worker."""

from __future__ import annotations

import importlib.util
import json

from harness.backends._cpu import import_runtime
from harness.backends._host.adapter import HostBackend
from harness.backends._host.request import Opened, OpenRequest
from harness.backends._traits import Traits, quantizes, refused, takes_files
from harness.backends.executorch.convert import METHOD, Programs, converted_programs
from harness.backends.executorch.runner import ExecutorchRunner
from harness.precision.recipe import EXECUTORCH
from harness.specs import Precision

BINDINGS = "executorch.extension.pybindings.portable_lib"


class ExecutorchBackend(HostBackend):
    """Runs programs that ExecuTorch's XNNPACK partitioner makes of ONNX files."""

    name = "executorch"
    required_modules = ("executorch", "torch", "onnx", "onnxruntime")
    distributions = ("executorch", "torch", "torchao")
    is_light = False
    traits = Traits(
        runtime="ExecuTorch (XNNPACK)",
        extra="executorch",
        batch="a program for each size asked for; others are filled up",
        layers="names and types of products as XNNPACK took them; no times",
        abilities={
            **takes_files({Precision.FP32: "FP32"}),
            Precision.FP16: refused("not tried"),
            Precision.BF16: refused("not tried"),
            Precision.INT8: quantizes(EXECUTORCH, "8-bit kernels, calibrated by PT2E"),
        },
    )

    @property
    def install_hint(self) -> str:
        """Return the commands: most of what ExecuTorch declares is for other devices."""
        return f"{self.traits.install_hint}; pip install --no-deps executorch"

    def missing(self) -> str:
        """Say that there is no quantizer."""
        return "" if importlib.util.find_spec("torchao") else "torchao, its quantizer, is not installed"

    def open(self, request: OpenRequest) -> Opened:
        """Lower a program for each batch size and load them. Raises: BuildError, Unsupported, BackendUnavailable."""
        import_runtime("executorch", self.install_hint)  # before the child that needs it too
        made = converted_programs(request, self.versions())
        programs, told = Programs.unpacked(made.data), json.loads(made.meta["told"])
        torch = import_runtime("torch", self.install_hint)
        torch.set_num_threads(request.options.num_threads)
        bindings = import_runtime(BINDINGS, self.install_hint)
        bindings._unsafe_reset_threadpool(request.options.num_threads)
        is_int8 = request.artifact.precision is Precision.INT8
        left = told["portable"]
        note = f"not taken by XNNPACK, and run by portable kernels: {', '.join(left)}"
        return Opened(
            runner=ExecutorchRunner(torch, bindings, programs, told, request.label),
            engine_bytes=sum(len(data) for data in programs.by_size.values()),
            options={"num_threads": str(bindings._threadpool_get_thread_count()), "delegate": "XNNPACK"},
            notes=(note,) if left else (),
            converted=made,
            calibration=request.calibrated_by(METHOD, told["calibration_batch"]) if is_int8 else None,
        )


BACKEND = ExecutorchBackend()
