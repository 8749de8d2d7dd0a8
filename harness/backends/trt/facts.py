"""What there is to say of a TensorRT engine: its build, its size, its options as read back, its inputs by content."""

from __future__ import annotations

from harness.backends._cuda.device import Gpu
from harness.backends._inputs import files_in_words
from harness.backends.trt.api import LEGACY_RECIPE, RANGES_RECIPE
from harness.backends.trt.calibrator import LEGACY_CUTOFF, LEGACY_QUANTILE
from harness.backends.trt.loaded import LoadedPlan
from harness.backends.trt.options import TrtOptions
from harness.records import Artifact, EngineFacts


def facts_of_engine(loaded: LoadedPlan, gpu: Gpu, artifact: Artifact, trt: TrtOptions, *, state: str) -> EngineFacts:
    """Return the facts of an engine; `state`: of the plan cache (none, miss, hit, rebuilt)."""
    plan, api = loaded.plan, loaded.api
    note = f"loaded from the engine cache in {loaded.load_ns / 1e6:.0f} ms; build_ns is its build"
    return EngineFacts(
        build_ns=plan.build_ns,
        load_ns=loaded.load_ns,
        engine_bytes=len(plan.data),
        device_memory_bytes=loaded.device_memory_bytes,
        cache=state,
        options={**plan.options, **_inputs_in_words(artifact, trt), "cuda_provider": gpu.provider},
        versions={api.trt.__name__: api.version},
        log_errors=plan.log_errors,
        notes=(note, *plan.notes) if state == "hit" else plan.notes,
        warnings=plan.warnings,
    )


def _inputs_in_words(artifact: Artifact, trt: TrtOptions) -> dict[str, str]:
    """Return what shaped the engine and cannot be read back from the builder."""
    words = {"plugins": files_in_words(trt.plugins)}
    if artifact.recipe == RANGES_RECIPE and trt.ranges_file is not None:
        words["ranges"] = files_in_words((trt.ranges_file,))
    if artifact.recipe == LEGACY_RECIPE:
        words["quantile"] = str(LEGACY_QUANTILE if trt.quantile is None else trt.quantile)
        words["cutoff"] = str(LEGACY_CUTOFF if trt.cutoff is None else trt.cutoff)
    return words
