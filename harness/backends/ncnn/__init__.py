"""ncnn on the CPU: `BACKEND` is the adapter. `import ncnn` happens in `probe` and `build`; pnnx is a program."""

from __future__ import annotations

import importlib.util

from harness.backends._cpu import import_runtime
from harness.backends._host.adapter import HostBackend
from harness.backends._host.request import Opened, OpenRequest
from harness.backends._traits import Traits, quantizes, takes_files
from harness.backends.ncnn.convert import METHODS, converted_model, quantized_model
from harness.backends.ncnn.files import NcnnFiles
from harness.backends.ncnn.runner import READ_BACK, NcnnRunner, Storage, load_net
from harness.precision.recipe import NCNN
from harness.specs import Precision

STORAGE = {Precision.FP16: Storage.FP16, Precision.BF16: Storage.BF16}


class NcnnBackend(HostBackend):
    """Runs what pnnx makes of ONNX files, image by image."""

    name = "ncnn"
    required_modules = ("ncnn", "onnx", "onnxruntime")
    distributions = ("ncnn", "pnnx")
    traits = Traits(
        runtime="ncnn",
        extra="ncnn",
        batch="one image after the other",
        layers="names, types, times",
        abilities={
            **takes_files(
                {
                    Precision.FP32: "FP32",
                    Precision.FP16: "stored in FP16; arithmetic unknown",
                    Precision.BF16: "stored in BF16; arithmetic unknown",
                }
            ),
            Precision.INT8: quantizes(NCNN, "8-bit kernels, by ranges of ours"),
        },
    )

    @property
    def install_hint(self) -> str:
        """Return the commands: pnnx declares PyTorch as its dependency, which its program does not need."""
        return f"{self.traits.install_hint}; pip install --no-deps pnnx"

    def missing(self) -> str:
        """Say that there is no converter."""
        return "" if importlib.util.find_spec("pnnx") else "pnnx is not installed"

    def open(self, request: OpenRequest) -> Opened:
        """Convert the file, quantize it where that is asked, and load it. Raises: BuildError, Unsupported."""
        ncnn = import_runtime("ncnn", self.install_hint)
        is_int8 = request.artifact.precision is Precision.INT8
        storage = STORAGE.get(request.artifact.precision, Storage.FP32)
        made = converted_model(request, self.versions())
        if is_int8:
            made = quantized_model(ncnn, request, made, self.versions())
        files = NcnnFiles.unpacked(made.data)
        net = load_net(ncnn, files, request, storage)
        stored = f"weights are stored in {storage.name}; ncnn does not say what it multiplies in"
        return Opened(
            runner=NcnnRunner(ncnn, net, files, request, storage),
            engine_bytes=len(files.param) + len(files.weights),
            options={name: str(getattr(net.opt, name)) for name in READ_BACK},
            notes=("ncnn has no batches: a batch of N is N runs", *(() if storage is Storage.FP32 else (stored,))),
            converted=made,
            calibration=request.calibrated_by(METHODS[request.artifact.recipe], 1) if is_int8 else None,
        )


BACKEND = NcnnBackend()
