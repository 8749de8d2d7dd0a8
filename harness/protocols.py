"""The seams: what a data set, a backend, an engine and a timer must offer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from harness.records import Artifact, Availability, EngineFacts, EngineFile, Layer, Support, TensorSpec
from harness.specs import BuildOptions, Case

Images = NDArray[np.float32]  # float32[N, C, H, W], as the model wants them
Outputs = NDArray[np.float32]  # float32[N, K]
Tensors = Mapping[str, NDArray[np.generic]]  # an engine's inputs or outputs by name, of any dtype and rank
IMAGE = "image"  # the input of a sample that the card prepares
ONLY = ""  # the input of a sample from a file without names: the model's only one
Batch = Images | Tensors  # what one run takes
Kept = Outputs | Tensors | None  # what a timer keeps of its last call: of a batch of images, by name, or nothing
Progress = Callable[[int, int], None]  # done, total


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


@runtime_checkable
class Dataset(Protocol):
    """Labelled images in a fixed order; an image's id is its index in its split."""

    name: str
    split: str
    n_images: int
    num_classes: int
    image_shape: tuple[int, ...]  # (H, W) or (C, H, W)

    def read(self, first: int, stop: int) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        """Return images first..stop-1 and their labels.

        images: uint8[N, H, W] or uint8[N, C, H, W] (0..255), or float32[N, C, H, W] already in the model's scale.
        labels: int64[N]. Memory is fresh or read-only; the caller never writes into it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One sample of a set: what goes into a model, and what should come out."""

    id: str  # its file's name, or its index
    inputs: Tensors  # by the model's names, without a batch axis; IMAGE: uint8[H, W, C], for the card to prepare
    target: object = None  # as the task takes it; None where the set has none


@runtime_checkable
class SampleSet(Protocol):
    """Samples in a fixed order, of any inputs; what `Dataset` is to labelled images of one size."""

    name: str
    split: str
    n_samples: int

    def sample(self, index: int) -> Sample:
        """Return one sample. Raises: DataError for a damaged one, by its file's name."""
        ...


class FitsImages(Protocol):
    """What a model's card makes of an image before any arithmetic: size, cut and colours."""

    def __call__(self, image: NDArray[np.uint8], name: object) -> NDArray[np.uint8]:
        """Return uint8[C, H, W] of uint8[H, W, 1 or 3]. Raises: DataError, naming the image."""
        ...

    @property
    def text(self) -> str:
        """Return all that it does, in words: equal for cards that make the same of every image."""
        ...

    @property
    def is_plain(self) -> bool:
        """Tell whether the card asks for nothing: images of the model's size and channels stay as they are."""
        ...


class CalibrationSet(Protocol):
    """Preprocessed calibration images, read anew at each call."""

    fingerprint: str  # sha256 of ids, labels and pixels in order, and of how they are preprocessed
    n_images: int

    def batches(self, batch_size: int) -> Iterator[Images]:
        """Yield float32[<= batch_size, C, H, W]; the last may be smaller."""
        ...


@runtime_checkable
class TensorCalibrationSet(Protocol):
    """Calibration samples of a model of any graph, read anew at each call."""

    fingerprint: str  # of everything that is fed, in order
    n_images: int  # samples

    def feeds(self, batch_size: int) -> Iterator[Tensors]:
        """Yield the inputs of one run after the other, of at most `batch_size` samples each."""
        ...


@runtime_checkable
class TellsProgress(Protocol):
    """What a calibration set may offer beside its batches: to say how far the build is that reads it."""

    def tell(self, done: int, total: int) -> None:
        """Say that `done` of `total` engines are built; whoever waits for the build counts its silence anew."""
        ...


class Timer(Protocol):
    """Times one engine on one batch that is already in place."""

    batch_size: int
    clock: str  # host or cuda_event
    window: str  # compute or end_to_end; h2d, d2h where copies are the engine's own
    calls_per_sample: int  # settable: how many calls one sample spans

    @property
    def launch(self) -> str:
        """Return call (host), enqueue or graph."""
        ...

    @property
    def gated(self) -> bool:
        """Tell whether the stream is held while calls are enqueued."""
        ...

    def sample(self, n_samples: int) -> NDArray[np.float64]:
        """Return float64[n_samples]: ns per call, already divided by calls_per_sample."""
        ...

    def enqueue_ns(self) -> float | None:
        """Return the median host time of one plain enqueue [ns], None where there is no queue."""
        ...


