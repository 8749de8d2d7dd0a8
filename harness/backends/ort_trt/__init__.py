"""ONNX Runtime's TensorRT provider: what it does not take runs on its CUDA provider, and is named."""

from __future__ import annotations

from typing import Any

from harness.backends._cuda.device import device_index
from harness.backends._traits import Traits, refused, takes_files
from harness.backends.ort.options import LIBRARY_FLAG, OrtOptions
from harness.backends.ort_cuda.opening import OrtCudaEngine, OrtCudaTensorEngine, open_engine
from harness.backends.ort_cuda.probe import probe_backend
from harness.backends.ort_trt.session import MODULES, PROVIDER, TrtSession
from harness.protocols import CalibrationSet
from harness.records import Artifact, Availability, Support
from harness.specs import BuildOptions, Case, Precision


class OrtTrtBackend:
    """Builds ONNX Runtime sessions on TensorRT. Implements `protocols.Backend`."""

    name = "ort-trt"
    is_timed_afresh = True
    library_flag = LIBRARY_FLAG
    required_modules = MODULES
    install_hint = "pip install 'nn-engine-harness[ort-trt]'"
    traits = Traits(
        runtime="ONNX Runtime, TensorRT provider",
        extra="ort-trt",
        device="cuda:0, ...",
        batch="up to the largest asked for",
        layers="which nodes TensorRT took; their types unknown",
        abilities={
            **takes_files(
                {
                    Precision.FP32: "as TensorRT chooses",
                    Precision.FP16: "FP16 allowed, as TensorRT chooses",
                    Precision.INT8: "Q/DQ, as TensorRT chooses",
                }
            ),
            Precision.BF16: refused("not tried; `trt` has it"),
        },
    )

    def probe(self) -> Availability:
        """Say whether ONNX Runtime has a TensorRT provider that loads here."""
        return probe_backend(self.name, provider=PROVIDER, modules=MODULES, hint=self.install_hint)

    def supports(self, case: Case) -> Support:
        """Say whether the case can run."""
        if not case.device.startswith("cuda:"):
            return Support(supported=False, reason=f"{self.name} runs on cuda:0, cuda:1, ..., not on {case.device}")
        reason = self.traits.refusal(case, self.name)
        return Support(supported=not reason, reason=reason)

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
        """Build one session for all batch sizes; TensorRT's plans are kept below the content cache.

        Raises: BuildError, BackendUnavailable, ConfigError.
        """
        del calibration  # the artifact holds its scales
        label, index = f"{artifact.model}-{self.name}-{artifact.precision}", device_index(device)

        def make_session(stream: Any) -> TrtSession:
            return TrtSession(artifact, label=label, index=index, stream=stream, options=options)

        return open_engine(
            make_session, artifact, label=label, index=index, batch_sizes=batch_sizes, tensors=options.tensors
        )


BACKEND = OrtTrtBackend()
