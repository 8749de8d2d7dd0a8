"""One artifact on its way to a plan: keys, caches, calibration, build."""

from __future__ import annotations

from dataclasses import replace

from harness.backends._cuda.device import Gpu
from harness.backends.trt import keys
from harness.backends.trt.api import TrtApi
from harness.backends.trt.build import Plan, build_plan, check_batches, load_plugins
from harness.backends.trt.caches import PlanCaches
from harness.backends.trt.calibrating import Calibrating
from harness.backends.trt.keys import DeviceKey, options_key
from harness.backends.trt.options import NAME, TrtOptions
from harness.protocols import CalibrationSet
from harness.records import Artifact
from harness.specs import BuildOptions, Precision


class Builder:
    """Builds the plan of one artifact."""

    def __init__(
        self, name: str, api: TrtApi, artifact: Artifact, batch_sizes: tuple[int, ...], options: BuildOptions
    ) -> None:
        self.name, self.api, self.artifact, self.options = name, api, artifact, options
        self.batch_sizes, self.trt = tuple(sorted(set(batch_sizes))), TrtOptions.of(options.settings)
        self.tensors = options.tensors
        self.label = f"{artifact.model}-{name}-{artifact.precision}"
        self.caches = PlanCaches(options)
        self.calibrating = Calibrating(artifact, self.trt, self.caches, label=self.label)

    def check(self, calibration: CalibrationSet | None) -> None:
        """Refuse what no engine can be loaded or built for. Raises: BuildError, Unsupported."""
        self.calibrating.check(calibration, self.tensors)
        if self.tensors is None:  # a cached plan has the same profiles, and says later what it does not take
            check_batches(self.batch_sizes, self.trt)
        # A cached plan with a plug-in layer is refused without its library; a plan's notes tell of it already.
        self.load_plugins()

    def load_plugins(self) -> None:
        """Load the libraries of layers. Raises: BuildError."""
        load_plugins(self.api, self.trt.plugins)

    def like(self, precision: Precision, recipe: str, **numbers: float) -> Builder:
        """Return a builder of the same file by another recipe, with numbers of the calibrator."""
        settings = self.options.settings
        options = replace(self.options, settings={**settings, NAME: {**settings.get(NAME, {}), **numbers}})
        artifact = replace(self.artifact, precision=precision, recipe=recipe)
        return Builder(self.name, self.api, artifact, self.batch_sizes, options)

    def build(self, calibration: CalibrationSet | None, gpu: Gpu | None) -> Plan:
        """Build the plan, with the timing and calibration caches of this TensorRT and GPU."""
        device, caches = DeviceKey.of(gpu), self.caches
        timing_key: dict[str, object] = {"tensorrt": self.api.version, "gpu": device.name, "module": self.name}
        timing_key["compute_capability"] = device.compute_capability
        timings = caches.stored("timing", timing_key, "timing cache") or b""
        plan = build_plan(
            self.api,
            self.artifact,
            batch_sizes=self.batch_sizes,
            options=self.trt,
            timing_cache=b"" if caches.rebuild else timings,
            other_timings=timings if caches.rebuild else b"",
            calibrate=self.calibrating.calibrator(calibration, gpu),
            tensors=self.tensors,
        )
        if plan.timing_cache:
            caches.put("timing", timing_key, plan.timing_cache, name="timing.cache", built=self.label)
        self.calibrating.keep()
        table = self.calibrating.table
        return replace(plan, calibration_table=table, warnings=(*caches.damaged, *plan.warnings))

    def plan_key(self, gpu: Gpu, calibration: CalibrationSet | None) -> dict[str, object]:
        """Return what the plan is kept under: all that decides what is built."""
        device = DeviceKey.of(gpu)
        tensors = {} if self.tensors is None else {"tensors": keys.tensors_key(self.tensors)}
        return {
            **tensors,
            "revision": keys.PLAN_REVISION,
            "artifact": self.artifact.sha256,
            "name": self.artifact.model,
            "precision": str(self.artifact.precision),
            "recipe": self.artifact.recipe,
            "calibration": calibration.fingerprint if calibration and self.calibrating.is_asked else "",
            "batch_sizes": [] if self.trt.profiles else list(self.batch_sizes),
            "options": options_key(self.trt),
            **({"kept_float": list(self.artifact.kept_float)} if self.artifact.kept_float else {}),
            "module": self.api.trt.__name__,
            "tensorrt": self.api.version,
            "gpu": device.name,
            "compute_capability": device.compute_capability,
            "driver": device.driver.split(".")[0],
            "cuda": device.cuda_version,
        }