@runtime_checkable
class SlowsDown(Protocol):
    """What a timer may offer beside `Timer`: calls that last longer, so that a gate can be shown what it must see."""

    def slow_down(self, fraction: float) -> None:
        """Let every call last longer by a fraction of its present time, inside the timed region.

        A fraction of 0 adds what the wait itself costs: two arms then differ by the wait alone. Once a timer.
        Raises: MeasurementError where that cannot be done.
        """
        ...


@runtime_checkable
class LowersLaunch(Protocol):
    """What a timer may offer beside `Timer`: to go without what the engine timed in turn with it lacks."""

    def lower(self, *, graph: bool, gate: bool) -> None:
        """Go on without a graph, or without a gate, where the timer has one and may not keep it.

        Afterwards `launch` and `gated` may say less than was left to it.
        """
        ...


@runtime_checkable
class KeepsOutputs(Protocol):
    """What a timer may offer beside `Timer`: what its timed calls compute, to be held against what was scored."""

    def outputs(self) -> Kept:
        """Return float32[N, K] of the timed batch as the last call left it; None where the window computes nothing.

        A timer of named tensors returns all outputs by name. Reads the timer's own buffers and runs no inference. Where
        it can, it then spoils them (NaN, or all bits set), so that the next reading shows what the calls between the
        two wrote.
        """
        ...


@runtime_checkable
class AuditsClock(Protocol):
    """What a timer may offer beside `Timer`: a look at its own clock."""

    def empty_ns(self, n: int) -> NDArray[np.float64]:
        """Return float64[n]: what the clock says of nothing at all [ns]."""
        ...

    def drift(self, span_ns: int) -> float:
        """Return the clock's rate over that of another one, less one, watched for at least span_ns."""
        ...


class Engine(Protocol):
    """A built engine; owned by one thread, closed by whoever built it."""

    input: TensorSpec
    output: TensorSpec
    facts: EngineFacts  # may gain notes while the engine runs

    def infer(self, images: Images) -> Outputs:
        """Run one batch and return fresh memory.

        Raises: MeasurementError for a wrong rank, shape or dtype, a non-finite input, or a closed engine.
        """
        ...

    def infer_stream(self, batches: Iterable[Images]) -> Iterator[Outputs]:
        """Yield the outputs of each batch in order; may overlap copies and compute. Fresh memory each."""
        ...

    def timer(self, images: Images, *, window: str, launch: str) -> Timer:
        """Bind a batch and return its timer. Raises ConfigError for a window or launch this engine lacks."""
        ...

    def layers(self) -> tuple[Layer, ...]:
        """Return the layers as they really ran, with times where known. Runs the engine; never while timing."""
        ...

    def close(self) -> None:
        """Free everything; a second call does nothing."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Context(Protocol):
    """One of several executions of an engine that may run at once, with a batch in place."""

    def run(self) -> object:
        """Run the batch and wait for it, without Python's lock; one thread a context. Raises: MeasurementError."""
        ...

    def outputs(self) -> Kept:
        """Return float32[N, K] of the last run, or all outputs by name; as `KeepsOutputs` has it."""
        ...


@runtime_checkable
class QueuedContext(Context, Protocol):
    """A context whose runs can be begun without waiting, so that one thread keeps several of them going.

    All calls come from the thread that opened the engine; a run that was begun is waited for before the next one.
    """

    def begin(self) -> None:
        """Put a run on the device's queue and return at once. Raises: MeasurementError."""
        ...

    def wait(self) -> None:
        """Wait for the run that was begun. Raises: MeasurementError."""
        ...


@runtime_checkable
class RunsConcurrently(Protocol):
    """What an engine may offer beside `Engine`: several inferences at once."""

    concurrency: str  # how they run, in words: "requests of one model with a stream each"
    most_contexts: int | None  # how many contexts it gives at most; None where only the host bounds them

    def contexts(self, images: Images, n_contexts: int) -> Sequence[Context]:
        """Return contexts that hold a batch each, valid until the engine is closed. Raises: MeasurementError."""
        ...


