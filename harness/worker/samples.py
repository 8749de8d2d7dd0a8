"""A model of any graph in a worker: its samples run, kept and scored, and arranged in other batches."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from harness.measure.invariance import GRAPH_TOLERANCE, check_invariance
from harness.measure.samples import OutputsFile, rounding_errors, run_samples, tensors_engine, unstacked
from harness.models.feeds import stacked
from harness.protocols import Images, Outputs, Progress, Sample, Tensors
from harness.records import InvarianceCheck, SampleScores, TensorSpec
from harness.tasks import collector_of, find_sample_task
from harness.worker.opening import OpenCase
from harness.worker.sample_sets import digest_sample, samples_of, tensors_of

N_ROUNDED = 5  # samples


def run(case: OpenCase, progress: Progress) -> SampleScores:
    """Run the samples of a case, keep their outputs, and score them by the model's task where they have targets."""
    request, tensors = case.request, tensors_of(case.request.model)
    samples, digest, seen = samples_of(request), hashlib.sha256(), deque[Sample]()
    collector = None
    if not samples.is_seeded:
        collector = collector_of(request.model)
    started = time.perf_counter_ns()
    ids: list[str] = []

    def inputs() -> Iterator[Tensors]:
        for index in range(samples.n_samples):
            sample = samples.sample(index)
            digest_sample(digest, sample)
            ids.append(sample.id)
            seen.append(sample)
            yield sample.inputs

    with OutputsFile(Path(request.outputs_path), tensors.output_names) as file:

        def each(outputs: Tensors) -> None:
            file.add(outputs)
            sample = seen.popleft()
            if collector is not None:
                collector.add(outputs, sample)

        run_samples(
            case.engine,
            tensors,
            inputs(),
            batch_size=max(case.batch_sizes),
            each=each,
            n_samples=samples.n_samples,
            progress=progress,
        )
    is_scored = collector is not None and find_sample_task(request.model.task).metrics
    return SampleScores(
        task=request.model.task,
        source=samples.source,
        ids=tuple(ids),
        fingerprint=digest.hexdigest(),
        metrics=collector.scores() if collector is not None and is_scored else (),
        settings={name: str(value) for name, value in request.model.task_settings.items()},
        outputs_sha256=file.hexdigest(),
        n_nan=file.n_nan,
        score_ns=time.perf_counter_ns() - started,
        rounding=_rounding_of(case),
        batch_size=max(case.batch_sizes),
    )


def _rounding_of(case: OpenCase) -> dict[str, float]:
    """Return what roundings do to FP32's outputs: the ground of every drift against it."""
    if not case.request.case.is_source:
        return {}
    samples = samples_of(case.request)
    chosen = [samples.sample(index).inputs for index in range(min(N_ROUNDED, samples.n_samples))]
    return rounding_errors(case.engine, tensors_of(case.request.model), chosen)


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
        tensors, samples = tensors_of(case.request.model), samples_of(case.request)
        self._runner, self._tensors = tensors_engine(case.engine), tensors
        self._scales: dict[str, float] = {}
        self._samples = [samples.sample(index % samples.n_samples).inputs for index in range(n_samples)]
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
