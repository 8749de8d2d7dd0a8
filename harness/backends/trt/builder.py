"""One artifact on its way to an engine: from the cache, or built and stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.backends._cuda.device import Gpu
from harness.backends.trt import keys
from harness.backends.trt.api import TrtApi
from harness.backends.trt.build import Plan, build_plan, choose_profiles, load_plugins
from harness.backends.trt.caches import PlanCaches
from harness.backends.trt.calibrating import Calibrating
from harness.backends.trt.engine import TrtEngine
from harness.backends.trt.facts import facts_of_engine
from harness.backends.trt.keys import DeviceKey, meta_of_plan, options_key, plan_from_meta
from harness.backends.trt.loaded import PlanRefused
from harness.backends.trt.options import TrtOptions
from harness.errors import BuildError
from harness.protocols import CalibrationSet
from harness.records import Artifact
from harness.specs import BuildOptions


class Builder:
    """Builds the plan of one artifact, or finds it."""

    def __init__(
        self, name: str, api: TrtApi, artifact: Artifact, batch_sizes: tuple[int, ...], options: BuildOptions
    ) -> None:
        self._name, self._api, self._artifact = name, api, artifact
        self._batch_sizes, self._trt = tuple(sorted(set(batch_sizes))), TrtOptions.of(options.settings)
        self._label = f"{artifact.model}-{name}-{artifact.precision}"
        self._caches = PlanCaches(options)
        self._calibrating = Calibrating(artifact, self._trt, self._caches, label=self._label)

    def engine(self, calibration: CalibrationSet | None, gpu: Gpu) -> TrtEngine:
        """Load the cached plan if there is a good one, else build and store it."""
        if self._calibrating.is_asked and calibration is None:
            raise BuildError(f"{self._label}: recipe {self._artifact.recipe} needs calibration images; none were given")
        if self._trt.profiles:  # a cached plan has the same profiles, and says later what it does not take
            choose_profiles(self._batch_sizes, self._trt.profiles)
        # A cached plan with a plug-in layer is refused without its library; a plan's notes tell of it already.
        load_plugins(self._api, self._trt.plugins)
        key, cache = self._plan_key(DeviceKey.of(gpu), calibration), self._caches.of("plans")
        engine, refused = self._from_cache(key, gpu)
        state = "hit"
        if engine is None:
            plan = self.build(calibration, gpu)
            if cache is not None:
                cache.put(key, plan.data, name=f"{self._label}.plan", meta=meta_of_plan(plan))
            engine = TrtEngine(self._api, plan, gpu, label=self._label)
            state = "none" if cache is None else "rebuilt" if refused or self._caches.rebuild else "miss"
        note = self._calibrating.note(calibration, engine.loaded.plan.calibration_batch)
        facts = facts_of_engine(engine, gpu, self._artifact, self._trt, state=state)
        engine.facts = replace(facts, calibration=note, warnings=(*refused, *facts.warnings))
        return engine

    def build(self, calibration: CalibrationSet | None, gpu: Gpu | None) -> Plan:
        """Build the plan, with the timing and calibration caches of this TensorRT and GPU."""
        device, caches = DeviceKey.of(gpu), self._caches
        timing_key: dict[str, object] = {"tensorrt": self._api.version, "gpu": device.name, "module": self._name}
        timing_key["compute_capability"] = device.compute_capability
        timings = caches.stored("timing", timing_key, "timing cache") or b""
        plan = build_plan(
            self._api,
            self._artifact,
            batch_sizes=self._batch_sizes,
            options=self._trt,
            timing_cache=b"" if caches.rebuild else timings,
            other_timings=timings if caches.rebuild else b"",
            calibrate=self._calibrating.calibrator(calibration, gpu),
        )
        if plan.timing_cache:
            caches.put("timing", timing_key, plan.timing_cache, name="timing.cache", built=self._label)
        self._calibrating.keep()
        return replace(plan, warnings=(*caches.damaged, *plan.warnings))

    def _from_cache(self, key: dict[str, object], gpu: Gpu) -> tuple[TrtEngine | None, tuple[str, ...]]:
        """Return the engine of a good cached plan, or None and what was wrong with a bad one."""
        cache = self._caches.of("plans")
        if cache is None or self._caches.rebuild:
            return None, ()
        looked = cache.lookup(key)
        if looked.state == "damaged":
            return None, (f"the cached plan was damaged and is built anew: {looked.reason}",)
        if looked.entry is None:
            return None, ()
        plan = plan_from_meta(looked.entry.meta, Path(looked.entry.path).read_bytes())
        try:
            return TrtEngine(self._api, plan, gpu, label=self._label), ()
        except PlanRefused as error:
            return None, (f"the cached plan was refused and is built anew: {error}",)

    def _plan_key(self, device: DeviceKey, calibration: CalibrationSet | None) -> dict[str, object]:
        return {
            "revision": keys.PLAN_REVISION,
            "artifact": self._artifact.sha256,
            "name": self._artifact.model,
            "precision": str(self._artifact.precision),
            "recipe": self._artifact.recipe,
            "calibration": calibration.fingerprint if calibration and self._calibrating.is_asked else "",
            "batch_sizes": [] if self._trt.profiles else list(self._batch_sizes),
            "options": options_key(self._trt),
            "module": self._api.trt.__name__,
            "tensorrt": self._api.version,
            "gpu": device.name,
            "compute_capability": device.compute_capability,
            "driver": device.driver.split(".")[0],
            "cuda": device.cuda_version,
        }
