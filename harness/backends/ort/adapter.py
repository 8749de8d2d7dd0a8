"""ONNX Runtime on the CPU. `import onnxruntime` happens in `probe` and `build`, in worker processes only."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from harness.backends._cpu import (
    INSTALL_HINT,
    check_device,
    check_engine_file,
    checked_model,
    import_reason,
    support_on_cpu,
    unusable,
)
from harness.backends._traits import Traits, takes_files
from harness.backends.ort.engine import OrtEngine
from harness.backends.ort.options import LIBRARY_FLAG, OrtOptions
from harness.backends.ort.runtime import ORT_SUFFIX, PROVIDER, bf16_refusal
from harness.machine.cpu import has_dot_product, int8_isa
from harness.models.onnx_graph import NO_NODES, index_nodes, load_model
from harness.protocols import CalibrationSet
from harness.records import Artifact, Availability, EngineFile, Support
from harness.specs import BuildOptions, Case, Precision


class OrtBackend:
    """Builds ONNX Runtime sessions on the CPU. Implements `protocols.Backend` and `protocols.LoadsEngines`."""

    install_hint = INSTALL_HINT
    library_flag = LIBRARY_FLAG
    required_modules = ("onnxruntime", "onnx")
    traits = Traits(
        runtime="ONNX Runtime, CPU provider",
        extra="cpu",
        batch="free",
        layers="names, types, times",
        abilities=takes_files(
            {
                Precision.FP32: "FP32",
                Precision.FP16: "FP32 kernels, weights rounded",
                Precision.BF16: "where it has kernels",
                Precision.INT8: "8-bit kernels on Q/DQ",
            }
        ),
    )

    def __init__(self, name: str = "ort", session_config: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._session_config = dict(session_config or {})

    def probe(self) -> Availability:
        """Say whether ONNX Runtime is installed and has its CPU provider."""
        versions = {}
        for module in self.required_modules:
            try:
                versions[module] = str(importlib.import_module(module).__version__)
            except ImportError as error:
                return unusable(self.name, import_reason(module, error))
        if PROVIDER not in importlib.import_module("onnxruntime").get_available_providers():
            return unusable(self.name, f"this onnxruntime has no {PROVIDER}")
        return Availability(
            backend=self.name,
            usable=True,
            versions=versions,
            devices=("cpu",),
            fast_precisions=("fp32", "int8") if has_dot_product(int8_isa()) else ("fp32",),
        )

    def supports(self, case: Case) -> Support:
        """Say whether the case can run on a CPU."""
        if case.precision is Precision.BF16 and (reason := bf16_refusal(case.recipe, PROVIDER)):
            return Support(supported=False, reason=reason)
        return support_on_cpu(case, self.name)

    def has_operators(self, options: BuildOptions) -> bool:
        """Tell whether libraries of operators were given; see `protocols.TakesOperators`."""
        return bool(OrtOptions.of(options.settings).custom_ops)

    def build(
        self,
        artifact: Artifact,
        *,
        device: str,
        batch_sizes: tuple[int, ...],
        options: BuildOptions,
        calibration: CalibrationSet | None = None,
    ) -> OrtEngine:
        """Build one session for all batch sizes.

        Raises: BuildError; BackendUnavailable; Unsupported for a BF16 file with an operator that has no kernel.
        """
        del calibration  # the artifact holds its scales
        model = checked_model(artifact, self.name, device)
        return OrtEngine(
            artifact,
            label=f"{artifact.model}-{self.name}-{artifact.precision}",
            batch_sizes=batch_sizes,
            options=options,
            session_config=self._session_config,
            nodes=index_nodes(model),
        )

    def load(self, file: EngineFile, artifact: Artifact, *, device: str, options: BuildOptions) -> OrtEngine:
        """Open an .ort or optimized ONNX file as it is; see `protocols.LoadsEngines`. Raises: BuildError."""
        check_device(self.name, device)
        check_engine_file(file, artifact.model)
        is_onnx = Path(file.path).suffix != ORT_SUFFIX  # its own format holds no nodes by name
        engine = OrtEngine(
            replace(artifact, onnx_path=file.path),
            label=f"{artifact.model}-{self.name}-{artifact.precision}",
            batch_sizes=(1,),
            options=options,
            session_config=self._session_config,
            nodes=index_nodes(load_model(file.path)) if is_onnx else NO_NODES,
        )
        engine.facts = replace(engine.facts, build_ns=0, load_ns=engine.facts.build_ns, file=file, notes=())
        return engine


BACKEND = OrtBackend()
