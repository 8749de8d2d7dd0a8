"""Engines of any graph on a GPU: named inputs and outputs of any dtype and rank, one inference after the other."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.backends._cuda.base import CudaBase, TimedWork
from harness.backends._cuda.contexts import MOST_CONTEXTS, QUEUED, CudaTensorContext
from harness.backends._cuda.device import Gpu
from harness.backends._cuda.host_timer import CudaHostTimer
from harness.backends._cuda.moves import Moves
from harness.backends._cuda.timer import CudaTimer
from harness.backends._inputs import check_feeds, check_same_outputs, spoil
from harness.errors import MeasurementError
from harness.protocols import Images, KeepsOutputs, Outputs, Tensors
from harness.records import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one input or output lies: the same bytes in page-locked memory and on the device."""

    host: NDArray[Any]  # as the engine has it: dtype and shape
    raw: NDArray[np.uint8]  # its bytes
    device: Any


class TensorBuffers:
    """Memory for inputs and outputs by name; it grows with them, and is used again for other shapes."""

    def __init__(self, gpu: Gpu, stream: Any) -> None:
        """`stream`: that all copies are enqueued on."""
        self._gpu, self._stream = gpu, stream
        self._memory: dict[str, tuple[NDArray[np.uint8], Any]] = {}

    def place(self, name: str, shape: tuple[int, ...], dtype: str) -> Place:
        """Return where a tensor lies until the next call of the same name. Raises: CudaError without memory."""
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        known = self._memory.get(name)
        if known is None or len(known[0]) < n_bytes:
            # What is outgrown is freed with the GPU alone: growing by half keeps it small.
            room = max(1, n_bytes if known is None else n_bytes + n_bytes // 2)
            known = self._memory[name] = (self._gpu.pinned((room,), np.uint8), self._gpu.device_memory(room))
        raw = known[0][:n_bytes]
        return Place(host=raw.view(dtype).reshape(shape), raw=raw, device=known[1])

    def copy_in(self, places: Iterable[Place]) -> None:
        """Enqueue the copies to the device."""
        for place in places:
            if place.raw.size:
                self._gpu.copy_in(place.device, place.raw, self._stream)

    def copy_out(self, places: Iterable[Place]) -> None:
        """Enqueue the copies from the device."""
        for place in places:
            if place.raw.size:
                self._gpu.copy_out(place.raw, place.device, self._stream)


class CudaTensorEngine(CudaBase):
    """An engine of any graph on one GPU. Implements `protocols.Engine`, `RunsTensors` and its contexts, in part.

    A subclass calls `_take` once it knows what goes in and out.
    """

    concurrency = QUEUED
    most_contexts = MOST_CONTEXTS

    def __init__(self, gpu: Gpu, *, label: str) -> None:
        super().__init__(gpu, label=label)
        self._buffers = TensorBuffers(gpu, self._compute)

    def _take(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], dtypes: Mapping[str, str]) -> None:
        """Keep inputs and outputs as a caller sees them; `dtypes`: of those that the device has in another type."""
        self.inputs, self.outputs, self._dtypes = inputs, outputs, dict(dtypes)
        self.input, self.output = inputs[0], outputs[0]

    @abstractmethod
    def _run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """Run checked inputs once and return every output in fresh memory. Raises: MeasurementError."""

    @abstractmethod
    def _timed_work(self, places: Mapping[str, Place], launch: str) -> TimedWork:
        """Return what a timer repeats on inputs and outputs. Raises: ConfigError for a launch that cannot be had."""

    def run(self, feeds: Tensors) -> Tensors:
        """Run once and return every output, in fresh memory. Raises: MeasurementError."""
        self._check_open()
        check_feeds(feeds, self.inputs, self._label)
        for name, dtype in self._dtypes.items():
            if name in feeds:
                self._check_narrowed(name, feeds[name], dtype)
        try:
            return self._run(feeds)
        except self._gpu.errors as error:
            shapes = {name: list(array.shape) for name, array in feeds.items()}
            raise self._failed(f"a run of shapes {shapes} failed on the device", error) from error

    def infer(self, images: Images) -> Outputs:
        """Run a model of one input and return its first output. Raises: MeasurementError."""
        return np.asarray(self.run({self.input.name: images})[self.output.name], np.float32)

    def infer_stream(self, batches: Iterable[Images]) -> Iterator[Outputs]:
        """Yield the outputs of each batch in order, one after the other."""
        for images in batches:
            yield self.infer(images)

    def timer(self, images: Images, *, window: str, launch: str) -> CudaTimer | CudaHostTimer:
        """Bind the only input of a model; see `bind`."""
        return self.bind({self.input.name: images}, batch_size=len(images), window=window, launch=launch)

    def bind(self, feeds: Tensors, *, batch_size: int, window: str, launch: str) -> CudaTimer | CudaHostTimer:
        """Put inputs in place, in memory of the timer's own, and return it; windows are those of `CudaEngine.timer`.

        Raises: ConfigError for a window or launch that this engine lacks, MeasurementError.
        """
        expected = self.run(feeds)
        timed, moves = self._put(feeds, expected, batch_size, launch)
        timer = self._new_timer(timed, moves, stream=self._compute, batch_size=batch_size, window=window)
        self._check_same(timer, expected)
        return timer

    def bind_contexts(self, feeds: Tensors, n_contexts: int, *, batch_size: int) -> tuple[CudaTensorContext, ...]:
        """Put inputs in place for each of some inferences at once; see `protocols.RunsTensorsConcurrently`.

        Raises: MeasurementError, also for more than `most_contexts`.
        """
        if not 1 <= n_contexts <= MOST_CONTEXTS:
            raise MeasurementError(f"{self._label}: {n_contexts} inferences at once; expected 1 to {MOST_CONTEXTS}")
        expected, contexts = self.run(feeds), []
        for _ in range(n_contexts):
            timed, moves = self._put(feeds, expected, batch_size, "auto")
            context = CudaTensorContext(
                self._gpu, self._compute, timed=timed, moves=moves, failed=self._failed, note=self._note
            )
            self._lent.append(context)
            self._check_same(context, expected)
            contexts.append(context)
        return tuple(contexts)

    def _put(self, feeds: Tensors, expected: Tensors, batch_size: int, launch: str) -> tuple[TimedWork, Moves]:
        """Return an inference on memory of its own, its inputs staged, and how they and its outputs move."""
        buffers = TensorBuffers(self._gpu, self._compute)
        try:
            sources = {name: self._place(buffers, name, array) for name, array in feeds.items()}
            targets = {name: self._place(buffers, name, array) for name, array in expected.items()}
        except self._gpu.errors as error:
            raise self._failed(f"buffers of batch {batch_size}", error) from error
        moves = self._moves(buffers, sources, targets, feeds)
        timed = self._timed_work({**sources, **targets}, launch)
        moves.stage()
        return timed, moves

    def _check_same(self, keeps: KeepsOutputs, expected: Tensors) -> None:
        found = keeps.outputs()
        if isinstance(found, Mapping):
            check_same_outputs(found, expected, self._label)

    def _place(self, buffers: TensorBuffers, name: str, array: NDArray[Any]) -> Place:
        return buffers.place(name, array.shape, self._dtypes.get(name, array.dtype.name))

    def _moves(
        self, buffers: TensorBuffers, sources: dict[str, Place], targets: dict[str, Place], feeds: Tensors
    ) -> Moves:
        pairs = tuple((sources[name].host, np.array(array)) for name, array in feeds.items())

        def stage() -> None:
            for host, array in pairs:
                np.copyto(host, array, casting="same_kind")

        def read_outputs() -> Tensors:
            try:
                buffers.copy_out(targets.values())
                self._compute.synchronize()
                found = self._fresh(targets)
                for place in targets.values():
                    spoil(place.host)
                buffers.copy_in(targets.values())
                self._compute.synchronize()
            except self._gpu.errors as error:
                raise self._failed("reading outputs back failed on the device", error) from error
            return found

        return Moves(
            stage=stage,
            copy_in=lambda: buffers.copy_in(sources.values()),
            copy_out=lambda: buffers.copy_out(targets.values()),
            collect=lambda: self._fresh(targets),
            read_outputs=read_outputs,
        )

    def _fresh(self, places: Mapping[str, Place]) -> dict[str, NDArray[Any]]:
        """Return outputs in memory of their own, in the caller's types."""
        dtypes = {tensor.name: tensor.dtype for tensor in self.outputs}
        return {name: place.host.astype(dtypes[name]) for name, place in places.items()}

    def _check_narrowed(self, name: str, array: NDArray[Any], dtype: str) -> None:
        """Refuse whole numbers that the device's type does not hold. Raises: MeasurementError."""
        if array.dtype.kind in "iu" and not np.array_equal(array.astype(dtype), array):
            raise MeasurementError(f"{self._label}: input {name} holds numbers beyond {dtype}, the engine's type")

    def _drop_buffers(self) -> None:
        del self._buffers
