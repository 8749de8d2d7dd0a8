"""An engine of one artifact: its cached plan where there is a good one, else a plan that is built and stored."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from harness.backends._cuda.device import Gpu
from harness.backends.trt.builder import Builder
from harness.backends.trt.engine import TrtEngine
from harness.backends.trt.facts import facts_of_engine
from harness.backends.trt.keys import PLAN_NOTES, meta_of_plan, plan_from_meta
from harness.backends.trt.loaded import LoadedPlan, PlanRefused
from harness.protocols import CalibrationSet


def load_engine(builder: Builder, calibration: CalibrationSet | None, gpu: Gpu) -> TrtEngine:
    """Return the engine, which closes `gpu` when it is closed itself. Raises: BuildError."""
    builder.check(calibration)
    key, cache = builder.plan_key(gpu, calibration), builder.caches.of("plans")
    with nullcontext() if cache is None else cache.building(key):
        engine, refused = _from_cache(builder, key, gpu)
        state = "hit"
        if engine is None:
            plan = builder.build(calibration, gpu)
            if cache is not None:
                cache.put(key, plan.data, name=f"{builder.label}.plan", meta=meta_of_plan(plan))
            engine = TrtEngine(LoadedPlan(builder.api, plan, label=builder.label), gpu, label=builder.label)
            state = "none" if cache is None else "rebuilt" if refused or builder.caches.rebuild else "miss"
    note = builder.calibrating.note(calibration, engine.loaded.plan.calibration_batch)
    facts = facts_of_engine(engine.loaded, gpu, builder.artifact, builder.trt, state=state)
    engine.facts = replace(facts, calibration=note, warnings=(*refused, *facts.warnings))
    return engine


def _from_cache(builder: Builder, key: dict[str, object], gpu: Gpu) -> tuple[TrtEngine | None, tuple[str, ...]]:
    """Return the engine of a good cached plan, or None and what was wrong with a bad one."""
    cache = builder.caches.of("plans")
    if cache is None or builder.caches.rebuild:
        return None, ()
    looked = cache.lookup(key, needs=PLAN_NOTES)
    if looked.state == "damaged":
        return None, (f"the cached plan was damaged and is built anew: {looked.reason}",)
    if looked.entry is None:
        return None, ()
    plan = plan_from_meta(looked.entry.meta, Path(looked.entry.path).read_bytes())
    try:
        return TrtEngine(LoadedPlan(builder.api, plan, label=builder.label), gpu, label=builder.label), ()
    except PlanRefused as error:
        return None, (f"the cached plan was refused and is built anew: {error}",)
