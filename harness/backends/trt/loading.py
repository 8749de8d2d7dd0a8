"""An engine of one artifact: its cached plan where there is a good one, else a plan that is built and stored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from harness.backends._cuda.device import Gpu
from harness.backends.trt.builder import Builder
from harness.backends.trt.facts import facts_of_engine
from harness.backends.trt.keys import PLAN_NOTES, meta_of_plan, plan_from_meta, plan_of_file
from harness.backends.trt.loaded import LoadedPlan, PlanRefused
from harness.backends.trt.searching import Search
from harness.backends.trt.tensor_engine import OpenPlan, open_plan
from harness.errors import BuildError
from harness.protocols import CalibrationSet
from harness.records import EngineFile


def load_engine(
    builder: Builder, calibration: CalibrationSet | None, gpu: Gpu, *, another: Callable[[], Gpu]
) -> OpenPlan:
    """Return the engine, which closes `gpu` when it is closed itself; `another` opens the same GPU once more.

    Raises: BuildError.
    """
    builder.check(calibration)
    key, cache = builder.plan_key(gpu, calibration), builder.caches.of("plans")
    with nullcontext() if cache is None else cache.building(key):
        engine, refused, file = _from_cache(builder, key, gpu)
        state = "hit"
        if engine is None:
            search = Search(builder, calibration, gpu, another)
            plan = search.made_plan()
            if cache is not None:
                entry = cache.put(key, plan.data, name=f"{builder.label}.plan", meta=meta_of_plan(plan))
                file = EngineFile(path=entry.path, sha256=entry.sha256)
                search.forget()
            engine = open_plan(
                LoadedPlan(builder.api, plan, label=builder.label), gpu, builder.tensors, label=builder.label
            )
            state = "none" if cache is None else "rebuilt" if refused or builder.caches.rebuild else "miss"
    plan = engine.loaded.plan
    note, unread = builder.calibrating.note(
        calibration,
        batch_size=plan.calibration_batch,
        table=plan.calibration_table,
        method=plan.calibration_method,
    )
    facts = facts_of_engine(engine.loaded, gpu, builder.artifact, builder.trt, state=state)
    engine.facts = replace(facts, file=file, calibration=note, warnings=(*refused, *unread, *facts.warnings))
    return engine


def load_file(builder: Builder, file: EngineFile, gpu: Gpu) -> OpenPlan:
    """Return the engine of a plan in a file. Raises: BuildError for one that is not what was named, or is refused."""
    builder.load_plugins()
    try:
        data = Path(file.path).read_bytes()
    except OSError as error:
        raise BuildError(f"{builder.label}: engine {file.path} cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise BuildError(f"{builder.label}: engine {file.path} is not the one of sha256 {file.sha256[:16]}")
    plan = plan_of_file(data)
    engine = open_plan(LoadedPlan(builder.api, plan, label=builder.label), gpu, builder.tensors, label=builder.label)
    facts = facts_of_engine(engine.loaded, gpu, builder.artifact, builder.trt, state="none")
    engine.facts = replace(facts, file=file)
    return engine


def _from_cache(
    builder: Builder, key: dict[str, object], gpu: Gpu
) -> tuple[OpenPlan | None, tuple[str, ...], EngineFile | None]:
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
        engine = open_plan(
            LoadedPlan(builder.api, plan, label=builder.label), gpu, builder.tensors, label=builder.label
        )
    except PlanRefused as error:
        return None, (f"the cached plan was refused and is built anew: {error}",), None
    return engine, (), EngineFile(path=looked.entry.path, sha256=looked.entry.sha256)
