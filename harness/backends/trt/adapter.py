"""TensorRT 8.6, 10.x and 11.x through one adapter: plans are built, cached, loaded. Imported in workers only."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.backends._cuda.device import CudaError, Gpu
from harness.backends.trt.api import CALIBRATORS, LEGACY_RECIPE, RANGES_RECIPE, VENDOR_RECIPES, TrtApi
from harness.backends.trt.build import Plan, build_plan, choose_profiles, load_plugins
from harness.backends.trt.calibrator import (
    LEGACY_CUTOFF,
    LEGACY_QUANTILE,
    CalibrationFeed,
    CalibrationStore,
    calibration_batch,
    check_feed,
    make_calibrator,
)
from harness.backends.trt.engine import PlanRefused, TrtEngine
from harness.backends.trt.options import TrtOptions
from harness.backends.trt.probe import probe_backend
from harness.errors import BackendUnavailable, BuildError, ConfigError
from harness.protocols import CalibrationSet
from harness.records import Artifact, Availability, Calibration, EngineFacts, Support
from harness.specs import BuildOptions, Case, ImageRange, Precision
from harness.store.cache import ContentCache, sha256_of_file

CUDA_MODULES = ("pycuda.driver", "cuda.bindings")
OPTION_PREFIX = "option."
DIGEST_CHARACTERS = 16  # of a sha256, as told to a reader
# Of what this adapter makes of an artifact and its options: flags, profiles, network, calibrator. Raise it with every
# change that lets the same request build another plan or calibration table; those stored before are then never used.
PLAN_REVISION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Device:
    """What the cache keys need to know of the GPU; empty where plans are built without one."""

    name: str = ""
    compute_capability: str = ""
    driver: str = ""
    cuda_version: str = ""

    @classmethod
    def of(cls, gpu: Gpu | None) -> _Device:
        """Return what there is to know of a GPU."""
        if gpu is None:
            return cls()
        return cls(
            name=gpu.name,
            compute_capability=gpu.compute_capability,
            driver=gpu.driver,
            cuda_version=gpu.cuda_version,
        )


class _Fed:
    """A calibrator, its data and its cache, as `build_plan` wants them."""

    def __init__(
        self, calibrator: Any, batch_size: int, feed: CalibrationFeed, store: CalibrationStore, n_images: int
    ) -> None:
        self.calibrator, self.batch_size, self.store = calibrator, batch_size, store
        self._feed, self._n_images = feed, n_images

    def check(self) -> tuple[str, ...]:
        """Raise what a callback met, else return what the user should hear of. Raises: BuildError."""
        return check_feed(self._feed, self.store, self._n_images)


class TrtBackend:
    """Builds and loads TensorRT engines. Implements `protocols.Backend`."""

    def __init__(self, name: str, module: str, install_hint: str) -> None:
        self.name, self.install_hint = name, install_hint
        self.required_modules = (module,)

    def probe(self) -> Availability:
        """Say whether engines run here: a driver, a device, and a module that survives use in a child process."""
        return probe_backend(self.name, self.required_modules[0], install_hint=self.install_hint, needs=CUDA_MODULES)

    def supports(self, case: Case) -> Support:
        """Say whether this TensorRT can do a case."""
        if not case.device.startswith("cuda:"):
            return Support(supported=False, reason=f"{self.name} runs on cuda:0, cuda:1, ..., not on {case.device}")
        if case.recipe in VENDOR_RECIPES:
            api = self.api()
            if not api.has_calibrator(case.recipe):
                reason = f"TensorRT {api.version} cannot do {case.recipe}: calibration inside TensorRT ended with 10.x"
                return Support(supported=False, reason=reason)
        if case.precision is Precision.BF16 and (reason := self.api().bf16_refusal(case.recipe)):
            return Support(supported=False, reason=reason)
        return Support(supported=True)

    def batch_bounds(self, options: BuildOptions) -> tuple[int, ...]:
        """Return the smallest, tuned and largest batch of every profile asked for [images]."""
        return tuple(size for profile in TrtOptions.of(options.settings).profiles for size in profile)

    def api(self) -> TrtApi:
        """Import the module. Raises: BackendUnavailable."""
        try:
            return TrtApi(importlib.import_module(self.required_modules[0]))
        except ImportError as error:
            raise BackendUnavailable(f"{self.required_modules[0]}: {error}; {self.install_hint}") from error

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
        builder = _Builder(self.name, self.api(), artifact, batch_sizes, options)
        return builder.build(calibration, gpu)

    def build(
        self,
        artifact: Artifact,
        *,
        device: str,
        batch_sizes: tuple[int, ...],
        options: BuildOptions,
        calibration: CalibrationSet | None = None,
    ) -> TrtEngine:
        """Build an engine, or load it from the content cache.

        Raises: BuildError; BackendUnavailable without a usable GPU; ConfigError for a device that is none.
        """
        index = device_index(device)
        builder = _Builder(self.name, self.api(), artifact, batch_sizes, options)
        gpu = Gpu(index)
        try:
            return builder.engine(calibration, gpu)
        except BaseException:
            with contextlib.suppress(CudaError):  # that the context is broken too must not hide what broke it
                gpu.close()
            raise


def device_index(device: str) -> int:
    """Return 1 for `cuda:1`. Raises: ConfigError for what is no CUDA device."""
    kind, _, number = device.partition(":")
    if kind != "cuda" or not number.isdecimal():
        raise ConfigError(f"device {device!r} is no CUDA device; expected cuda:0, cuda:1, ...")
    return int(number)


class _Builder:
    """One artifact on its way to an engine: keys, caches, calibration."""

    def __init__(
        self, name: str, api: TrtApi, artifact: Artifact, batch_sizes: tuple[int, ...], options: BuildOptions
    ) -> None:
        self._name, self._api, self._artifact = name, api, artifact
        self._batch_sizes, self._options = tuple(sorted(set(batch_sizes))), options
        self._trt = TrtOptions.of(options.settings)
        self._label = f"{artifact.model}-{name}-{artifact.precision}"
        self._store: CalibrationStore | None = None
        self._damaged: tuple[str, ...] = ()
        self._calibration_key: dict[str, object] | None = None

    def engine(self, calibration: CalibrationSet | None, gpu: Gpu) -> TrtEngine:
        """Load the cached plan if there is a good one, else build and store it."""
        if self._artifact.recipe in CALIBRATORS and calibration is None:
            raise BuildError(f"{self._label}: recipe {self._artifact.recipe} needs calibration images; none were given")
        if self._trt.profiles:  # a cached plan has the same profiles, and says later what it does not take
            choose_profiles(self._batch_sizes, self._trt.profiles)
        # A cached plan with a plug-in layer is refused without its library; a plan's notes tell of it already.
        load_plugins(self._api, self._trt.plugins)
        key = self._plan_key(_Device.of(gpu), calibration)
        cache = self._cache("plans")
        engine, refused = self._from_cache(key, gpu)
        if engine is not None:
            return self._with_facts(engine, "hit", (), calibration, gpu)
        plan = self.build(calibration, gpu)
        if cache is not None:
            cache.put(key, plan.data, name=f"{self._label}.plan", meta=_meta_of_plan(plan))
        engine = TrtEngine(self._api, plan, gpu, label=self._label)
        state = "none" if cache is None else "rebuilt" if refused or self._options.rebuild else "miss"
        return self._with_facts(engine, state, refused, calibration, gpu)

    def _from_cache(self, key: dict[str, object], gpu: Gpu) -> tuple[TrtEngine | None, tuple[str, ...]]:
        """Return the engine of a good cached plan, or None and what was wrong with a bad one."""
        cache = self._cache("plans")
        if cache is None or self._options.rebuild:
            return None, ()
        found = cache.lookup(key)
        if found.state == "damaged":
            return None, (f"the cached plan was damaged and is built anew: {found.reason}",)
        if found.entry is None:
            return None, ()
        plan = _plan_from_meta(found.entry.meta, Path(found.entry.path).read_bytes())
        try:
            return TrtEngine(self._api, plan, gpu, label=self._label), ()
        except PlanRefused as error:
            return None, (f"the cached plan was refused and is built anew: {error}",)

    def build(self, calibration: CalibrationSet | None, gpu: Gpu | None) -> Plan:
        """Build the plan, with the timing and calibration caches of this TensorRT and GPU."""
        device = _Device.of(gpu)
        timing_key: dict[str, object] = {"tensorrt": self._api.version, "gpu": device.name, "module": self._name}
        timing_key["compute_capability"] = device.compute_capability
        timing = self._cache("timing")
        timings = self._stored("timing", timing_key, "timing cache") or b""
        plan = build_plan(
            self._api,
            self._artifact,
            batch_sizes=self._batch_sizes,
            options=self._trt,
            timing_cache=b"" if self._options.rebuild else timings,
            other_timings=timings if self._options.rebuild else b"",
            calibrate=self._calibrate(calibration, gpu),
        )
        if timing is not None and plan.timing_cache:
            timing.put(timing_key, plan.timing_cache, name="timing.cache", meta={"built": self._label})
        self._keep_calibration()
        return replace(plan, warnings=(*self._damaged, *plan.warnings))

    def _cache(self, kind: str) -> ContentCache | None:
        return ContentCache(self._options.cache_dir, kind=kind) if self._options.cache_dir else None

    def _stored(self, kind: str, key: dict[str, object], name: str) -> bytes | None:
        """Return what a cache holds of a key; a damaged entry is remembered for the plan's warnings."""
        cache = self._cache(kind)
        found = cache.lookup(key) if cache is not None else None
        if found is None or found.entry is None:
            if found is not None and found.state == "damaged":
                self._damaged += (f"the stored {name} was damaged and is made anew: {found.reason}",)
            return None
        return Path(found.entry.path).read_bytes()

    def _plan_key(self, device: _Device, calibration: CalibrationSet | None) -> dict[str, object]:
        return {
            "revision": PLAN_REVISION,
            "artifact": self._artifact.sha256,
            "name": self._artifact.model,
            "precision": str(self._artifact.precision),
            "recipe": self._artifact.recipe,
            "calibration": calibration.fingerprint if calibration and self._artifact.recipe in CALIBRATORS else "",
            "batch_sizes": [] if self._trt.profiles else list(self._batch_sizes),
            "options": _options_key(self._trt),
            "module": self._api.trt.__name__,
            "tensorrt": self._api.version,
            "gpu": device.name,
            "compute_capability": device.compute_capability,
            "driver": device.driver.split(".")[0],
            "cuda": device.cuda_version,
        }

    def _calibrate(
        self, calibration: CalibrationSet | None, gpu: Gpu | None
    ) -> Callable[[TrtApi, tuple[int, ...]], _Fed] | None:
        recipe = self._artifact.recipe
        if recipe not in CALIBRATORS:
            return None
        if calibration is None or calibration.n_images < 1:
            raise BuildError(f"{self._label}: recipe {recipe} needs calibration images; there are none")
        if gpu is None:
            raise BuildError(f"{self._label}: recipe {recipe} runs the model to calibrate it, and needs a GPU for that")
        n_images, images = calibration.n_images, calibration

        def calibrate(api: TrtApi, shape: tuple[int, ...]) -> _Fed:
            batch_size = shape[0] if shape[0] > 0 else calibration_batch(n_images)
            trt = self._trt
            self._calibration_key = {
                "revision": PLAN_REVISION,
                "artifact": self._artifact.sha256,
                "calibration": images.fingerprint,
                "algorithm": recipe,
                "batch_size": batch_size,
                "quantile": trt.quantile,
                "cutoff": trt.cutoff,
                "tensorrt": api.version,
            }
            self._store = CalibrationStore(self._cached_calibration())
            try:
                feed = CalibrationFeed(images, gpu, (batch_size, *shape[1:]))
            except gpu.errors as error:
                raise BuildError(f"{self._label}: calibration batch of {batch_size}: {error}") from error
            calibrator = make_calibrator(
                api, recipe, feed, self._store, batch_size=batch_size, quantile=trt.quantile, cutoff=trt.cutoff
            )
            return _Fed(calibrator, batch_size, feed, self._store, n_images)

        return calibrate

    def _cached_calibration(self) -> bytes | None:
        if self._options.rebuild or self._calibration_key is None:
            return None
        return self._stored("calibrations", self._calibration_key, "calibration table")

    def _keep_calibration(self) -> None:
        cache = self._cache("calibrations")
        if cache is not None and self._store and self._store.written and self._calibration_key:
            meta = {"built": self._label}
            cache.put(self._calibration_key, self._store.written, name="calibration.cache", meta=meta)

    def _calibration_note(self, calibration: CalibrationSet | None, batch_size: int) -> Calibration | None:
        recipe = self._artifact.recipe
        if recipe not in CALIBRATORS or calibration is None:
            return self._artifact.calibration
        unnamed = ImageRange(dataset="unnamed", split="", first=0, stop=calibration.n_images)
        images = getattr(calibration, "images", None)  # not in the protocol: sets of the pipeline know their range
        return Calibration(
            images=images if isinstance(images, ImageRange) else unnamed,
            fingerprint=calibration.fingerprint,
            batch_size=batch_size,
            method=recipe.removeprefix("trt-"),
        )

    def _with_facts(
        self,
        engine: TrtEngine,
        state: str,
        refused: tuple[str, ...],
        calibration: CalibrationSet | None,
        gpu: Gpu,
    ) -> TrtEngine:
        plan = engine.plan
        loaded = f"loaded from the engine cache in {engine.load_ns / 1e6:.0f} ms; build_ns is its build"
        engine.facts = EngineFacts(
            build_ns=plan.build_ns,
            engine_bytes=len(plan.data),
            device_memory_bytes=engine.device_memory_bytes,
            cache=state,
            options={**plan.options, **self._inputs_in_words(), "cuda_provider": gpu.provider},
            versions={self._api.trt.__name__: self._api.version},
            calibration=self._calibration_note(calibration, plan.calibration_batch),
            log_errors=plan.log_errors,
            notes=(loaded, *plan.notes) if state == "hit" else plan.notes,
            warnings=(*refused, *plan.warnings),
        )
        return engine

    def _inputs_in_words(self) -> dict[str, str]:
        """Return what shaped the engine and cannot be read back from the builder."""
        trt, recipe = self._trt, self._artifact.recipe
        words = {"plugins": ", ".join(_file_in_words(path) for path in trt.plugins) or "none"}
        if recipe == RANGES_RECIPE and trt.ranges_file is not None:
            words["ranges"] = _file_in_words(trt.ranges_file)
        if recipe == LEGACY_RECIPE:
            words["quantile"] = str(LEGACY_QUANTILE if trt.quantile is None else trt.quantile)
            words["cutoff"] = str(LEGACY_CUTOFF if trt.cutoff is None else trt.cutoff)
        return words


