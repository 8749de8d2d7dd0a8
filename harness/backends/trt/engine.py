"""A TensorRT plan, deserialized and ready to run. Owned by one thread; everything is freed before the context is."""

from __future__ import annotations

import traceback
from dataclasses import replace
from typing import Any

from harness.backends._cuda.device import Gpu
from harness.backends._cuda.engine import CudaEngine, TimedWork
from harness.backends._cuda.ring import N_SLOTS, Ring, Slot
from harness.backends._inputs import check_images
from harness.backends.trt.context import BatchLane, engine_tensors
from harness.backends.trt.lanes import Lanes
from harness.backends.trt.loaded import LoadedPlan
from harness.errors import BuildError
from harness.protocols import Images
from harness.records import EngineFacts, Layer, TensorSpec

ENTRIES_BESIDE_LAYERS = 8  # queue entries of copies, events and shape kernels of one call


class TrtEngine(CudaEngine):
    """One engine and its execution contexts. Implements `protocols.Engine`.

    Raises: PlanRefused when the plan cannot be deserialized. The engine closes `gpu` when it is closed itself.
    """

    def __init__(self, loaded: LoadedPlan, gpu: Gpu, *, label: str) -> None:
        """Load a plan that is not loaded yet."""
        self.loaded, self._lanes = loaded, Lanes(loaded)
        self._facts = EngineFacts(build_ns=loaded.plan.build_ns, log_errors=loaded.plan.log_errors)
        try:
            self.loaded.load()
            super().__init__(gpu, label=label)
            self.input, self.output = engine_tensors(loaded.api.trt, loaded.engine)
            self._lanes.open(self.input, self._compute)
            self._ring = self._make_ring()
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # what they hold must go before the CUDA context does
            self._free()
            raise
        self._opened()

    def _known(self, facts: EngineFacts) -> EngineFacts:
        return replace(
            facts,
            log_errors=(*facts.log_errors, *self.loaded.lines.errors),
            n_contexts=self._lanes.n_contexts,
            n_engines=self._lanes.n_engines,
        )

    def layers(self) -> tuple[Layer, ...]:
        """Return the layers as they ran, with the median time of each at the largest profile's opt batch.

        Raises: MeasurementError.
        """
        self._check_idle()
        lane = max(self._lanes.main, key=lambda one: one.high)
        slot = self._own_slot(lane.best)
        slot.host_in[...] = 0
        try:
            self._gpu.copy_in(slot.device_in, slot.host_in, self._compute)
            lane.bind(lane.best, self._tensors, self._compute)
            lane.point(self._tensors, int(slot.device_in), int(slot.device_out))
            lane.enqueue(self._compute)
            self._compute.synchronize()
            layers = self.loaded.layers(lane, self._compute)
        except self._gpu.errors as error:
            raise self._failed("profiling failed on the device", error) from error
        lane.open(self._compute)  # a fresh context: the profiler makes every enqueue wait
        return layers

    @property
    def concurrency(self) -> str:
        """Return how inferences run at once, in words."""
        return "execution contexts with a stream each, by one thread" if self._lanes.overlaps else super().concurrency

    @property
    def _tensors(self) -> tuple[TensorSpec, TensorSpec]:
        return self.input, self.output

    def _free(self) -> None:
        self._lanes.close()
        self.loaded.drop()

    def _make_ring(self) -> Ring:
        largest = self._lanes.largest_batch
        try:
            slots = [self._make_slot(largest, stream=self._slot_stream(index), index=index) for index in range(N_SLOTS)]
        except self._gpu.errors as error:
            raise BuildError(f"{self._label}: buffers of batch {largest}: {error}") from error
        return Ring(
            self._gpu,
            slots,
            bind=self._bind_slot,
            enqueue=self._enqueue_slot,
            check=self._check,
            note=self._note,
            can_capture=self._can_capture(),
        )

    def _slot_stream(self, index: int) -> Any:
        """Return the stream of a slot. The first's is the one that is timed on, and `infer` uses that slot alone.

        A context that has run on another stream may be 5 % slower on its own for good (docs/latency.md).
        """
        return self._compute if index == 0 and self._lanes.overlaps else self._gpu.stream()

    def _make_slot(self, n_images: int, *, stream: Any = None, index: int = 0) -> Slot:
        in_shape = (n_images, *(size or 0 for size in self.input.shape[1:]))
        out_shape = (n_images, self.output.shape[1] or 0)
        types = (self.input.dtype, self.output.dtype)
        compute = stream if stream is not None and self._lanes.overlaps else self._compute
        return Slot(self._gpu, in_shape, out_shape, types, compute=compute, stream=stream, index=index)

    def _timed_work(self, slot: Slot, n_images: int, launch: str) -> TimedWork:
        lane = self._lanes.pick(n_images)

        def bind() -> int:
            self._ring.check_idle(self._label)
            generation = lane.bind(n_images, self._tensors, slot.compute)
            lane.point(self._tensors, int(slot.device_in), int(slot.device_out))
            return generation

        return TimedWork(
            bind=bind,
            run=lambda: lane.enqueue(slot.compute),
            entries_per_call=int(self.loaded.engine.num_layers) + ENTRIES_BESIDE_LAYERS,
            launch=launch,
            can_capture=self._can_capture(),
        )

    def _bind_slot(self, slot: Slot) -> int:
        return self._lane(slot).bind(slot.n_images, self._tensors, slot.compute)

    def _enqueue_slot(self, slot: Slot) -> None:
        lane = self._lane(slot)
        lane.point(self._tensors, int(slot.device_in), int(slot.device_out))
        lane.enqueue(slot.compute)

    def _lane(self, slot: Slot) -> BatchLane:
        try:
            if self._lanes.overlaps:
                return self._lanes.of_slot(slot)
        except BuildError as error:  # no memory for it, for example; PlanRefused is one
            self._take_turns(str(error))
        slot.compute = self._compute
        return self._lanes.of_slot(slot)

    def _take_turns(self, reason: str) -> None:
        """Let all slots run in one context, one after the other, on one stream."""
        self._gpu.synchronize()
        self._ring.drop_graphs()
        self._lanes.take_turns()
        self._note(f"scored one inference at a time: {reason}")

    def _can_capture(self) -> bool:
        return self._lanes.main[0].can_capture(self._compute)

    def _check(self, images: Images) -> None:
        free = TensorSpec(name=self.input.name, dtype="float32", shape=(None, *self.input.shape[1:]))
        check_images(images, free, self._label)
        self._lanes.pick(len(images))
