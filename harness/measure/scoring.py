"""Engine + data set -> Accuracy. Streams: memory does not grow with the images."""

from __future__ import annotations

import hashlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.datasets import RangeFingerprint, lasting_name
from harness.errors import DataError, MeasurementError
from harness.models.preprocess import images_from_pixels
from harness.protocols import Dataset, Engine, Images, LendsBuffers, Progress, no_progress
from harness.records import Accuracy, PackedArray
from harness.specs import ImageRange, ModelSpec
from harness.tasks import TopK, find_task

MAX_CHUNK_BYTES = 16 << 20  # so that chunks of large images stay small; a chunk holds at least one batch
WHITE = 255
N_WAITING = 2  # chunks that wait for their digest, or their ranks, before the engine does
# One thread beside the engine's where there are few CPUs: more take turns with the engine on its own. Where there are
# many, sha256 in one thread has half the rate of the fastest engines.
MANY_CPUS, FEW_HELPERS, MANY_HELPERS = 4, 1, 4
# Images that are read and preprocessed at once. Each call into NumPy hands Python's lock over, which the thread of a
# fast engine waits for: with several helpers fewer and larger calls are better.
FEW_CHUNK, MANY_CHUNK = 1_000, 5_000


class _Chunk(NamedTuple):
    """Images one after the other: as the model takes them, their classes, and what was stored."""

    inputs: Images
    classes: NDArray[np.int64]
    stored: tuple[NDArray[np.generic], NDArray[np.int64]]


