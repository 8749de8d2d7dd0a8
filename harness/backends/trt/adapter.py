"""TensorRT 8.6, 10.x and 11.x through one adapter: plans are built, cached, loaded. Imported in workers only."""

from __future__ import annotations

import contextlib

from harness.backends._cuda.device import CudaError, Gpu, device_index
from harness.backends.trt.api import VENDOR_RECIPES, TrtApi, load_api, traits_of
from harness.backends.trt.build import Plan
from harness.backends.trt.builder import Builder
from harness.backends.trt.loading import load_engine, load_file
from harness.backends.trt.options import LIBRARY_FLAG, TrtOptions
from harness.backends.trt.probe import probe_backend
from harness.protocols import CalibrationSet, Engine
from harness.records import Artifact, Availability, EngineFile, Support
from harness.specs import BuildOptions, Case, Precision

CUDA_MODULES = ("pycuda.driver", "cuda.bindings")


class TrtBackend:
    """Builds and loads TensorRT engines. Implements `protocols.Backend`."""

    library_flag = LIBRARY_FLAG
    is_timed_afresh = True  # a build, and inferences on several streams, leave later ones up to 6 % slower

    def __init__(self, name: str, module: str, install_hint: str) -> None:
        self.name, self.install_hint = name, install_hint
        self.required_modules = (module,)
        self.traits = traits_of(name, module)

    def probe(self) -> Availability:
        """Say whether engines run here: a driver, a device, and a module that survives use in a child process."""
        return probe_backend(self.name, self.required_modules[0], install_hint=self.install_hint, needs=CUDA_MODULES)

    def supports(self, case: Case) -> Support:
        """Say whether this TensorRT can do a case."""
        if not case.device.startswith("cuda:"):
            return Support(supported=False, reason=f"{self.name} runs on cuda:0, cuda:1, ..., not on {case.device}")
        if reason := self.traits.refusal(case, self.name):
            return Support(supported=False, reason=reason)
        if case.recipe in VENDOR_RECIPES:
            api = self.api()
            if not api.has_calibrator(case.recipe):
                reason = f"TensorRT {api.version} cannot do {case.recipe}: calibration inside TensorRT ended with 10.x"
                return Support(supported=False, reason=reason)
        if case.precision is Precision.BF16 and (reason := self.api().bf16_refusal(case.recipe)):
            return Support(supported=False, reason=reason)
        return Support(supported=True)

    def has_operators(self, options: BuildOptions) -> bool:
        """Tell that there may be: its own plug-ins stand for operators of any domain, and its parser names the rest."""
        del options
        return True

    def batch_bounds(self, options: BuildOptions) -> tuple[int, ...]:
        """Return the smallest, tuned and largest batch of every profile asked for [images]."""
        return tuple(size for profile in TrtOptions.of(options.settings).profiles for size in profile)

    def api(self) -> TrtApi:
        """Import the module. Raises: BackendUnavailable."""
        return load_api(self.required_modules[0], self.install_hint)

    def build_plan(
        self,
        artifact: Artifact,
        *,
        batch_sizes: tuple[int, ...],
        options: BuildOptions,
        calibration: CalibrationSet | None = None,
        gpu: Gpu | None = None,
    ) -> Plan:
        """Build a plan without loading it; TensorRT for RTX does so without a GPU. Raises: BuildError.

        Takes what helps from the timing and calibration caches below `options.cache_dir`.
        """
        builder = Builder(self.name, self.api(), artifact, batch_sizes, options)
        return builder.build(calibration, gpu)

    def build(
        self,
        artifact: Artifact,
        *,
        device: str,
        batch_sizes: tuple[int, ...],
        options: BuildOptions,
        calibration: CalibrationSet | None = None,
    ) -> Engine:
        """Build an engine, or load it from the content cache.

        Raises: BuildError; BackendUnavailable without a usable GPU; ConfigError for a device that is none.
        """
        index = device_index(device)
        builder = Builder(self.name, self.api(), artifact, batch_sizes, options)
        gpu = Gpu(index)
        try:
            return load_engine(builder, calibration, gpu, another=lambda: Gpu(index))
        except BaseException:
            with contextlib.suppress(CudaError):  # that the context is broken too must not hide what broke it
                gpu.close()
            raise

    def load(self, file: EngineFile, artifact: Artifact, *, device: str, options: BuildOptions) -> Engine:
        """Load a plan from its file; see `protocols.LoadsEngines`.

        Raises: BuildError; BackendUnavailable, ConfigError as `build`.
        """
        index = device_index(device)
        builder = Builder(self.name, self.api(), artifact, (1,), options)
        gpu = Gpu(index)
        try:
            return load_file(builder, file, gpu)
        except BaseException:
            with contextlib.suppress(CudaError):  # as above
                gpu.close()
            raise


BACKEND = TrtBackend("trt", "tensorrt", "pip install 'nn-engine-harness[trt]'")
