"""PyTorch on a GPU: ONNX files as modules, on device buffers and on a stream of ours."""

from __future__ import annotations

from harness.backends._cpu import prepared_model
from harness.backends._cuda.device import device_index
from harness.backends._host.request import request_for
from harness.backends.torch_cuda.engine import TorchCudaEngine
from harness.backends.torch_cuda.module import CudaModule
from harness.backends.torch_cuda.opening import open_engine
from harness.backends.torch_cuda.probe import MODULES, TRAITS, probe_backend
from harness.protocols import CalibrationSet
from harness.records import Artifact, Availability, Support
from harness.specs import BuildOptions, Case


class TorchCudaBackend:
    """Runs ONNX files as PyTorch modules on a GPU. Implements `protocols.Backend`."""

    name = "torch-cuda"
    is_timed_afresh = True
    required_modules: tuple[str, ...] = MODULES
    traits = TRAITS
    module: type[CudaModule] = CudaModule
    others: tuple[str, ...] = ()  # modules that it needs beside those of PyTorch

    @property
    def install_hint(self) -> str:
        """Return the command that installs it."""
        return self.traits.install_hint

    def probe(self) -> Availability:
        """Say whether PyTorch computes on a GPU here, and what else is needed loads."""
        return probe_backend(self.name, others=self.others, hint=self.install_hint)

    def supports(self, case: Case) -> Support:
        """Say whether the case can run."""
        if not case.device.startswith("cuda:"):
            return Support(supported=False, reason=f"{self.name} runs on cuda:0, cuda:1, ..., not on {case.device}")
        reason = self.traits.refusal(case, self.name)
        return Support(supported=not reason, reason=reason)

    def build(
        self,
        artifact: Artifact,
        *,
        device: str,
        batch_sizes: tuple[int, ...],
        options: BuildOptions,
        calibration: CalibrationSet | None = None,
    ) -> TorchCudaEngine:
        """Make a module for all batch sizes, and compare what is not INT8 with ONNX Runtime.

        Raises: BuildError; BackendUnavailable; ConfigError for a device that is none; Unsupported for an operator that
        is not written for PyTorch.
        """
        index = device_index(device)
        model = prepared_model(artifact)
        request = request_for(
            artifact, model, self.name, batch_sizes=batch_sizes, options=options, calibration=calibration
        )
        return open_engine(request, index=index, install_hint=self.install_hint, kind=self.module)


BACKEND = TorchCudaBackend()
