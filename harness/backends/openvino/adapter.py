"""OpenVINO on the CPU. `import openvino` happens in `probe` and `build`, in worker processes only."""

from __future__ import annotations

import importlib

from harness.backends._cpu import INSTALL_HINT, checked_model, import_reason, support_on_cpu, unusable
from harness.backends._traits import Traits, takes_files
from harness.backends.openvino.compiled import DEVICE
from harness.backends.openvino.engine import NAME, OpenvinoEngine
from harness.models.onnx_graph import index_nodes
from harness.protocols import CalibrationSet
from harness.records import Artifact, Availability, Support
from harness.specs import BuildOptions, Case, Precision


class OpenvinoBackend:
    """Builds OpenVINO engines on the CPU. Implements `protocols.Backend`."""

    name = NAME
    install_hint = INSTALL_HINT
    required_modules = ("openvino", "onnx")
    traits = Traits(
        runtime="OpenVINO",
        extra="cpu",
        batch="static engines of the sizes asked for, one dynamic for others",
        layers="names, primitives, times",
        abilities=takes_files(
            {
                Precision.FP32: "FP32",
                Precision.FP16: "FP16 where the CPU has it",
                Precision.BF16: "BF16 where the CPU has it",
                Precision.INT8: "8-bit kernels on Q/DQ",
            }
        ),
    )

    def probe(self) -> Availability:
        """Say whether OpenVINO is installed and finds a CPU."""
        versions = {}
        for module in self.required_modules:
            try:
                versions[module] = str(importlib.import_module(module).__version__).partition("-")[0]
            except ImportError as error:
                return unusable(NAME, import_reason(module, error))
        core = importlib.import_module("openvino").Core()
        if DEVICE not in core.available_devices:
            return unusable(NAME, f"OpenVINO finds no CPU device, only {', '.join(core.available_devices) or 'none'}")
        return Availability(
            backend=NAME,
            usable=True,
            versions=versions,
            devices=("cpu",),
            device_names=(str(core.get_property(DEVICE, "FULL_DEVICE_NAME")),),
        )

    def supports(self, case: Case) -> Support:
        """Say whether the case can run on a CPU."""
        return support_on_cpu(case, NAME)

    def build(
        self,
        artifact: Artifact,
        *,
        device: str,
        batch_sizes: tuple[int, ...],
        options: BuildOptions,
        calibration: CalibrationSet | None = None,
    ) -> OpenvinoEngine:
        """Build a static engine for every batch size. Raises: BuildError, BackendUnavailable."""
        del calibration  # the artifact holds its scales
        model = checked_model(artifact, NAME, device)
        return OpenvinoEngine(
            artifact, batch_sizes=batch_sizes, num_threads=options.num_threads, nodes=index_nodes(model)
        )


BACKEND = OpenvinoBackend()