@runtime_checkable
class RunsTensors(Protocol):
    """What an engine may offer beside `Engine`: named inputs and outputs of any dtype and rank, several of each."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, feeds: Tensors) -> Tensors:
        """Run once and return every output, in fresh memory.

        Raises: MeasurementError for a missing or unknown input, a wrong rank, shape or dtype, or a closed engine.
        """
        ...

    def bind(self, feeds: Tensors, *, batch_size: int, window: str, launch: str) -> Timer:
        """Put inputs in place and return their timer; `batch_size`: samples in them, as the timer tells it.

        Raises: as `run`; ConfigError for a window or launch this engine lacks.
        """
        ...


@runtime_checkable
class RunsTensorsConcurrently(Protocol):
    """What `RunsConcurrently` is to batches of images, of named inputs and outputs."""

    concurrency: str  # how they run, in words
    most_contexts: int | None  # how many contexts it gives at most; None where only the host bounds them

    def bind_contexts(self, feeds: Tensors, n_contexts: int, *, batch_size: int) -> Sequence[Context]:
        """Return contexts that hold the inputs each, valid until the engine is closed; `batch_size`: samples in them.

        Raises: MeasurementError, as `RunsTensors.run`; for more contexts than `most_contexts`.
        """
        ...


@runtime_checkable
class LendsBuffers(Protocol):
    """What an engine may offer beside `Engine`: memory that it reads batches from without copying them first."""

    def host_buffers(self, n_buffers: int, n_images: int) -> list[Images]:
        """Return float32[n_images, ...] arrays, valid until the engine is closed; none where it has no such memory.

        Whoever fills one answers for finite values, and leaves it alone until the outputs of its batches are back.
        """
        ...


@runtime_checkable
class LoadsEngines(Protocol):
    """What a backend may offer beside `Backend`: to load an engine that was built before, here or elsewhere."""

    def load(self, file: EngineFile, artifact: Artifact, *, device: str, options: BuildOptions) -> Engine:
        """Load an engine from its file; `artifact` is what it was built of.

        Raises: BuildError where the runtime refuses it, with what it needs; BackendUnavailable.
        """
        ...


@runtime_checkable
class ExportsEngine(Protocol):
    """What an engine may offer beside `Engine`: to be written to a file that its backend loads."""

    def export(self, path: Path) -> int | None:
        """Write it and return the only batch size that the file takes [images], None where that is free.

        Raises: BuildError, where its runtime writes none.
        """
        ...


@runtime_checkable
class TakesOperators(Protocol):
    """What a backend may offer beside `Backend`: operators of domains that no runtime has, from libraries."""

    library_flag: str  # by which a library is given

    def has_operators(self, options: BuildOptions) -> bool:
        """Tell whether there may be any: libraries were given, or it brings operators of other domains along."""
        ...


@runtime_checkable
class TimedAfresh(Protocol):
    """What a backend may offer beside `Backend`: the word that what its process did before changes its times."""

    is_timed_afresh: bool  # its engines are timed in a process that has built and run nothing


@runtime_checkable
class BoundsBatches(Protocol):
    """What a backend may offer beside `Backend`: engines whose batch sizes have bounds inside their range."""

    def batch_bounds(self, options: BuildOptions) -> tuple[int, ...]:
        """Return the batch sizes at which an engine's behaviour may change [images]; () where only the largest is."""
        ...


@runtime_checkable
class TakesOptions(Protocol):
    """What a backend without option rows may offer beside `Backend`: options of its own, all text."""

    option_names: tuple[str, ...]  # of `--backend-option NAME.KEY=VALUE`, in `BuildOptions.settings[NAME]`


@runtime_checkable
class TakesDevices(Protocol):
    """What a backend may offer beside `Backend`: devices that no probe lists, such as several in one."""

    def takes_device(self, device: str) -> bool:
        """Tell whether `--device` may name it; whether it is there, `build` tells."""
        ...


class Backend(Protocol):
    """One inference runtime. `probe` and `build` import it; they run in worker processes only."""

    name: str
    install_hint: str  # what to install, for example "pip install 'nn-engine-harness[cpu]'"
    required_modules: tuple[str, ...]  # top-level modules of the runtime, looked for without importing them

    def probe(self) -> Availability:
        """Say whether engines can run here, on which devices, with which versions, and why not."""
        ...

    def supports(self, case: Case) -> Support:
        """Say whether this device can do the case at all. Called in a worker after a successful probe.

        What depends on the model's operators is for `build` to meet.
        """
        ...

    def build(
        self,
        artifact: Artifact,
        *,
        device: str,
        batch_sizes: tuple[int, ...],
        options: BuildOptions,
        calibration: CalibrationSet | None = None,
    ) -> Engine:
        """Build an engine for every batch size asked.

        Raises: BuildError; Unsupported when the runtime has no kernel for the model in this precision.
        """
        ...
