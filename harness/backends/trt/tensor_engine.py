"""A TensorRT plan of any graph, deserialized and ready to run on named inputs, one inference at a time."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.backends._cuda.base import TimedWork
from harness.backends._cuda.device import Gpu
from harness.backends._cuda.tensors import CudaTensorEngine, Place
from harness.backends._inputs import profile_feeds
from harness.backends.trt.engine import ENTRIES_BESIDE_LAYERS
from harness.backends.trt.loaded import LoadedPlan
from harness.backends.trt.tensor_lane import TensorLane, graph_tensors, pick_lane, profiles_of
from harness.protocols import Tensors
from harness.records import EngineFacts, Layer
from harness.specs import ModelTensors


class TrtTensorEngine(CudaTensorEngine):
    """One engine of any graph, with one context a profile. Implements `protocols.Engine` and `RunsTensors`.

    Raises: as `TrtEngine`; Unsupported for outputs whose size depends on values.
    """

    def __init__(self, loaded: LoadedPlan, gpu: Gpu, tensors: ModelTensors, *, label: str) -> None:
        """Load a plan that is not loaded yet."""
        self.loaded, self._tensors = loaded, tensors
        self._lanes: list[TensorLane] = []
        self._facts = EngineFacts(build_ns=loaded.plan.build_ns, log_errors=loaded.plan.log_errors)
        try:
            self.loaded.load()
            super().__init__(gpu, label=label)
            self._take(*graph_tensors(loaded.api.trt, loaded.engine, tensors))
            for index, limits in enumerate(profiles_of(loaded.engine, self.inputs)):
                lane = TensorLane(loaded.new_context, index=index, limits=limits, lines=loaded.lines)
                self._lanes.append(lane)
                lane.open(self._compute)
            lane = self._lanes[0]
            lane.check_outputs(lane.limits.best, self.outputs, self._compute)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # what they hold must go before the CUDA context does
            self._free()
            raise
        self._opened()

    def layers(self) -> tuple[Layer, ...]:
        """Return the layers as they ran, with the median time of each at the largest profile's tuned shapes.

        Raises: MeasurementError.
        """
        lane = self._lanes[-1]
        feeds = {**profile_feeds(self.inputs, self._tensors, self._profiled_batch(lane))}
        self.run(feeds)
        lane = pick_lane(self._lanes, feeds, self._label)
        try:
            layers = self.loaded.layers(lane, self._compute)
        except self._gpu.errors as error:
            raise self._failed("profiling failed on the device", error) from error
        lane.open(self._compute)  # a fresh context: the profiler makes every enqueue wait
        return layers

    def _known(self, facts: EngineFacts) -> EngineFacts:
        logged = (*facts.log_errors, *self.loaded.lines.errors)
        return replace(facts, log_errors=logged, n_contexts=len(self._lanes), n_engines=1)

    def _profiled_batch(self, lane: TensorLane) -> int:
        """Return how many samples a profile is tuned for."""
        sizes = {
            lane.limits.best[one.name][one.batch_axis]
            for one in self._tensors.inputs
            if one.batch_axis is not None and one.name in lane.limits.best
        }
        return max(sizes, default=1)

    def _run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        lane = pick_lane(self._lanes, feeds, self._label)
        lane.bind({name: array.shape for name, array in feeds.items()}, self._compute)
        sources = {name: self._place(self._buffers, name, array) for name, array in feeds.items()}
        for name, array in feeds.items():
            np.copyto(sources[name].host, array, casting="same_kind")
        targets = {
            tensor.name: self._buffers.place(
                tensor.name, lane.shape_of(tensor.name), self._dtypes.get(tensor.name, tensor.dtype)
            )
            for tensor in self.outputs
        }
        lane.point({**sources, **targets})
        self._buffers.copy_in(sources.values())
        lane.enqueue(self._compute)
        self._buffers.copy_out(targets.values())
        self._compute.synchronize()
        return self._fresh(targets)

    def _timed_work(self, places: Mapping[str, Place], launch: str) -> TimedWork:
        shapes = {tensor.name: places[tensor.name].host.shape for tensor in self.inputs}
        lane = pick_lane(self._lanes, {name: places[name].host for name in shapes}, self._label)

        def bind() -> int:
            self._check_open()
            generation = lane.bind(shapes, self._compute)
            lane.point(places)
            return generation

        return TimedWork(
            bind=bind,
            run=lambda: lane.enqueue(self._compute),
            entries_per_call=int(self.loaded.engine.num_layers) + ENTRIES_BESIDE_LAYERS,
            launch=launch,
            can_capture=lane.can_capture(self._compute),
        )

    def _free(self) -> None:
        for lane in self._lanes:
            lane.close()
        self._lanes = []
        self.loaded.drop()
