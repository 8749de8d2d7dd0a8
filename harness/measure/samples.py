"""An engine of any graph on samples: run, kept on disk, and held against another engine's outputs."""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from harness.errors import MeasurementError, Unsupported
from harness.models.feeds import stacked
from harness.protocols import Engine, Progress, RunsTensors, Tensors, no_progress
from harness.records import ROUNDING_STEP, PackedArray, TensorDrift
from harness.specs import ModelTensors

ROUNDING_SEED = 7
# RuntimeError is of an encrypted member, NotImplementedError (which is one) of an unknown compression.
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
CLASSES_AXIS = -1  # on which a largest value means something, where there is any


def tensors_engine(engine: Engine) -> RunsTensors:
    """Return an engine that runs named tensors. Raises: Unsupported for one that takes a single image alone."""
    if not isinstance(engine, RunsTensors):
        raise Unsupported(f"{type(engine).__name__} takes one float32 image and gives one row an image")
    return engine


class OutputsFile:
    """The outputs of samples in a zip of NPY files, written in order and read by sample."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        """`names`: of the outputs, in the model's order."""
        self._path, self._names = path, tuple(names)
        self._digest = hashlib.sha256()
        self._file: zipfile.ZipFile | None = None
        self.n_samples = 0
        self.n_nan: dict[str, int] = {}  # output -> samples in which it holds NaN

    def __enter__(self) -> OutputsFile:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = zipfile.ZipFile(self._path, "w", zipfile.ZIP_STORED)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, outputs: Tensors) -> None:
        """Write the outputs of the next sample."""
        if self._file is None:
            raise MeasurementError(f"{self._path} is not open for writing")
        for place, name in enumerate(self._names):
            array = np.asarray(outputs[name], order="C")
            if array.dtype.kind == "f" and np.isnan(array).any():
                self.n_nan[name] = self.n_nan.get(name, 0) + 1
            self._digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            self._digest.update(array.tobytes())
            with self._file.open(_member(self.n_samples, place), "w") as member:
                npy.write_array(member, array, allow_pickle=False)
        self.n_samples += 1

    def hexdigest(self) -> str:
        """Return the sha256 of all outputs so far, names, types and shapes among it."""
        return self._digest.hexdigest()


