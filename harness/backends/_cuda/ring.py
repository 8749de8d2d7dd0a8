"""Overlapped inference: a ring of buffers, each with streams of its own, and one CUDA graph per slot and batch size.

The calling thread enqueues everything: a thread of its own took 70 us a batch of 100 MNIST images where this took 50,
because the two hand the interpreter lock over at each CUDA call. What is left of these 50 us was mostly the copy to
page-locked memory, so a reader may fill such memory itself (`host_buffers`), and its batches are then sent from there.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.backends._cuda.device import Gpu, Graph, NotCapturable
from harness.errors import MeasurementError
from harness.protocols import Images, Outputs

N_SLOTS = 6  # batches of a small net leave most of a GPU idle: five run while one is filled or collected
IN_FLIGHT = N_SLOTS - 1


class Events(NamedTuple):
    """Marks on a slot's streams."""

    copied_in: Any
    computed: Any
    copied_out: Any


class Slot:
    """Buffers of one batch on the host and on the device, its streams, its events and its graphs.

    Copies go through `stream`, inferences through `compute`. Slots whose inferences may overlap have both in one;
    slots that share a stream of inferences take turns on it.
    """

    def __init__(
        self,
        gpu: Gpu,
        in_shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        types: tuple[str, str],
        *,
        compute: Any,
        stream: Any = None,
        index: int = 0,
    ) -> None:
        self.index = index
        self.host_in: NDArray[Any] = gpu.pinned(in_shape, types[0])
        self.host_out: NDArray[Any] = gpu.pinned(out_shape, types[1])
        self.device_in = gpu.device_memory(self.host_in.nbytes)
        self.device_out = gpu.device_memory(self.host_out.nbytes)
        self.compute = compute
        self.stream = compute if stream is None else stream
        self.events = Events(copied_in=gpu.event(), computed=gpu.event(), copied_out=gpu.event())
        self.n_images = 0
        self.source: NDArray[Any] = self.host_in[:0]  # the batch, in page-locked memory
        self.graphs: dict[int, tuple[int, Graph]] = {}  # batch -> (generation, graph)
        self.ran: dict[int, int] = {}  # batch -> generation it was last enqueued plainly in

    def drop_graphs(self) -> None:
        """Destroy the graphs; their work must be done."""
        for _, graph in self.graphs.values():
            graph.close()
        self.graphs.clear()
        self.ran.clear()


