"""A TensorRT plan, deserialized and ready to run. Owned by one thread; everything is freed before the context is."""

from __future__ import annotations

import atexit
import functools
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np

from harness.backends._cuda.device import Gpu
from harness.backends._cuda.ring import N_SLOTS, Ring, Slot
from harness.backends._cuda.timer import CudaTimer, work_of_window
from harness.backends._inputs import check_images
from harness.backends.trt.api import LogLines, TrtApi, make_logger
from harness.backends.trt.build import Plan
from harness.backends.trt.context import Lane, engine_tensors, lane_limits, pick_lane
from harness.backends.trt.layers import layers_from_inspector
from harness.errors import BuildError, MeasurementError
from harness.precision.effective import median_times
from harness.protocols import Images, Outputs
from harness.records import EngineFacts, Layer, TensorSpec

N_PROFILED_RUNS = 20
# Overlapping pays for engines that leave most of the GPU idle; a larger plan is not loaded several times [bytes].
LARGEST_COPY = 256 << 20
ENTRIES_BESIDE_LAYERS = 8  # queue entries of copies, events and shape kernels of one call


class PlanRefused(BuildError):
    """TensorRT did not take a plan: damaged, or of another version or GPU."""


class TrtEngine:
    """One engine and its execution contexts. Implements `protocols.Engine`.

    One context per profile times and runs single batches. Scoring overlaps inferences, and each needs a context of its
    own: further ones on the same profile where TensorRT allows that (10 and later), else on copies of the engine,
    loaded from the same plan.
    Raises: PlanRefused when the plan cannot be deserialized. The engine closes `gpu` when it is closed itself.
    """

    def __init__(self, api: TrtApi, plan: Plan, gpu: Gpu, *, label: str) -> None:
        self._api, self._gpu, self._label = api, gpu, label
        self._lines = LogLines()
        self._logger = make_logger(api.trt, self._lines)
        self.plan = plan
        self._runtime: Any = None
        self._engine: Any = None
        self._lanes: list[Lane] = []
        self._copies: dict[int, Any] = {}  # slot -> a copy of the engine
        self._spare: dict[tuple[int, int], Lane] = {}  # (profile, slot) -> its context
        self._timers: list[CudaTimer] = []
        self._facts = EngineFacts(build_ns=plan.build_ns, log_errors=plan.log_errors)
        self._shares_profiles = plan.options.get("profile_sharing") == "on"
        self._overlaps = len(plan.data) <= LARGEST_COPY or self._shares_profiles
        try:
            self._open()
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # what they hold must go before the CUDA context does
            self._drop_engine()
            raise
        self.closed = False
        atexit.register(self.close)  # a context left on the stack aborts the process at its end

    def _open(self) -> None:
        started = time.perf_counter_ns()
        self._runtime = self._api.trt.Runtime(self._logger)
        self._engine = self._deserialized()
        self.load_ns = time.perf_counter_ns() - started
        self.input, self.output = engine_tensors(self._api.trt, self._engine)
        self._compute = self._gpu.stream()
        self._lanes = [
            Lane(self._new_context, index=index, limits=limits, lines=self._lines)
            for index, limits in enumerate(lane_limits(self._engine, self.input))
        ]
        for lane in self._lanes:
            lane.open(self._compute)
        self._n_contexts, self._n_engines = len(self._lanes), 1  # the most there were at a time
        self._ring = self._make_ring()

    @property
    def _tensors(self) -> tuple[TensorSpec, TensorSpec]:
        return self.input, self.output

    @property
    def device_memory_bytes(self) -> int:
        """Device memory that one execution context takes [bytes]."""
        engine = self._engine
        # 10.0 has only the first, 11 only the second.
        size = engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size
        return int(size)

    @property
    def facts(self) -> EngineFacts:
        """What is known by now: TensorRT's later errors and the notes of what ran are in it."""
        return replace(
            self._facts,
            log_errors=(*self._facts.log_errors, *self._lines.errors),
            n_contexts=self._n_contexts,
            n_engines=self._n_engines,
        )

    @facts.setter
    def facts(self, facts: EngineFacts) -> None:
        self._facts = facts

    def infer(self, images: Images) -> Outputs:
        """Run one batch and return fresh memory. Raises: MeasurementError."""
        self._check_idle()
        slot = self._ring.slots[0]
        try:
            self._ring.stage(slot, images)
            self._ring.submit(slot)
            return self._ring.collect(slot)
        except self._gpu.errors as error:
            raise MeasurementError(f"{self._label}: batch {len(images)} failed on the device: {error}") from error

    def host_buffers(self, n_buffers: int, n_images: int) -> list[Images]:
        """Return page-locked arrays that `infer_stream` sends from without a copy; see `Ring.host_buffers`."""
        self._check_idle()
        try:
            return self._ring.host_buffers(n_buffers, n_images)
        except self._gpu.errors as error:
            raise MeasurementError(f"{self._label}: {n_buffers} buffers of {n_images} images: {error}") from error

    def infer_stream(self, batches: Iterable[Images]) -> Iterator[Outputs]:
        """Yield the outputs of each batch in order, overlapping copies and inferences. Fresh memory each.

        Until it ends or is closed the engine can be used for nothing else. Raises: MeasurementError.
        """
        self._check_idle()
        try:
            yield from self._ring.stream(batches)
        except self._gpu.errors as error:
            raise MeasurementError(f"{self._label}: scoring failed on the device: {error}") from error

    def infer_in_turn(self, images: Images) -> Outputs:
        """Copy in, run and copy out on one stream and wait: the plain loop `infer_stream` is measured against.

        As such loops go, it copies the batch to page-locked memory and looks at nothing.
        """
        self._check_idle()
        slot, stream = self._ring.slots[0], self._ring.slots[0].compute
        slot.n_images = n_images = len(images)
        try:
            np.copyto(slot.host_in[:n_images], images)
            self._bind_slot(slot)
            self._gpu.copy_in(slot.device_in, slot.host_in[:n_images], stream)
            self._enqueue_slot(slot)
            self._gpu.copy_out(slot.host_out[:n_images], slot.device_out, stream)
            stream.synchronize()
        except self._gpu.errors as error:
            raise MeasurementError(f"{self._label}: batch {n_images} failed on the device: {error}") from error
        return slot.host_out[:n_images].astype(np.float32)

    def timer(self, images: Images, *, window: str, launch: str) -> CudaTimer:
        """Bind a batch and return its CUDA-event timer.

        Windows are compute, h2d, d2h and end_to_end (copy in, compute, copy out, one after the other). Raises:
        ConfigError for a window or launch that this engine lacks, MeasurementError.
        """
        self._check_idle()
        self._check(images)
        n_images, gpu, compute = len(images), self._gpu, self._compute
        slot = self._own_slot(n_images)
        self._ring.stage(slot, images)
        lane = pick_lane(self._lanes, n_images)

        def bind() -> int:
            self._ring.check_idle(self._label)
            generation = lane.bind(n_images, self._tensors, compute)
            lane.point(self._tensors, int(slot.device_in), int(slot.device_out))
            return generation

        def run() -> None:
            lane.enqueue(compute)

        work = work_of_window(window, run, gpu=gpu, slot=slot, label=self._label)
        try:
            gpu.copy_in(slot.device_in, slot.host_in, compute)
            timer = CudaTimer(
                gpu,
                compute,
                work=work,
                bind=bind,
                batch_size=n_images,
                window=window,
                launch=launch,
                entries_per_call=int(self._engine.num_layers) + ENTRIES_BESIDE_LAYERS,
                can_capture=self._can_capture(),
                note=self._note,
            )
        except gpu.errors as error:
            raise MeasurementError(f"{self._label}: timing batch {n_images} failed on the device: {error}") from error
        self._timers.append(timer)
        return timer

    def layers(self) -> tuple[Layer, ...]:
        """Return the layers as they ran, with the median time of each at the largest profile's opt batch.

        Raises: MeasurementError.
        """
        self._check_idle()
        lane = max(self._lanes, key=lambda one: one.high)
        slot = self._own_slot(lane.best)
        slot.host_in[...] = 0
        try:
            self._gpu.copy_in(slot.device_in, slot.host_in, self._compute)
            lane.bind(lane.best, self._tensors, self._compute)
            lane.point(self._tensors, int(slot.device_in), int(slot.device_out))
            lane.enqueue(self._compute)
            self._compute.synchronize()
            text = self._inspect(lane)
            times = self._profiled(lane)
        except self._gpu.errors as error:
            raise MeasurementError(f"{self._label}: profiling failed on the device: {error}") from error
        lane.open(self._compute)  # a fresh context: the profiler makes every enqueue wait
        return layers_from_inspector(text, times_ns=times, profile=lane.index)

    def close(self) -> None:
        """Free everything, then the context; a second call does nothing.

        Raises: CudaError when a fault on the device has broken the context.
        """
        if self.closed:
            return
        self.closed = True
        atexit.unregister(self.close)
        try:
            self._gpu.synchronize()
        except self._gpu.errors:
            self._gpu.close()  # says what is broken; what lies in a broken context goes with the process
            return
        for timer in self._timers:
            timer.close()
        self._ring.close()
        self._timers = []
        del self._ring
        self._drop_engine()
        del self._compute
        self._gpu.close()

    def __enter__(self) -> TrtEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _deserialized(self) -> Any:
        seen = len(self._lines.errors)
        engine = self._runtime.deserialize_cuda_engine(self.plan.data)
        if engine is None:
            raise PlanRefused(
                f"{self._label}: TensorRT {self._api.version} refused the plan: {self._lines.reason(seen)}"
            )
        return engine

    # Contexts are made through these, so that a lane holds no reference to an engine that must be freed before it.
    def _new_context(self) -> Any:
        return self._engine.create_execution_context()

    def _context_of_slot(self, index: int) -> Any:
        """Return a further context: on the same profile where that is allowed, else on the slot's copy."""
        if self._shares_profiles:
            return self._new_context()
        if index not in self._copies:
            self._copies[index] = self._deserialized()
        return self._copies[index].create_execution_context()

    def _close_spare(self) -> None:
        for spare in self._spare.values():
            spare.close()
        self._spare, self._copies = {}, {}

    def _drop_engine(self) -> None:
        self._close_spare()
        for lane in self._lanes:
            lane.close()
        self._lanes = []
        self._engine = None
        self._runtime = None

    def _make_ring(self) -> Ring:
        largest = max(lane.high for lane in self._lanes)
        try:
            slots = [self._make_slot(largest, stream=self._gpu.stream(), index=index) for index in range(N_SLOTS)]
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

    def _make_slot(self, n_images: int, *, stream: Any = None, index: int = 0) -> Slot:
        in_shape = (n_images, *(size or 0 for size in self.input.shape[1:]))
        out_shape = (n_images, self.output.shape[1] or 0)
        types = (self.input.dtype, self.output.dtype)
        compute = stream if stream is not None and self._overlaps else self._compute
        return Slot(self._gpu, in_shape, out_shape, types, compute=compute, stream=stream, index=index)

    def _own_slot(self, n_images: int) -> Slot:
        """Return buffers outside the ring. Raises: MeasurementError when there is no memory for them."""
        try:
            return self._make_slot(n_images)
        except self._gpu.errors as error:
            raise MeasurementError(f"{self._label}: buffers of batch {n_images}: {error}") from error

    def _bind_slot(self, slot: Slot) -> int:
        return self._lane(slot).bind(slot.n_images, self._tensors, slot.compute)

    def _enqueue_slot(self, slot: Slot) -> None:
        lane = self._lane(slot)
        lane.point(self._tensors, int(slot.device_in), int(slot.device_out))
        lane.enqueue(slot.compute)

    def _lane(self, slot: Slot) -> Lane:
        """Return the context that runs a slot's batch: one of its own, so that inferences of slots may overlap."""
        lane = pick_lane(self._lanes, slot.n_images)
        if slot.index == 0 or not self._overlaps:
            return lane
        key = (lane.index, slot.index)
        if key not in self._spare:
            make = functools.partial(self._context_of_slot, slot.index)
            spare = Lane(make, index=lane.index, limits=(lane.low, lane.best, lane.high), lines=self._lines)
            try:
                spare.open(slot.compute)
            except BuildError as error:  # no memory for it, for example; PlanRefused is one
                self._take_turns(str(error))
                return lane
            self._spare[key] = spare
            self._n_contexts = max(self._n_contexts, len(self._lanes) + len(self._spare))
            self._n_engines = max(self._n_engines, 1 + len(self._copies))
        return self._spare[key]

    def _take_turns(self, reason: str) -> None:
        """Let all slots run in one context, one after the other, on one stream."""
        self._gpu.synchronize()
        self._overlaps = False
        for slot in self._ring.slots:
            slot.drop_graphs()
            slot.compute = self._compute
        self._close_spare()
        self._note(f"scored one inference at a time: {reason}")

    def _can_capture(self) -> bool:
        """TensorRT for RTX says whether its work can be captured; elsewhere it is tried."""
        context = self._lanes[0].context
        if not hasattr(context, "is_stream_capturable"):
            return True
        return bool(context.is_stream_capturable(self._compute.handle))

    def _check(self, images: Images) -> None:
        free = TensorSpec(name=self.input.name, dtype="float32", shape=(None, *self.input.shape[1:]))
        check_images(images, free, self._label)
        pick_lane(self._lanes, len(images))

    def _note(self, text: str) -> None:
        if text not in self._facts.notes:
            self._facts = replace(self._facts, notes=(*self._facts.notes, text))

    def _check_open(self) -> None:
        if self.closed:
            raise MeasurementError(f"{self._label}: the engine is closed; build it again")

    def _check_idle(self) -> None:
        self._check_open()
        self._ring.check_idle(self._label)

    def _inspect(self, lane: Lane) -> str:
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = lane.context  # with its shapes set, formats of dynamic tensors are known
        return str(inspector.get_engine_information(self._api.trt.LayerInformationFormat.JSON))

    def _profiled(self, lane: Lane) -> dict[str, float]:
        base = self._api.trt.IProfiler
        runs: list[dict[str, float]] = []

        class LayerTimes(base):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                base.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                runs[-1][layer_name] = runs[-1].get(layer_name, 0.0) + ms * 1e6

        times = LayerTimes()
        lane.context.profiler = times
        for _ in range(N_PROFILED_RUNS):
            runs.append({})
            lane.enqueue(self._compute)
            self._compute.synchronize()
        lane.close()  # before the profiler goes away
        del times
        return median_times(runs[1:])
