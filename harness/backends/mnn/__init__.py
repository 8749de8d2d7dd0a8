"""MNN on the CPU: `BACKEND` is the adapter. `import MNN` happens in `probe` and `build`; its tools run in a child."""

from __future__ import annotations

from harness.backends._cpu import import_runtime
from harness.backends._host.adapter import HostBackend
from harness.backends._host.request import Opened, OpenRequest
from harness.backends._traits import Traits, quantizes, refused, takes_files
from harness.backends.mnn.convert import BATCH, METHODS, converted_model, quantized_model
from harness.backends.mnn.runner import MnnRunner
from harness.precision.recipe import MNN
from harness.specs import Precision


class MnnBackend(HostBackend):
    """Runs what MNN's converter makes of ONNX files."""

    name = "mnn"
    required_modules = ("MNN", "onnx", "onnxruntime")
    distributions = ("mnn",)
    traits = Traits(
        runtime="MNN",
        extra="mnn",
        batch="free; a session for each size",
        layers="names, types, times",
        abilities={
            **takes_files({Precision.FP32: "FP32", Precision.FP16: "FP32, weights stored in FP16"}),
            Precision.BF16: refused("it takes a BF16 file and answers with what lay in memory"),
            Precision.INT8: quantizes(MNN, "8-bit kernels, calibrated by itself"),
        },
    )

    def open(self, request: OpenRequest) -> Opened:
        """Convert the file, quantize it where that is asked, and open it. Raises: BuildError, Unsupported."""
        mnn = import_runtime("MNN", self.install_hint)
        is_int8 = request.artifact.precision is Precision.INT8
        made = converted_model(request, self.versions())
        if is_int8:
            made = quantized_model(request, made, self.versions())
        runner = MnnRunner(mnn, made.data, request)
        return Opened(
            runner=runner,
            engine_bytes=len(made.data),
            options={"numThread": f"{request.options.num_threads} (as asked)", "precision": "high", **runner.facts()},
            converted=made,
            calibration=request.calibrated_by(METHODS[request.artifact.recipe].lower(), BATCH) if is_int8 else None,
        )


BACKEND = MnnBackend()
