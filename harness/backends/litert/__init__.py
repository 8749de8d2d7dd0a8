"""LiteRT (TensorFlow Lite) on the CPU: `BACKEND` is the adapter. TensorFlow converts in a child and is not imported."""

from __future__ import annotations

import importlib.util
from typing import Any

from harness.backends._cpu import import_runtime
from harness.backends._host.adapter import HostBackend
from harness.backends._host.request import Opened, OpenRequest
from harness.backends._traits import Traits, quantizes, refused, takes_files
from harness.backends.litert import tflite
from harness.backends.litert.convert import converted_model
from harness.backends.litert.options import LitertOptions
from harness.backends.litert.runner import LitertRunner
from harness.precision.recipe import LITERT
from harness.specs import Precision

KINDS = {"litert-int8": tflite.INT8, "litert-dynamic": tflite.DYNAMIC}


class LitertBackend(HostBackend):
    """Runs what TensorFlow's converter makes of ONNX files."""

    name = "litert"
    required_modules = ("ai_edge_litert", "onnx", "onnxruntime")
    distributions = ("ai-edge-litert", "tensorflow-cpu", "tensorflow")
    traits = Traits(
        runtime="LiteRT (TensorFlow Lite)",
        extra="litert",
        batch="free; an interpreter for each size asked for",
        layers="names, types; no times",
        abilities={
            **takes_files({Precision.FP32: "FP32", Precision.FP16: "FP32, weights stored in FP16"}),
            Precision.BF16: refused("its converter knows no BF16"),
            Precision.INT8: quantizes(LITERT, "8-bit kernels, calibrated by its converter"),
        },
    )

    def missing(self) -> str:
        """Say that there is no converter."""
        return "" if importlib.util.find_spec("tensorflow") else "tensorflow, its converter, is not installed"

    def open(self, request: OpenRequest) -> Opened:
        """Convert the file and open it. Raises: BuildError, Unsupported, BackendUnavailable."""
        litert = import_runtime("ai_edge_litert.interpreter", self.install_hint)
        is_half = request.artifact.precision is Precision.FP16
        kind = KINDS.get(request.artifact.recipe, tflite.FP16 if is_half else tflite.FP32)
        made, nodes = converted_model(request, kind, self.versions())
        kernels, threads = litert.OpResolverType.AUTO, request.options.num_threads
        is_reference = LitertOptions.of(request.options.settings).reference_kernels
        if is_reference:
            kernels = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES

        def make() -> Any:
            interpreter = litert.Interpreter(
                model_content=made.data, num_threads=threads, experimental_op_resolver_type=kernels
            )
            interpreter.allocate_tensors()
            return interpreter

        return Opened(
            runner=LitertRunner(make, () if request.input.shape[0] else request.batch_sizes, nodes),
            engine_bytes=len(made.data),
            options={"num_threads": f"{threads} (as asked)", "xnnpack": "off" if is_reference else "on (as asked)"},
            converted=made,
            calibration=request.calibrated_by("minmax", 1) if kind == tflite.INT8 else None,
        )


BACKEND = LitertBackend()