class _Reader:
    """Batches of a range, with labels kept until their outputs come back.

    Helpers read and preprocess the next chunks and digest the last ones while the engine runs this one: a fast engine
    would otherwise wait for sha256. Chunks lie in a few buffers, the engine's own where it offers some;
    a buffer is filled again once the outputs of all its images are back.
    """

    def __init__(
        self, dataset: Dataset, spec: ModelSpec, images: ImageRange, batch_size: int, engine: Engine | None = None
    ) -> None:
        self.fingerprint = RangeFingerprint()
        self.waiting: deque[tuple[int, NDArray[np.int64]]] = deque()
        self._dataset, self._spec, self._images, self._batch_size = dataset, spec, images, batch_size
        fitting = max(1, MAX_CHUNK_BYTES // (math.prod(spec.input_shape) * np.dtype(np.float32).itemsize))
        chunk, self._n_ahead = (MANY_CHUNK, 2) if _has_many_cpus() else (FEW_CHUNK, 1)
        n_batches = min(chunk, fitting, images.n_images) // batch_size
        self._chunk_images = max(1, n_batches) * batch_size
        # Of a chunk each: one running, one whose last batches are still in flight, and those that are read ahead.
        self._n_buffers = 2 + self._n_ahead
        self._free = self._buffers(engine)
        self._lent: deque[tuple[int, Images]] = deque()  # first image after the buffer's, buffer
        self._reading = threading.Lock()  # a data set need not be made for several threads

    def batches(self, helpers: Executor) -> Generator[Images, None, None]:
        """Yield batches; a batch stays as it is until its outputs are back. `helpers`: threads."""
        starts = range(self._images.first, self._images.stop, self._chunk_images)
        digested: deque[Future[None]] = deque()
        pending: deque[Future[_Chunk]] = deque()
        for index, first in enumerate(starts):
            for ahead in starts[index + len(pending) : index + 1 + self._n_ahead]:
                pending.append(helpers.submit(self._chunk, ahead, self._buffer(ahead, first)))
            inputs, classes, stored = pending.popleft().result()
            digested.append(helpers.submit(self.fingerprint.digest, self.fingerprint.cut(first, *stored)))
            if len(digested) > N_WAITING:
                digested.popleft().result()
            for start in range(0, len(inputs), self._batch_size):
                batch = inputs[start : start + self._batch_size]
                self.waiting.append((first + start, classes[start : start + self._batch_size]))
                yield _padded(batch, self._spec.max_batch)
        for one in digested:
            one.result()

    def repeats(self) -> NDArray[np.int64]:
        """Return int64[R, 2]: the place of an image that came before, and the place where it did."""
        first = self._images.first
        return self.fingerprint.repeats(lambda place: self._dataset.read(first + place, first + place + 1)[0])

    def _buffers(self, engine: Engine | None) -> deque[Images]:
        if isinstance(engine, LendsBuffers):
            lent = engine.host_buffers(self._n_buffers, self._chunk_images)
            if lent:
                return deque(lent)
        # One block, of which the system hands out large pages: three would cost mlp a tenth of its time in page faults.
        return deque(np.empty((self._n_buffers, self._chunk_images, *self._spec.input_shape), np.float32))

    def _buffer(self, first: int, unread: int) -> Images | None:
        """Return a buffer for the chunk from image `first` on, None while all are in use.

        `unread`: the first image that was not handed out yet.
        """
        oldest = self.waiting[0][0] if self.waiting else unread
        while self._lent and self._lent[0][0] <= oldest:
            self._free.append(self._lent.popleft()[1])
        if not self._free:
            return None
        buffer = self._free.popleft()
        self._lent.append((first + self._chunk_images, buffer))
        return buffer

    def _chunk(self, first: int, buffer: Images | None) -> _Chunk:
        with self._reading:
            pixels, labels = self._dataset.read(first, min(first + self._chunk_images, self._images.stop))
        is_scaled = pixels.dtype == np.uint8
        if is_scaled:
            self._check_card(pixels[:1])
        images = images_from_pixels(pixels, self._spec, out=None if buffer is None else buffer[: len(pixels)])
        if not is_scaled:
            self._check_finite(images, first)
        return _Chunk(images, self._classes(labels, first), (pixels, labels))

    def _check_card(self, pixels: NDArray[np.generic]) -> None:
        """Refuse a card that has no finite value for black or for white; then all pixels between have one."""
        ends = np.concatenate([np.zeros_like(pixels), np.full_like(pixels, WHITE)])
        with np.errstate(invalid="ignore", over="ignore"):
            is_finite = np.isfinite(images_from_pixels(ends, self._spec)).all()
        if not is_finite:
            raise DataError(
                f"8-bit pixels become NaN or Inf for model {self._spec.name}; fix the card's scale, mean and std"
            )

    def _check_finite(self, images: Images, first: int) -> None:
        with np.errstate(invalid="ignore", over="ignore"):
            if np.isfinite(images.sum()):  # NaN and Inf stay in a sum; one that overflows is looked at again
                return
        finite = np.isfinite(images.reshape(len(images), -1)).all(axis=1)
        if not finite.all():
            raise DataError(
                f"image {first + int(np.argmin(finite))} of {self._dataset.name}/{self._dataset.split} holds NaN or "
                "Inf after preprocessing; fix the data or the card's scale, mean and std"
            )

    def _classes(self, labels: NDArray[np.int64], first: int) -> NDArray[np.int64]:
        classes = labels + self._spec.label_offset
        wrong = np.flatnonzero((classes < 0) | (classes >= self._spec.num_classes))
        if wrong.size:
            raise DataError(
                f"image {first + int(wrong[0])} of {self._dataset.name}/{self._dataset.split} has label "
                f"{int(labels[wrong[0]])} (+ offset {self._spec.label_offset}), but model {self._spec.name} has "
                f"classes 0..{self._spec.num_classes - 1}; check the card's classes and label_offset"
            )
        return classes


def _padded(batch: Images, fixed_batch: int | None) -> Images:
    if fixed_batch is None or len(batch) == fixed_batch:
        return batch
    return np.concatenate([batch, np.repeat(batch[:1], fixed_batch - len(batch), axis=0)])


def score_engine(
    engine: Engine,
    dataset: Dataset,
    spec: ModelSpec,
    images: ImageRange,
    *,
    batch_size: int,
    outputs_path: Path | None = None,
    progress: Progress = no_progress,
) -> Accuracy:
    """Score a range of images and keep the result of every one.

    `outputs_path` receives the raw outputs, float32[N, K] little-endian.
    Raises: MeasurementError for outputs of NaN or +inf (with the image's index), of a wrong dtype or shape; DataError
    for labels the model does not have.
    """
    if batch_size < 1:
        raise MeasurementError(f"a scoring batch of {batch_size} images is no batch; at least 1 is needed")
    size = spec.max_batch or min(batch_size, images.n_images)
    reader = _Reader(dataset, spec, images, size, engine)
    started = time.perf_counter_ns()
    with ExitStack() as stack:
        helpers, ranker = _threads(stack)
        scores = _Scores(spec, ranker)
        file = stack.enter_context(outputs_path.open("wb")) if outputs_path else None
        done = 0
        # Closed here on an error, not with its traceback: threads may not write into an engine's memory after it ends.
        batches = stack.enter_context(closing(reader.batches(helpers)))
        stream = engine.infer_stream(batches)
        if isinstance(stream, Generator):
            stack.enter_context(closing(stream))
        for outputs in stream:
            first, classes = reader.waiting.popleft()
            own = outputs[: len(classes)]
            scores.add(first, own, classes)
            if file:
                file.write(np.ascontiguousarray(own, "<f4").data)
            done += len(classes)
            progress(done, images.n_images)
        if done != images.n_images:
            raise MeasurementError(f"model {spec.name}: {done} of {images.n_images} images came back from the engine")
        ranked = scores.ranked()
    return _accuracy(ranked, scores.hexdigest(), spec, images, reader, started_ns=started, batch_size=size)


def _has_many_cpus() -> bool:
    return (os.cpu_count() or 1) >= MANY_CPUS


def _threads(stack: ExitStack) -> tuple[Executor, Executor]:
    """Return the helpers and the one thread that ranks, which is theirs where there are few CPUs."""
    n_helpers = MANY_HELPERS if _has_many_cpus() else FEW_HELPERS
    helpers = stack.enter_context(ThreadPoolExecutor(max_workers=n_helpers))
    return helpers, helpers if n_helpers == 1 else stack.enter_context(ThreadPoolExecutor(max_workers=1))


def _accuracy(
    parts: list[_Ranked],
    outputs_sha256: str,
    spec: ModelSpec,
    images: ImageRange,
    reader: _Reader,
    *,
    started_ns: int,
    batch_size: int,
) -> Accuracy:
    """Return what was scored."""
    small = np.uint8 if spec.num_classes <= np.iinfo(np.uint8).max + 1 else np.uint16
    tops, repeats = [part.top for part in parts], reader.repeats()
    return Accuracy(
        images=images,
        fingerprint=reader.fingerprint.hexdigest(),
        num_classes=spec.num_classes,
        labels=PackedArray.of(np.concatenate([part.classes for part in parts]).astype(small)),
        predictions=PackedArray.of(np.concatenate([top.predictions for top in tops]).astype(small)),
        top1_hits=PackedArray.of(np.packbits(np.concatenate([top.top1 for top in tops]))),
        top5_hits=PackedArray.of(np.packbits(np.concatenate([top.top5 for top in tops]))),
        margins=PackedArray.of(np.concatenate([top.margins for top in tops])),
        n_ties_top1=sum(top.n_ties_top1 for top in tops),
        n_ties_top5=sum(top.n_ties_top5 for top in tops),
        outputs_sha256=outputs_sha256,
        top1_hits_last=_packed_hits_last(tops),
        repeats=PackedArray.of(repeats) if repeats.size else None,
        block_digests=PackedArray.of(reader.fingerprint.block_digests()),
        n_trained_on=sum(images.overlap(replace(seen, dataset=lasting_name(seen.dataset))) for seen in spec.trained_on),
        score_ns=time.perf_counter_ns() - started_ns,
        batch_size=batch_size,
    )


def _packed_hits_last(tops: list[TopK]) -> PackedArray | None:
    if all(top.top1_last is None for top in tops):
        return None
    return PackedArray.of(
        np.packbits(np.concatenate([top.top1 if top.top1_last is None else top.top1_last for top in tops]))
    )


@dataclass(frozen=True, slots=True)
class _Ranked:
    top: TopK
    classes: NDArray[np.int64]


class _Scores:
    """Ranks outputs a chunk at a time, in a thread: NumPy's fixed cost a call would rival a fast engine."""

    def __init__(self, spec: ModelSpec, ranker: Executor) -> None:
        """`ranker`: one thread, so that outputs are digested in order."""
        self._spec, self._task, self._ranker = spec, find_task(spec.task), ranker
        self._chunk_images = MANY_CHUNK if _has_many_cpus() else FEW_CHUNK
        self._digest = hashlib.sha256()
        self._outputs: list[NDArray[np.float32]] = []
        self._classes: list[NDArray[np.int64]] = []
        self._n_waiting, self._first = 0, 0
        self._parts: deque[Future[_Ranked]] = deque()
        self._ranked: list[_Ranked] = []

    def add(self, first: int, outputs: NDArray[np.float32], classes: NDArray[np.int64]) -> None:
        """Add the outputs of images first.. Raises: MeasurementError for another dtype or shape, NaN and +inf."""
        if outputs.dtype != np.float32:
            raise MeasurementError(
                f"model {self._spec.name}: outputs are {outputs.dtype}; expected float32: export the model with a "
                "float32 output (a Cast at its end)"
            )
        if outputs.shape != (len(classes), self._spec.num_classes):
            raise MeasurementError(
                f"model {self._spec.name}: outputs of shape {outputs.shape} for images "
                f"{first}..{first + len(classes) - 1}; expected {(len(classes), self._spec.num_classes)}"
            )
        if not self._n_waiting:
            self._first = first
        self._outputs.append(outputs)
        self._classes.append(classes)
        self._n_waiting += len(classes)
        if self._n_waiting >= self._chunk_images:
            self._submit()

    def ranked(self) -> list[_Ranked]:
        """Return the ranks of all outputs. Raises: MeasurementError for NaN and +inf."""
        if self._n_waiting:
            self._submit()
        while self._parts:
            self._ranked.append(self._parts.popleft().result())
        return self._ranked

    def hexdigest(self) -> str:
        """Return the sha256 of the outputs that were ranked."""
        return self._digest.hexdigest()

    def _submit(self) -> None:
        self._parts.append(self._ranker.submit(self._rank, self._outputs, self._classes, self._first))
        self._outputs, self._classes, self._n_waiting = [], [], 0
        if len(self._parts) > N_WAITING:
            self._ranked.append(self._parts.popleft().result())

    def _rank(self, parts: list[NDArray[np.float32]], classes_of_parts: list[NDArray[np.int64]], first: int) -> _Ranked:
        outputs, classes = np.concatenate(parts), np.concatenate(classes_of_parts)
        _check_outputs(outputs, self._spec, first)
        self._digest.update(np.ascontiguousarray(outputs, "<f4").data)
        return _Ranked(self._task.score(outputs, classes), classes)


def _check_outputs(outputs: NDArray[np.float32], spec: ModelSpec, first: int) -> None:
    """Refuse NaN and +inf, and a row of -inf alone; -inf for some classes rules them out, which is a score."""
    if np.isfinite(outputs).all():
        return
    is_broken = (np.isnan(outputs) | np.isposinf(outputs)).any(axis=1) | np.isneginf(outputs).all(axis=1)
    if is_broken.any():
        row = int(np.flatnonzero(is_broken)[0])
        raise MeasurementError(
            f"model {spec.name}: image {first + row} gives {outputs[row][~np.isfinite(outputs[row])][0]} as an output; "
            "an FP16 overflow and a damaged weight are the usual causes"
        )
