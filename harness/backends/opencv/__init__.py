"""OpenCV's DNN module on the CPU: `BACKEND` is the adapter. `import cv2` happens in `probe` and `build`."""

from __future__ import annotations

import os
from typing import Any

from harness.backends._cpu import import_runtime
from harness.backends._host.adapter import HostBackend
from harness.backends._host.request import Opened, OpenRequest
from harness.backends._inputs import timing_images
from harness.backends._traits import Traits, refused, takes_files
from harness.backends.opencv.options import AUTO, CLASSIC, NEW, OpencvOptions
from harness.backends.opencv.runner import OpencvRunner
from harness.errors import BuildError
from harness.specs import Precision

N_LOOKED_AT = 2  # images: of one alone the shape may be right
NOTES: tuple[str, ...] = ("engine size is that of the ONNX file: OpenCV keeps no other form on disk",)
ENGINE_OF = {Precision.FP16: NEW}  # the classic engine fails at the first batch of an FP16 file


class OpencvBackend(HostBackend):
    """Reads ONNX files by cv2.dnn."""

    name = "opencv"
    required_modules = ("cv2", "onnx", "onnxruntime")
    distributions = ("opencv-python-headless", "opencv-python", "opencv-contrib-python")
    traits = Traits(
        runtime="OpenCV DNN",
        extra="opencv",
        batch="free; the first call of a size allocates",
        layers="names, types of weights, times",
        abilities={
            **takes_files(
                {
                    Precision.FP32: "FP32",
                    Precision.FP16: "the FP16 file, by the new engine; arithmetic unknown",
                    Precision.INT8: "Q/DQ as float emulation",
                }
            ),
            Precision.BF16: refused("it reads no BF16 file"),
        },
    )

    def open(self, request: OpenRequest) -> Opened:
        """Read the file by the engine asked for. Raises: BuildError, BackendUnavailable."""
        cv2 = import_runtime("cv2", self.install_hint)
        cv2.utils.logging.setLogLevel(0)  # its errors are printed in many lines before they are raised
        cv2.setNumThreads(request.options.num_threads)
        asked = OpencvOptions.of(request.options.settings).engine
        engine = asked if asked != AUTO else ENGINE_OF.get(request.artifact.precision, CLASSIC)
        path = request.artifact.onnx_path

        def read() -> Any:
            try:
                return cv2.dnn.readNetFromONNX(path, getattr(cv2.dnn, f"ENGINE_{engine.upper()}"))
            except cv2.error as error:
                reason = " ".join(str(error).split())
                raise BuildError(f"{request.label}: OpenCV's {engine} engine cannot read {path}: {reason}") from error

        runner, notes = OpencvRunner(cv2, read, request, is_classic=engine == CLASSIC), NOTES
        if asked == AUTO and engine == CLASSIC and not gives_rows(runner, request):
            engine, notes = NEW, (*NOTES, "the classic engine gives outputs of another shape: read by the new one")
            runner = OpencvRunner(cv2, read, request, is_classic=False)
        return Opened(
            runner=runner,
            engine_bytes=os.path.getsize(path),
            options={"engine": engine, "num_threads": str(cv2.getNumThreads())},
            notes=notes,
        )


def gives_rows(runner: OpencvRunner, request: OpenRequest) -> bool:
    """Tell whether a batch gives a row an image; the classic engine keeps an axis that a Squeeze of [2, 3] takes away.

    One that fails altogether is told by the first batch of the engine.
    """
    n_images = request.input.shape[0] or N_LOOKED_AT
    try:
        shape = runner.run(timing_images(request.input, n_images)).shape
    except runner.errors:
        return True
    return len(shape) == 2 and shape[0] == n_images


BACKEND = OpencvBackend()
