"""An engine of one artifact: its cached plan where there is a good one, else a plan that is built and stored."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from harness.backends._cuda.device import Gpu
from harness.backends.trt.build import Plan, load_plugins
from harness.backends.trt.builder import Builder
from harness.backends.trt.engine import TrtEngine
from harness.backends.trt.facts import facts_of_engine
from harness.backends.trt.keys import PLAN_NOTES, meta_of_plan, plan_from_meta
from harness.backends.trt.loaded import LoadedPlan, PlanRefused
from harness.backends.trt.tensor_engine import TrtTensorEngine
from harness.errors import BuildError
from harness.protocols import CalibrationSet
from harness.records import EngineFile


def load_engine(builder: Builder, calibration: CalibrationSet | None, gpu: Gpu) -> TrtEngine | TrtTensorEngine:
    """Return the engine, which closes `gpu` when it is closed itself. Raises: BuildError."""
    builder.check(calibration)
    key, cache = builder.plan_key(gpu, calibration), builder.caches.of("plans")
    with nullcontext() if cache is None else cache.building(key):
        engine, refused, file = _from_cache(builder, key, gpu)
        state = "hit"
        if engine is None:
            plan = builder.build(calibration, gpu)
            if cache is not None:
                entry = cache.put(key, plan.data, name=f"{builder.label}.plan", meta=meta_of_plan(plan))
                file = EngineFile(path=entry.path, sha256=entry.sha256)
            engine = _opened(builder, plan, gpu)
            state = "none" if cache is None else "rebuilt" if refused or builder.caches.rebuild else "miss"
    note = builder.calibrating.note(calibration, engine.loaded.plan.calibration_batch)
    facts = facts_of_engine(engine.loaded, gpu, builder.artifact, builder.trt, state=state)
    engine.facts = replace(facts, file=file, calibration=note, warnings=(*refused, *facts.warnings))
    return engine


def load_file(builder: Builder, file: EngineFile, gpu: Gpu) -> TrtEngine | TrtTensorEngine:
    """Return the engine of a plan in a file. Raises: BuildError for one that is not what was named, or is refused."""
    load_plugins(builder.api, builder.trt.plugins)
    try:
        data = Path(file.path).read_bytes()
    except OSError as error:
        raise BuildError(f"{builder.label}: engine {file.path} cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise BuildError(f"{builder.label}: engine {file.path} is not the one of sha256 {file.sha256[:16]}")
    plan = Plan(data=data, build_ns=0)
    engine = _opened(builder, plan, gpu)
    facts = facts_of_engine(engine.loaded, gpu, builder.artifact, builder.trt, state="none")
    engine.facts = replace(facts, file=file)
    return engine


def _opened(builder: Builder, plan: Plan, gpu: Gpu) -> TrtEngine | TrtTensorEngine:
    """Return the engine of a plan, of images or of any graph. Raises: BuildError, Unsupported."""
    loaded = LoadedPlan(builder.api, plan, label=builder.label)
    if builder.tensors is None:
        return TrtEngine(loaded, gpu, label=builder.label)
    return TrtTensorEngine(loaded, gpu, builder.tensors, label=builder.label)


def _from_cache(
    builder: Builder, key: dict[str, object], gpu: Gpu
) -> tuple[TrtEngine | TrtTensorEngine | None, tuple[str, ...], EngineFile | None]:
    """Return the engine of a good cached plan and its file, or None and what was wrong with a bad one."""
    cache = builder.caches.of("plans")
    if cache is None or builder.caches.rebuild:
        return None, (), None
    looked = cache.lookup(key, needs=PLAN_NOTES)
    if looked.state == "damaged":
        return None, (f"the cached plan was damaged and is built anew: {looked.reason}",), None
    if looked.entry is None:
        return None, (), None
    plan = plan_from_meta(looked.entry.meta, Path(looked.entry.path).read_bytes())
    try:
        engine = _opened(builder, plan, gpu)
    except PlanRefused as error:
        return None, (f"the cached plan was refused and is built anew: {error}",), None
    return engine, (), EngineFile(path=looked.entry.path, sha256=looked.entry.sha256)
