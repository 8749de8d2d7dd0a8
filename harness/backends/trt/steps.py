"""The engines of a search: kept in the content cache while it goes on, and run on the images that judge them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from harness.backends._cuda.device import Gpu
from harness.backends.trt.build import Plan
from harness.backends.trt.builder import Builder
from harness.backends.trt.engine import TrtEngine
from harness.backends.trt.keys import PLAN_NOTES, meta_of_plan, plan_from_meta
from harness.backends.trt.loaded import LoadedPlan, PlanRefused
from harness.errors import BuildError
from harness.protocols import CalibrationSet, Outputs
from harness.store.cache import ContentCache

KIND = "searched"  # folder of the cache; empty but while a search goes on, or was killed


class Steps:
    """Plans of one search with their outputs; `another` opens the GPU once more, for engines that close theirs."""

    def __init__(self, cache: ContentCache | None, gpu: Gpu, another: Callable[[], Gpu]) -> None:
        self._cache, self._gpu, self._another = cache, gpu, another
        self._keys: list[dict[str, object]] = []
        self.warnings: tuple[str, ...] = ()

    def take(
        self, builder: Builder, calibration: CalibrationSet | None, images: CalibrationSet
    ) -> tuple[Plan, Outputs]:
        """Return a plan, kept from before or built and kept, and its outputs on images. Raises: BuildError."""
        key = builder.plan_key(self._gpu, calibration)
        self._keys.append(key)
        plan = self._kept(builder, key)
        if plan is not None:
            try:
                return plan, self._outputs(builder, plan, images)
            except PlanRefused as error:
                self.warnings += (f"an engine searched before was refused and is built anew: {error}",)
        plan = builder.build(calibration, self._gpu)
        if self._cache is not None:
            self._cache.put(key, plan.data, name=f"{builder.label}.plan", meta=meta_of_plan(plan))
        return plan, self._outputs(builder, plan, images)

    def forget(self) -> None:
        """Take the plans out of the cache."""
        if self._cache is not None:
            for key in self._keys:
                self._cache.drop(key)
        self._keys = []

    def _kept(self, builder: Builder, key: dict[str, object]) -> Plan | None:
        if self._cache is None or builder.caches.rebuild:
            return None
        looked = self._cache.lookup(key, needs=PLAN_NOTES)
        if looked.state == "damaged":
            self.warnings += (f"an engine searched before was damaged and is built anew: {looked.reason}",)
        if looked.entry is None:
            return None
        try:
            data = Path(looked.entry.path).read_bytes()
        except OSError:  # another search, that shares it, has ended and taken it away
            return None
        return plan_from_meta(looked.entry.meta, data)

    def _outputs(self, builder: Builder, plan: Plan, images: CalibrationSet) -> Outputs:
        """Return a plan's outputs on images, of a model of a fixed batch those of whole batches."""
        gpu = self._another()
        try:
            engine = TrtEngine(LoadedPlan(builder.api, plan, label=builder.label), gpu, label=builder.label)
        except BaseException:
            gpu.close()
            raise
        with engine:
            fixed = engine.input.shape[0]
            batches = images.batches(fixed or max(builder.batch_sizes))
            outputs = [engine.infer(batch) for batch in batches if fixed in (None, len(batch))]
        if not outputs:
            raise BuildError(f"{builder.label}: a fixed batch of {fixed} leaves no whole batch of images held out")
        return np.concatenate(outputs)
