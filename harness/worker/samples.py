"""The samples of a model of any graph: seeded, or of a data set; run, kept, timed, and arranged in other batches."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.measure.invariance import GRAPH_TOLERANCE, check_invariance
from harness.measure.samples import OutputsFile, run_samples, tensors_engine, unstacked
from harness.models.feeds import seeded_feeds, seeded_sample, stacked
from harness.protocols import Images, Outputs, Progress, Tensors
from harness.records import InvarianceCheck, SampleScores, TensorSpec
from harness.specs import ModelTensors
from harness.worker.opening import OpenCase
from harness.worker.requests import CaseRequest

SEEDED = "seeded"
N_SEEDED = 32  # samples; a sign test over so many tells a rate of one in two from none at any alpha in use


class Samples:
    """The samples that a case runs, in order."""

    def __init__(self, request: CaseRequest) -> None:
        """Take seeded samples. Raises: DataError for a model without tensors."""
        if request.model.tensors is None:
            raise DataError(f"model {request.model.name} is an image classifier; its images are scored")
        self.tensors: ModelTensors = request.model.tensors
        self.n_samples = min(N_SEEDED, request.data.score_images)
        self.source = SEEDED
        self.ids = tuple(map(str, range(self.n_samples)))

    def inputs(self) -> Iterator[Tensors]:
        """Yield the inputs of each sample, without batch axes."""
        for index in range(self.n_samples):
            yield seeded_sample(self.tensors, index)

    def feeds(self, n_samples: int) -> dict[str, NDArray[np.generic]]:
        """Return the inputs of one run with the first samples, repeated where they are fewer."""
        return seeded_feeds(self.tensors, n_samples)


def run(case: OpenCase, progress: Progress) -> SampleScores:
    """Run the samples of a case and keep their outputs."""
    request = case.request
    samples = Samples(request)
    names, started, digest = samples.tensors.output_names, time.perf_counter_ns(), hashlib.sha256()
    with OutputsFile(Path(request.outputs_path), names) as file:
        run_samples(
            case.engine,
            samples.tensors,
            _digested(samples.inputs(), digest),
            batch_size=max(case.batch_sizes),
            each=file.add,
            n_samples=samples.n_samples,
            progress=progress,
        )
    return SampleScores(
        task=request.model.task,
        source=samples.source,
        ids=samples.ids,
        batch_size=max(case.batch_sizes),
        fingerprint=digest.hexdigest(),
        outputs_sha256=file.hexdigest(),
        score_ns=time.perf_counter_ns() - started,
    )


def invariance(case: OpenCase, n_samples: int) -> tuple[InvarianceCheck, ...]:
    """Try whether a sample's outputs depend on its neighbours, slot or batch size; of one a run, on the run before."""
    rows, precision = _AsRows(case, n_samples), case.request.case.precision
    return check_invariance(
        rows, rows.places, batch_sizes=rows.sizes, precision=precision, tolerance=GRAPH_TOLERANCE[precision]
    )


class _AsRows:
    """An engine of any graph as one of images: a sample goes by its place, and all its outputs are one row.

    Outputs are told in parts of their largest value, so that a box in pixels does not drown a score. Of outputs whose
    size depends on the sample, one sample is run again and again.
    """

    def __init__(self, case: OpenCase, n_samples: int) -> None:
        tensors = case.request.model.tensors
        if tensors is None:
            raise DataError(f"model {case.request.model.name} is an image classifier")
        self._runner, self._tensors = tensors_engine(case.engine), tensors
        self._scales: dict[str, float] = {}
        self._samples = [seeded_sample(tensors, index) for index in range(n_samples)]
        largest = max(case.batch_sizes) if tensors.is_stackable and self._are_alike() else 1
        self.sizes = tuple(sorted({1, min(2, largest), min(n_samples, largest), largest}))
        self.places = np.arange(n_samples if largest > 1 else 2, dtype=np.float32)[:, None] * (largest > 1)
        self.input = TensorSpec(name="sample", dtype="float32", shape=(None if largest > 1 else 1, 1))
        self.output = TensorSpec(name="outputs", dtype="float32", shape=(None, None))

    def infer(self, places: Images) -> Outputs:
        """Return float32[N, K]: the outputs of the samples at `places`, float32[N, 1], side by side."""
        group = [self._samples[int(place)] for place in places[:, 0]]
        outputs = self._runner.run(stacked(self._tensors, group))
        return np.stack([self._row(own) for own in unstacked(self._tensors, outputs, len(group))])

    def _are_alike(self) -> bool:
        rows = [self.infer(np.full((1, 1), place, np.float32)) for place in range(2)]
        return rows[0].shape == rows[1].shape

    def _row(self, outputs: Tensors) -> Outputs:
        parts = []
        for name, array in outputs.items():
            values = np.asarray(array, np.float32).ravel()
            if name not in self._scales:
                self._scales[name] = max(1.0, float(np.abs(values[np.isfinite(values)]).max(initial=0.0)))
            parts.append(values / self._scales[name])
        return np.concatenate(parts)


def _digested(samples: Iterator[Tensors], digest: hashlib._Hash) -> Iterator[Tensors]:
    """Yield samples and digest their names, types, shapes and values."""
    for sample in samples:
        for name, array in sample.items():
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        yield sample
