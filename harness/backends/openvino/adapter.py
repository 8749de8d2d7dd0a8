"""OpenVINO, on the CPU unless told. `import openvino` happens in `probe` and `build`, in worker processes only."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from harness.backends._cpu import (
    INSTALL_HINT,
    check_device,
    check_engine_file,
    checked_model,
    import_reason,
    import_runtime,
    support_on_cpu,
    unusable,
)
from harness.backends._traits import Traits, takes_files
from harness.backends.openvino.compiled import DEVICE, CompiledModels, ImportedModels, check_operators, core_with
from harness.backends.openvino.engine import OpenvinoEngine
from harness.backends.openvino.options import LIBRARY_FLAG, NAME, OpenvinoOptions
from harness.models.formats import ONNX, OPENVINO_IR, model_format
from harness.models.onnx_graph import NO_NODES, NodeIndex, index_nodes
from harness.protocols import CalibrationSet
from harness.records import CPU, Artifact, Availability, EngineFile, Support
from harness.specs import BuildOptions, Case, Precision

DEVICES = re.compile(r"cpu|npu|gpu(?:\.\d+)?|(?:auto|batch|hetero|multi):[a-z]+(?:\.\d+)?(?:,[a-z]+(?:\.\d+)?)*")


class OpenvinoBackend:
    """Builds OpenVINO engines. Implements `protocols.Backend`, `LoadsEngines` and `TakesDevices`."""

    name = NAME
    install_hint = INSTALL_HINT
    library_flag = LIBRARY_FLAG
    required_modules = ("openvino", "onnx")
    reads = (ONNX, OPENVINO_IR)
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
            fast_precisions=_precisions(core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")),
        )

    def takes_device(self, device: str) -> bool:
        """Tell whether a text names a device of OpenVINO's, or several: gpu, hetero:gpu,cpu; typed in small letters."""
        return bool(DEVICES.fullmatch(device))

    def supports(self, case: Case) -> Support:
        """Say whether the case can run; whether the device is there is met by `build`."""
        return support_on_cpu(replace(case, device=CPU) if self.takes_device(case.device) else case, NAME)

    def has_operators(self, options: BuildOptions) -> bool:
        """Tell whether libraries of operators were given; see `protocols.TakesOperators`."""
        return bool(OpenvinoOptions.of(options.settings).extensions)

    def build(
        self,
        artifact: Artifact,
        *,
        device: str,
        batch_sizes: tuple[int, ...],
        options: BuildOptions,
        calibration: CalibrationSet | None = None,
    ) -> OpenvinoEngine:
        """Build a static engine for every batch size.

        Raises: BuildError; BackendUnavailable; Unsupported, which lists the operators that the device lacks.
        """
        del calibration  # the artifact holds its scales
        nodes = self._nodes(artifact, device)
        core = core_with(import_runtime("openvino"), OpenvinoOptions.of(options.settings).extensions)
        check_operators(core, artifact, device.upper())
        label = f"{artifact.model}-{NAME}-{artifact.precision}"
        open_models = partial(CompiledModels, artifact, label=label, device=device.upper(), options=options)
        return OpenvinoEngine(open_models, label=label, batch_sizes=batch_sizes, nodes=nodes)

    def load(self, file: EngineFile, artifact: Artifact, *, device: str, options: BuildOptions) -> OpenvinoEngine:
        """Import an exported blob; see `protocols.LoadsEngines`. Raises: BuildError, BackendUnavailable."""
        check_engine_file(file, artifact.model)
        if not self.takes_device(device):
            check_device(NAME, device)
        label = f"{artifact.model}-{NAME}-{artifact.precision}"
        exported = replace(artifact, onnx_path=file.path)
        open_models = partial(ImportedModels, exported, label=label, device=device.upper(), options=options)
        engine = OpenvinoEngine(open_models, label=label, batch_sizes=(1,), nodes=NO_NODES)
        engine.facts = replace(engine.facts, build_ns=0, load_ns=engine.facts.build_ns, file=file, notes=())
        return engine

    def _nodes(self, artifact: Artifact, device: str) -> NodeIndex:
        """Return the ONNX nodes of a file that was checked; IR's own layers have the names, and none behind them."""
        device = CPU if self.takes_device(device) else device
        if model_format(artifact.onnx_path) == ONNX:
            return index_nodes(checked_model(artifact, NAME, device))
        check_device(NAME, device)
        return NO_NODES


def _precisions(capabilities: Iterable[object]) -> tuple[str, ...]:
    """Return those of OpenVINO's words that are precisions of the harness."""
    words = {str(word).lower() for word in capabilities}
    return tuple(str(precision) for precision in Precision if str(precision) in words)


BACKEND = OpenvinoBackend()