def read_outputs(path: Path, names: Sequence[str]) -> Iterator[dict[str, NDArray[np.generic]]]:
    """Yield the outputs of each sample that `OutputsFile` wrote. Raises: MeasurementError for a damaged file."""
    try:
        with zipfile.ZipFile(path) as file:
            for sample in range(len(file.namelist()) // max(1, len(names))):
                found = {}
                for place, name in enumerate(names):
                    with file.open(_member(sample, place)) as member:
                        found[name] = npy.read_array(member, allow_pickle=False)
                yield found
    except (*DAMAGED_ZIP, OSError, ValueError, KeyError, MemoryError) as error:
        raise MeasurementError(f"{path}: the outputs that were kept are gone or damaged ({error})") from error


def first_outputs(path: Path, n_samples: int, tensors: ModelTensors) -> dict[str, NDArray[np.generic]] | None:
    """Return the kept outputs of the first samples as one run gives them, repeated where they are fewer."""
    names = [one.name for one in tensors.outputs]
    found = []
    for outputs in read_outputs(path, names):
        found.append(outputs)
        if len(found) == n_samples:
            break
    if not found:
        return None
    chosen = [found[index % len(found)] for index in range(n_samples)]
    return {
        one.name: chosen[0][one.name]
        if one.batch_axis is None
        else np.stack([outputs[one.name] for outputs in chosen], axis=one.batch_axis)
        for one in tensors.outputs
    }


def run_samples(
    engine: Engine,
    tensors: ModelTensors,
    samples: Iterator[Tensors],
    *,
    batch_size: int,
    each: Callable[[Tensors], None],
    n_samples: int,
    progress: Progress = no_progress,
) -> None:
    """Run samples in order and hand the outputs of each to `each`, without batch axes.

    Samples share runs of `batch_size` where the model stacks them and their shapes agree; a state goes from run to run.
    Raises: MeasurementError for outputs that are not one a sample, Unsupported.
    """
    runner, state = tensors_engine(engine), _State(tensors)
    size, done = batch_size if tensors.is_stackable else 1, 0
    for group in _groups(samples, size):
        outputs = runner.run(state.into(stacked(tensors, group)))
        _check_outputs(outputs, runner, tensors)
        state.keep(outputs)
        for own in unstacked(tensors, outputs, len(group)):
            each(own)
        done += len(group)
        progress(done, n_samples)


def _check_outputs(outputs: Tensors, runner: RunsTensors, tensors: ModelTensors) -> None:
    """Refuse outputs that are not what the engine declares. Raises: MeasurementError."""
    if set(outputs) != set(tensors.output_names):
        given = ", ".join(outputs) or "nothing"
        raise MeasurementError(f"the engine gives {given}; expected {', '.join(tensors.output_names)}")
    for spec in runner.outputs:
        found = np.asarray(outputs[spec.name]).dtype if spec.name in outputs else spec.dtype
        if found != spec.dtype:
            raise MeasurementError(f"output {spec.name} is {found}; the engine declares {spec.dtype}")


class _State:
    """The outputs of the run before that go into the next."""

    def __init__(self, tensors: ModelTensors) -> None:
        self._states = {one.name: one.state for one in tensors.inputs if one.state}
        self._kept: dict[str, NDArray[np.generic]] = {}

    def into(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        return {**feeds, **self._kept}

    def keep(self, outputs: Tensors) -> None:
        self._kept = {name: np.asarray(outputs[output]) for name, output in self._states.items()}


def _groups(samples: Iterator[Tensors], size: int) -> Iterator[list[Tensors]]:
    """Yield samples that may share a run: of one shape, at most `size`."""
    group: list[Tensors] = []
    for sample in samples:
        if group and (len(group) == size or _shapes(sample) != _shapes(group[0])):
            yield group
            group = []
        group.append(sample)
    if group:
        yield group


def _shapes(sample: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in sample.items()}


def unstacked(tensors: ModelTensors, outputs: Tensors, n_samples: int) -> Iterator[dict[str, NDArray[np.generic]]]:
    """Yield the outputs of each sample of a run. Raises: MeasurementError where an output has not one part a sample.

    Where a run never holds more than one sample, an output without an axis of one is that sample's as it comes.
    """
    if n_samples == 1 and not tensors.is_stackable:
        yield {one.name: _of_one(outputs[one.name], one.batch_axis) for one in tensors.outputs}
        return
    for one in tensors.outputs:
        array, axis = outputs[one.name], one.batch_axis
        parts = 1 if axis is None else array.shape[axis] if axis < array.ndim else 0
        if parts != n_samples:
            raise MeasurementError(
                f"output {one.name} has shape {list(array.shape)} for {n_samples} samples; its samples share no run: "
                "give its shapes with --shapes and --batch-size=1, or its axes in a card"
            )
    for index in range(n_samples):
        yield {
            one.name: outputs[one.name]
            if one.batch_axis is None
            else np.take(outputs[one.name], index, axis=one.batch_axis)
            for one in tensors.outputs
        }


def _of_one(array: NDArray[np.generic], axis: int | None) -> NDArray[np.generic]:
    """Return the output of a run of one sample without its batch axis, where it has it."""
    has_axis = axis is not None and axis < array.ndim and array.shape[axis] == 1
    return np.squeeze(array, axis=axis) if has_axis else array


def rounding_errors(engine: Engine, tensors: ModelTensors, samples: Sequence[Tensors]) -> dict[str, float]:
    """Return output -> median error where the float inputs of some samples move by ROUNDING_STEP, seeded.

    It is what roundings alone do to a model on these inputs: a network that sees nothing in noise gives numbers near 0
    whose last digits are chance.
    Raises: MeasurementError.
    """
    runner = tensors_engine(engine)
    found: dict[str, list[float]] = {name: [] for name in tensors.output_names}
    for index, sample in enumerate(samples):
        generator = np.random.default_rng([ROUNDING_SEED, index])
        outputs = [runner.run(stacked(tensors, [one])) for one in (sample, _moved(sample, generator))]
        for name, errors in found.items():
            errors.append(_relative_error(outputs[0][name], outputs[1][name]))
    return {name: float(np.median(errors)) for name, errors in found.items() if errors}


def _moved(sample: Tensors, generator: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    moved: dict[str, NDArray[np.generic]] = {}
    for name, values in sample.items():
        array: NDArray[Any] = values
        step = 1 + ROUNDING_STEP * generator.standard_normal(array.shape)
        moved[name] = np.multiply(array, step).astype(array.dtype) if array.dtype.kind == "f" else array
    return moved


def _relative_error(reference: NDArray[np.generic], ours: NDArray[np.generic]) -> float:
    """Return the norm of what differs over the reference's norm; of whole numbers the share that differs.

    Another shape is an error of 1; NaN or infinity on one side alone one without bounds.
    """
    if reference.shape != ours.shape:
        return 1.0
    if reference.dtype.kind != "f":
        return int((reference != ours).sum()) / max(1, reference.size)
    theirs, own = reference.astype(np.float64), ours.astype(np.float64)
    is_number = np.isfinite(theirs)
    if not np.array_equal(is_number, np.isfinite(own)) or not np.array_equal(
        theirs[~is_number], own[~is_number], equal_nan=True
    ):
        return math.inf
    theirs, own = _numbers(reference, ours)
    error, signal = np.linalg.norm(own - theirs), np.linalg.norm(theirs)
    return float(error / signal) if signal else float(error > 0)


def _numbers(
    reference: NDArray[np.generic], ours: NDArray[np.generic]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both as float64, with 0 where the reference is no finite number."""
    theirs, own = reference.astype(np.float64), ours.astype(np.float64)
    is_number = np.isfinite(theirs)
    return np.where(is_number, theirs, 0.0), np.where(is_number, own, 0.0)


def drift_of_outputs(
    reference: Iterator[Tensors],
    ours: Iterator[Tensors],
    names: Sequence[str],
    *,
    against: str,
    rounding: Mapping[str, float] | None = None,
) -> tuple[TensorDrift, ...]:
    """Return how far every output is from another engine's on the same samples.

    `rounding`: of the other engine, by output; see `rounding_errors`. Raises: MeasurementError for no samples.
    """
    drifts = {name: _Drift(name, against, (rounding or {}).get(name, 0.0)) for name in names}
    for theirs, own in zip(reference, ours, strict=True):
        for name, drift in drifts.items():
            drift.add(theirs[name], own[name])
    return tuple(drift.found() for drift in drifts.values())


class _Drift:
    """Sums of one output over samples."""

    def __init__(self, name: str, against: str, rounding: float) -> None:
        self._name, self._against, self._rounding = name, against, rounding
        self._first: NDArray[np.generic] | None = None
        self._spread: list[float] = []
        self._relative: list[float] = []
        self._cosines: list[float] = []
        self._largest = self._squares = 0.0
        self._agreed: list[tuple[int, int]] = []  # places with the same largest value, and places
        self._n_values = self._n_reshaped = 0

    def add(self, reference: NDArray[np.generic], ours: NDArray[np.generic]) -> None:
        if self._first is None:
            self._first = reference
        else:
            self._spread.append(min(1.0, _relative_error(self._first, reference)))
        relative = _relative_error(reference, ours)
        self._relative.append(relative)
        if reference.shape != ours.shape:
            self._n_reshaped += 1
            return
        if reference.dtype.kind != "f" or not math.isfinite(relative):
            self._largest = max(self._largest, float(_gap(reference, ours)) if math.isfinite(relative) else math.inf)
            return
        theirs, own = _numbers(reference, ours)
        error, signal = np.linalg.norm(own - theirs), np.linalg.norm(theirs)
        self._largest = max(self._largest, float(np.abs(own - theirs).max(initial=0.0)))
        self._squares += float(error**2)
        self._n_values += theirs.size
        length = signal * np.linalg.norm(own)
        self._cosines.append(float((theirs * own).sum() / length) if length else float(error == 0))
        if theirs.ndim and theirs.shape[CLASSES_AXIS] > 1:
            agreed = theirs.argmax(CLASSES_AXIS) == own.argmax(CLASSES_AXIS)
            self._agreed.append((int(agreed.sum()), agreed.size))

    def found(self) -> TensorDrift:
        if not self._relative:
            raise MeasurementError(f"no sample of output {self._name} was compared with {self._against}")
        n_agreed, n_places = (sum(counts) for counts in zip(*self._agreed, strict=True)) if self._agreed else (0, 0)
        return TensorDrift(
            output=self._name,
            against=self._against,
            n_samples=len(self._relative),
            max_abs=self._largest,
            rmse=math.sqrt(self._squares / self._n_values) if self._n_values else 0.0,
            cosine=min(1.0, float(np.mean(self._cosines))) if self._cosines else None,
            agreement=n_agreed / n_places if n_places else None,
            n_reshaped=self._n_reshaped,
            relative=PackedArray.of(np.asarray(self._relative, np.float64)),
            rounding=self._rounding,
            spread=float(np.mean(self._spread)) if self._spread else None,
        )


def _gap(reference: NDArray[np.generic], ours: NDArray[np.generic]) -> float:
    gap = np.abs(reference.astype(np.float64) - ours.astype(np.float64))
    return float(gap.max(initial=0.0))


def _member(sample: int, place: int) -> str:
    return f"{sample}.{place}.npy"
