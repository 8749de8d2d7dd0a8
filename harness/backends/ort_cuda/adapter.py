"""ONNX Runtime's CUDA provider on device buffers and on a stream of ours, timed with CUDA events."""

from __future__ import annotations

import contextlib
import traceback

from harness.backends._cuda.device import CudaError, Gpu, device_index
from harness.backends._cuda.options import CudaOptions
from harness.backends.ort.runtime import bf16_refusal
from harness.backends.ort_cuda.engine import OrtCudaEngine
from harness.backends.ort_cuda.probe import INSTALL_HINT, MODULES, PROVIDER, TRAITS, probe_backend
from harness.models.onnx_graph import check_scales, index_nodes, load_model
from harness.precision import find_recipe
from harness.protocols import CalibrationSet
from harness.records import Artifact, Availability, Support
from harness.specs import BuildOptions, Case, Precision


class OrtCudaBackend:
    """Builds ONNX Runtime sessions on a GPU. Implements `protocols.Backend`."""

    name = "ort-cuda"
    install_hint = INSTALL_HINT
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

    def build(
        self,
        artifact: Artifact,
        *,
        device: str,
        batch_sizes: tuple[int, ...],
        options: BuildOptions,
        calibration: CalibrationSet | None = None,
    ) -> OrtCudaEngine:
        """Build one session for all batch sizes.

        Raises: BuildError; BackendUnavailable; ConfigError; Unsupported for a BF16 file with an operator that has no
        kernel.
        """
        del calibration  # the artifact holds its scales
        model = load_model(artifact.onnx_path)
        check_scales(model, artifact.onnx_path)
        gpu = Gpu(device_index(device))
        try:
            return OrtCudaEngine(
                artifact,
                gpu,
                index=device_index(device),
                batch_sizes=batch_sizes,
                tf32=CudaOptions.of(options.settings).tf32,
                nodes=index_nodes(model),
            )
        except BaseException as error:
            _let_go(error)
            with contextlib.suppress(CudaError):  # that the context is broken too must not hide what broke it
                gpu.close()
            raise


def _let_go(error: BaseException | None) -> None:
    """Free what the frames of a failed build hold: a session must not outlive its context."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__


BACKEND = OrtCudaBackend()
