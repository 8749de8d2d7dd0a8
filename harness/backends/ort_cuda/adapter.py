"""ONNX Runtime's CUDA provider on device buffers and on a stream of ours, timed with CUDA events."""

from __future__ import annotations

from typing import Any

from harness.backends._cuda.device import device_index
from harness.backends.ort.options import LIBRARY_FLAG, OrtOptions
from harness.backends.ort.runtime import bf16_refusal
from harness.backends.ort_cuda.opening import OrtCudaEngine, OrtCudaTensorEngine, open_engine
from harness.backends.ort_cuda.probe import INSTALL_HINT, MODULES, PROVIDER, TRAITS, probe_backend
from harness.backends.ort_cuda.session import CudaSession
from harness.precision import find_recipe
from harness.protocols import CalibrationSet
from harness.records import Artifact, Availability, Support
from harness.specs import BuildOptions, Case, Precision


class OrtCudaBackend:
    """Builds ONNX Runtime sessions on a GPU. Implements `protocols.Backend`."""

    name = "ort-cuda"
    is_timed_afresh = True
    install_hint = INSTALL_HINT
    library_flag = LIBRARY_FLAG
    required_modules = MODULES
    traits = TRAITS

    def probe(self) -> Availability:
        """Say whether ONNX Runtime has a CUDA provider that loads here."""
        return probe_backend(self.name)

    def supports(self, case: Case) -> Support:
        """Say whether the case can run."""
        if not case.device.startswith("cuda:"):
            return Support(supported=False, reason=f"{self.name} runs on cuda:0, cuda:1, ..., not on {case.device}")
        family = find_recipe(case.precision, case.recipe).quantizes_in
        if family:
            return Support(supported=False, reason=f"recipe {case.recipe} quantizes inside {family}")
        if case.precision is Precision.BF16 and (reason := bf16_refusal(case.recipe, PROVIDER)):
            return Support(supported=False, reason=reason)
        return Support(supported=True)

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
    ) -> OrtCudaEngine | OrtCudaTensorEngine:
        """Build one session for all batch sizes.

        Raises: BuildError; BackendUnavailable; ConfigError; Unsupported for a BF16 file with an operator that has no
        kernel.
        """
        del calibration  # the artifact holds its scales
        label, index = f"{artifact.model}-{self.name}-{artifact.precision}", device_index(device)

        def make_session(stream: Any) -> CudaSession:
            return CudaSession(artifact, label=label, index=index, stream=stream, options=options)

        return open_engine(
            make_session, artifact, label=label, index=index, batch_sizes=batch_sizes, tensors=options.tensors
        )


BACKEND = OrtCudaBackend()