class Ring:
    """Runs batches through copy in, compute and copy out, several at a time.

    `bind(slot)` makes the engine ready for the slot's batch and returns the generation of its shape; `enqueue(slot)`
    puts one inference on the slot's buffers on its compute stream; `check(images)` raises what is wrong with a batch;
    `note(text)` keeps what the user should know.
    A shape runs plainly first, then as a graph captured for each slot; a shape that cannot be captured stays plain
    and is noted. With `is_batch_fixed` every batch fills its slot.
    """

    def __init__(
        self,
        gpu: Gpu,
        slots: list[Slot],
        *,
        bind: Callable[[Slot], int],
        enqueue: Callable[[Slot], None],
        check: Callable[[Images], None],
        note: Callable[[str], None],
        can_capture: bool,
        is_batch_fixed: bool = False,
    ) -> None:
        self._gpu, self.slots = gpu, slots
        self._bind, self._enqueue, self._check, self._note = bind, enqueue, check, note
        self._can_capture, self._is_batch_fixed, self._is_streaming = can_capture, is_batch_fixed, False
        self.beside: list[Slot] = []  # slots that take no part in streams
        self._buffers: list[tuple[int, int, NDArray[Any]]] = []  # first and last address, array

    def host_buffers(self, n_buffers: int, n_images: int) -> list[Images]:
        """Return page-locked float32[n_images, ...] arrays, valid until the engine is closed.

        A batch that lies in one is sent from there, unchecked: whoever fills it answers for finite values, and leaves
        it alone until the batch's outputs are back. Empty where the engine's input is not float32.
        """
        shape = (n_images, *self.slots[0].host_in.shape[1:])
        if self.slots[0].host_in.dtype != np.float32:
            return []
        fitting = [buffer for _, _, buffer in self._buffers if buffer.shape == shape]
        fresh = [self._gpu.pinned(shape, np.float32) for _ in range(n_buffers - len(fitting))]
        self._buffers += [(buffer.ctypes.data, buffer.ctypes.data + buffer.nbytes, buffer) for buffer in fresh]
        return [*fitting, *fresh][:n_buffers]

    def stage(self, slot: Slot, images: Images) -> Slot:
        """Copy a batch into a slot's page-locked memory. Raises: MeasurementError for a batch that cannot be run."""
        self._check_shape(slot, images)
        slot.n_images = len(images)
        slot.source = slot.host_in[: slot.n_images]
        np.copyto(slot.source, images, casting="same_kind")
        # Looked at after the copy, when it lies in the cache. A sum is the quickest look: NaN and Inf stay in it; one
        # that overflows is looked at again. A BLAS dot product would start threads for 300 KB.
        with np.errstate(invalid="ignore", over="ignore"):
            total = float(slot.source.sum(dtype=slot.source.dtype))
        if not math.isfinite(total):
            self._check(images)
        return slot

    def submit(self, slot: Slot) -> None:
        """Enqueue one staged slot; its outputs are there once `collect` returns."""
        generation = self._bind(slot)  # first, because it may give the slot another stream
        stream, compute = slot.stream, slot.compute
        self._gpu.copy_in(slot.device_in, slot.source, stream)
        if compute is not stream:
            slot.events.copied_in.record(stream)
            compute.wait_for_event(slot.events.copied_in)
        self._run(slot, generation)
        if compute is not stream:
            slot.events.computed.record(compute)
            stream.wait_for_event(slot.events.computed)
        self._gpu.copy_out(slot.host_out[: slot.n_images], slot.device_out, stream)
        slot.events.copied_out.record(stream)

    def repeat(self, slot: Slot) -> None:
        """Enqueue an inference of the batch that lies in a slot; it has ended once `events.computed` is reached."""
        self._run(slot, self._bind(slot))
        slot.events.computed.record(slot.compute)

    def collect(self, slot: Slot) -> Outputs:
        """Wait for a slot and return its outputs in fresh memory."""
        slot.events.copied_out.synchronize()
        return slot.host_out[: slot.n_images].astype(np.float32)

    def stream(self, batches: Iterable[Images]) -> Iterator[Outputs]:
        """Yield the outputs of each batch in order, with IN_FLIGHT batches on the GPU meanwhile."""
        pending: deque[Slot] = deque()
        self._is_streaming = True
        try:
            for index, images in enumerate(batches):
                slot = self._place(self.slots[index % N_SLOTS], images)
                self.submit(slot)
                pending.append(slot)
                if len(pending) > IN_FLIGHT:
                    yield self.collect(pending.popleft())
            while pending:
                yield self.collect(pending.popleft())
        finally:
            self._is_streaming = False
            for slot in pending:  # the caller went away: nothing may still be written when the slot is used again
                slot.events.copied_out.synchronize()

    def check_idle(self, engine: str) -> None:
        """Refuse any other use of the slots while a stream is open. Raises: MeasurementError."""
        if self._is_streaming:
            raise MeasurementError(f"{engine}: batches are being streamed; end or close that stream first")

    def drop_graphs(self) -> None:
        """Destroy the graphs of all slots; their work must be done."""
        for slot in (*self.slots, *self.beside):
            slot.drop_graphs()

    def _place(self, slot: Slot, images: Images) -> Slot:
        """Make a batch ready to be sent: where it lies, or copied to the slot's own memory."""
        if not self._is_page_locked(images):
            return self.stage(slot, images)
        self._check_shape(slot, images)
        slot.n_images, slot.source = len(images), images
        return slot

    def _is_page_locked(self, images: Images) -> bool:
        if not self._buffers or not isinstance(images, np.ndarray) or not images.flags.c_contiguous:
            return False
        first = images.__array_interface__["data"][0]  # half the time of images.ctypes.data
        last = first + images.nbytes
        return any(start <= first and last <= stop for start, stop, _ in self._buffers)

    def _check_shape(self, slot: Slot, images: Images) -> None:
        is_float = isinstance(images, np.ndarray) and images.dtype == np.float32
        sizes = range(len(slot.host_in) if self._is_batch_fixed else 1, len(slot.host_in) + 1)
        if not is_float or images.shape[1:] != slot.host_in.shape[1:] or len(images) not in sizes:
            self._check(images)

    def _run(self, slot: Slot, generation: int) -> None:
        n_images = slot.n_images
        known = slot.graphs.get(n_images)
        if known is not None and known[0] == generation:
            known[1].launch()
            return
        if self._can_capture and slot.ran.get(n_images) == generation:
            try:
                graph = Graph(self._gpu, slot.compute, lambda: self._enqueue(slot))
            except NotCapturable as error:
                self._can_capture = False
                self._note(f"scored without CUDA graphs: {error}")
            else:
                slot.graphs[n_images] = (generation, graph)
                if known is not None:
                    known[1].close()
                graph.launch()
                return
        self._enqueue(slot)
        slot.ran[n_images] = generation
