"""What every engine of image batches on a GPU does alike: the ring, and a timer on buffers of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

from harness.backends._cuda.base import CudaBase, TimedWork
from harness.backends._cuda.contexts import QUEUED, CudaContext
from harness.backends._cuda.device import Gpu
from harness.backends._cuda.host_timer import CudaHostTimer
from harness.backends._cuda.moves import moves_of_slot
from harness.backends._cuda.ring import N_SLOTS, Ring, Slot
from harness.backends._cuda.timer import CudaTimer
from harness.errors import MeasurementError
from harness.protocols import Images, Outputs
from harness.records import TensorSpec

__all__ = ["CudaEngine", "TimedWork"]


class CudaEngine(CudaBase):
    """An engine of image batches on one GPU. Part of `protocols.Engine`.

    A subclass makes `_ring` once its engine can run, before it calls `_opened`.
    """

    most_contexts = N_SLOTS

    def __init__(self, gpu: Gpu, *, label: str) -> None:
        super().__init__(gpu, label=label)
        self._ring: Ring
        self.input: TensorSpec
        self.output: TensorSpec

    def _make_slot(self, n_images: int, *, stream: Any = None, index: int = 0) -> Slot:
        """Return buffers of one batch; with a `stream` of their own for copies, or none.

        Of float32, and run on the engine's one stream, whatever the slot's index, where a subclass says nothing else.
        """
        del index
        in_shape = (n_images, *(size or 0 for size in self.input.shape[1:]))
        out_shape = (n_images, self.output.shape[1] or 0)
        return Slot(self._gpu, in_shape, out_shape, ("float32", "float32"), compute=self._compute, stream=stream)

    @abstractmethod
    def _timed_work(self, slot: Slot, n_images: int, launch: str) -> TimedWork:
        """Return what a timer of a batch in a slot repeats. Raises: ConfigError for a launch that cannot be had."""

    @abstractmethod
    def _check(self, images: Images) -> None:
        """Refuse a batch that the engine does not take. Raises: MeasurementError."""

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
        moves = moves_of_slot(self._gpu, slot, images)
        return self._new_timer(timed, moves, stream=slot.compute, batch_size=len(images), window=window)

    @property
    def concurrency(self) -> str:
        """Return how inferences run at once, in words; a subclass says it where it is otherwise."""
        return QUEUED

    def contexts(self, images: Images, n_contexts: int) -> tuple[CudaContext, ...]:
        """Put a batch in place for each of some inferences at once; see `protocols.RunsConcurrently`.

        Raises: MeasurementError, also for more than `most_contexts`.
        """
        self._check_idle()
        self._check(images)
        if not 1 <= n_contexts <= N_SLOTS:
            raise MeasurementError(f"{self._label}: {n_contexts} inferences at once; expected 1 to {N_SLOTS}")
        try:
            slots = [
                self._make_slot(len(images), stream=ring_slot.stream, index=index)
                for index, ring_slot in enumerate(self._ring.slots[:n_contexts])
            ]
            self._ring.beside += slots
            return tuple(CudaContext(self._gpu, self._ring, slot, images, self._failed) for slot in slots)
        except self._gpu.errors as error:
            raise self._failed(f"{n_contexts} inferences at once", error) from error

    def _drop_buffers(self) -> None:
        self._ring.drop_graphs()
        del self._ring

    def _own_slot(self, n_images: int) -> Slot:
        """Return buffers outside the ring. Raises: MeasurementError when there is no memory for them."""
        try:
            return self._make_slot(n_images)
        except self._gpu.errors as error:
            raise self._failed(f"buffers of batch {n_images}", error) from error

    def _check_idle(self) -> None:
        self._check_open()
        self._ring.check_idle(self._label)