def _file_in_words(path: str) -> str:
    return f"{Path(path).name} {sha256_of_file(Path(path))[:DIGEST_CHARACTERS]}"


def _options_key(options: TrtOptions) -> dict[str, object]:
    """Return every builder option by value; files by their content."""
    digests = [sha256_of_file(Path(path)) if Path(path).is_file() else path for path in options.plugins]
    ranges = options.ranges_file
    return {
        "tf32": options.tf32,
        "workspace_bytes": options.workspace_bytes,
        "optimization_level": options.optimization_level,
        "tactic_sources": sorted(options.tactic_sources) if options.tactic_sources is not None else None,
        "version_compatible": options.version_compatible,
        "hardware_compatible": options.hardware_compatible,
        "profiles": [list(profile) for profile in options.profiles],
        "plugins": digests,
        "ranges": sha256_of_file(Path(ranges)) if ranges and Path(ranges).is_file() else ranges,
        "quantile": options.quantile,
        "cutoff": options.cutoff,
    }


def _meta_of_plan(plan: Plan) -> dict[str, str]:
    meta = {OPTION_PREFIX + name: value for name, value in plan.options.items()}
    return {
        **meta,
        "build_ns": str(plan.build_ns),
        "calibration_batch": str(plan.calibration_batch),
        "notes": "\n".join(plan.notes),
        "log_errors": "\n".join(plan.log_errors),
    }


def _plan_from_meta(meta: dict[str, str], data: bytes) -> Plan:
    return Plan(
        data=data,
        build_ns=int(meta["build_ns"]),
        options={k.removeprefix(OPTION_PREFIX): v for k, v in meta.items() if k.startswith(OPTION_PREFIX)},
        calibration_batch=int(meta["calibration_batch"]),
        notes=tuple(line for line in meta["notes"].split("\n") if line),
        log_errors=tuple(line for line in meta["log_errors"].split("\n") if line),
    )


BACKEND = TrtBackend("trt", "tensorrt", "pip install 'nn-engine-harness[trt]'")
