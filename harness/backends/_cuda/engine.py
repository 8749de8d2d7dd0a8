"""What every engine on a GPU does alike: batches through the ring, a timer on its own buffers, and an orderly end."""

from __future__ import annotations

import atexit
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from harness.backends._cuda.device import Gpu
from harness.backends._cuda.host_timer import WINDOW as HOST_WINDOW
from harness.backends._cuda.host_timer import CudaHostTimer
from harness.backends._cuda.ring import Ring, Slot
from harness.backends._cuda.timer import CudaTimer, outputs_on_device, work_of_window
from harness.errors import MeasurementError
from harness.protocols import Images, Outputs
from harness.records import EngineFacts

T = TypeVar("T", bound="CudaEngine")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedWork:
    """One inference of a batch in a slot, as a timer repeats it."""

    bind: Callable[[], int]  # makes the engine ready; its number changes when captured graphs have become invalid
    run: Callable[[], object]  # enqueues one inference on the slot's compute stream
    entries_per_call: int  # of the stream's queue, about
    launch: str
    can_capture: bool = True


class KeepsFacts:
    """What is known of an engine, and notes that join it while the engine runs."""

    _facts: EngineFacts

    @property
    def facts(self) -> EngineFacts:
        """What is known of the engine by now."""
        return self._known(self._facts)

    @facts.setter
    def facts(self, facts: EngineFacts) -> None:
        self._facts = facts

    def _known(self, facts: EngineFacts) -> EngineFacts:
        """Add what changes while the engine runs."""
        return facts

    def _note(self, text: str) -> None:
        """Keep once what the user should know."""
        if text not in self._facts.notes:
            self._facts = replace(self._facts, notes=(*self._facts.notes, text))


class CudaEngine(KeepsFacts, ABC):
    """A built engine on one GPU; closes the GPU when it is closed itself. Part of `protocols.Engine`.

    A subclass sets `facts`, makes `_ring` once its engine can run, then calls `_opened`; from then on the engine is
    closed at the end of the process at the latest: a context left on the stack aborts the process.
    """

    def __init__(self, gpu: Gpu, *, label: str) -> None:
        self._gpu, self._label = gpu, label
        self._compute: Any = gpu.stream()  # of every inference but those that overlap
        self._timers: list[CudaTimer | CudaHostTimer] = []
        self._ring: Ring
        self.closed = True

    @abstractmethod
    def _make_slot(self, n_images: int, *, stream: Any = None, index: int = 0) -> Slot:
        """Return buffers of one batch; with a `stream` of their own for copies, or none."""

    @abstractmethod
    def _timed_work(self, slot: Slot, n_images: int, launch: str) -> TimedWork:
        """Return what a timer of a batch in a slot repeats. Raises: ConfigError for a launch that cannot be had."""

    @abstractmethod
    def _check(self, images: Images) -> None:
        """Refuse a batch that the engine does not take. Raises: MeasurementError."""

    @abstractmethod
    def _free(self) -> None:
        """Free the engine and all that lies on the GPU, its streams last; the CUDA context is still there."""

    def infer(self, images: Images) -> Outputs:
        """Run one batch and return fresh memory. Raises: MeasurementError."""
        self._check_idle()
        slot = self._ring.slots[0]
        try:
            self._ring.stage(slot, images)
            self._ring.submit(slot)
            return self._ring.collect(slot)
        except self._gpu.errors as error:
            raise self._failed(f"batch {len(images)} failed on the device", error) from error

    def host_buffers(self, n_buffers: int, n_images: int) -> list[Images]:
        """Return page-locked arrays that `infer_stream` sends from without a copy; see `Ring.host_buffers`."""
        self._check_idle()
        try:
            return self._ring.host_buffers(n_buffers, n_images)
        except self._gpu.errors as error:
            raise self._failed(f"{n_buffers} buffers of {n_images} images", error) from error

    def infer_stream(self, batches: Iterable[Images]) -> Iterator[Outputs]:
        """Yield the outputs of each batch in order, overlapping copies and inferences. Fresh memory each.

        Until it ends or is closed the engine can be used for nothing else. Raises: MeasurementError.
        """
        self._check_idle()
        try:
            yield from self._ring.stream(batches)
        except self._gpu.errors as error:
            raise self._failed("scoring failed on the device", error) from error

    def timer(self, images: Images, *, window: str, launch: str) -> CudaTimer | CudaHostTimer:
        """Bind a batch and return its timer.

        Windows by CUDA events are compute, h2d, d2h and end_to_end (copy in, compute, copy out, one after the other);
        `host` is the wall time of one synchronous call with its copies. Raises: ConfigError for a window or launch
        that this engine lacks, MeasurementError.
        """
        self._check_idle()
        self._check(images)
        slot = self._own_slot(len(images))
        self._ring.stage(slot, images)
        timed = self._timed_work(slot, len(images), launch)
        is_host = window == HOST_WINDOW
        device_window = "end_to_end" if is_host else window
        work = work_of_window(device_window, timed.run, gpu=self._gpu, slot=slot, label=self._label)
        outputs = partial(outputs_on_device, self._gpu, slot)
        by_host = partial(CudaHostTimer, slot=slot, images=images, read_outputs=outputs)
        by_events = partial(CudaTimer, window=window, entries_per_call=timed.entries_per_call, outputs=outputs)
        make: Callable[..., CudaTimer | CudaHostTimer] = by_host if is_host else by_events
        try:
            self._gpu.copy_in(slot.device_in, slot.host_in, slot.compute)
            timer = make(
                self._gpu,
                slot.compute,
                work=work,
                bind=timed.bind,
                batch_size=len(images),
                launch=timed.launch,
                can_capture=timed.can_capture,
                note=self._note,
            )
        except self._gpu.errors as error:
            raise self._failed(f"timing batch {len(images)} failed on the device", error) from error
        self._timers.append(timer)
        return timer

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
        self._free()
        del self._compute
        self._gpu.close()

    def __enter__(self: T) -> T:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> None:
        self.closed = False
        atexit.register(self.close)

    def _own_slot(self, n_images: int) -> Slot:
        """Return buffers outside the ring. Raises: MeasurementError when there is no memory for them."""
        try:
            return self._make_slot(n_images)
        except self._gpu.errors as error:
            raise self._failed(f"buffers of batch {n_images}", error) from error

    def _failed(self, what: str, error: BaseException) -> MeasurementError:
        return MeasurementError(f"{self._label}: {what}: {error}")

    def _check_open(self) -> None:
        if self.closed:
            raise MeasurementError(f"{self._label}: the engine is closed; build it again")

    def _check_idle(self) -> None:
        self._check_open()
        self._ring.check_idle(self._label)
