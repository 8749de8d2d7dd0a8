"""Torch-TensorRT: TensorRT takes the subgraphs of a PyTorch module that it can; PyTorch runs the rest, by name."""

from __future__ import annotations

from harness.backends._traits import Traits, refused, takes_files
from harness.backends.torch_cuda.adapter import TorchCudaBackend
from harness.backends.torch_cuda.probe import MODULES
from harness.backends.torch_trt.module import PACKAGE, TrtModule
from harness.specs import Precision


class TorchTrtBackend(TorchCudaBackend):
    """Runs ONNX files as PyTorch modules that Torch-TensorRT has compiled. Implements `protocols.Backend`."""

    name = "torch-trt"
    required_modules = (PACKAGE, *MODULES)
    module = TrtModule
    others = (PACKAGE,)
    traits = Traits(
        runtime="Torch-TensorRT",
        extra="torch-trt",
        device="cuda:0, ...",
        batch="up to the largest asked for",
        layers="nodes; how many engines, what PyTorch runs; no types",
        abilities={
            **takes_files({Precision.FP32: "as TensorRT chooses", Precision.FP16: "FP16 of the file"}),
            Precision.BF16: refused("not tried; `trt` has it"),
            Precision.INT8: refused("its Q/DQ come from another tool; `trt` reads these"),
        },
    )


BACKEND = TorchTrtBackend()
