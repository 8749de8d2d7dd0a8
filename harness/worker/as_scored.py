"""Times of outputs that are held against the scored ones: of an engine alone, and of several inferences at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.measure.arms import AFTER
from harness.measure.invariance import GRAPH_TOLERANCE, accepted_gap, largest_gap
from harness.measure.samples import first_outputs, tensors_engine
from harness.measure.throughput import levels_up_to, measure_throughput
from harness.protocols import (
    Batch,
    Engine,
    KeepsOutputs,
    Outputs,
    Progress,
    RunsConcurrently,
    RunsTensorsConcurrently,
    Tensors,
    Timer,
)
from harness.specs import Precision
from harness.worker.opening import OpenCase
from harness.worker.requests import CaseRequest, ThroughputReport
from harness.worker.sample_sets import timing_batch

THE_SCORED = "those that were scored"


class AsScored:
    """Holds the outputs of one timed batch against the scored ones, before and after it is timed."""

    def __init__(self, request: CaseRequest, batch_size: int) -> None:
        """Read what was scored of the batch's images; where nothing was, nothing is wrong."""
        self.void = ""  # what was wrong first
        self._of = THE_SCORED
        self._precision = request.case.precision
        self._expected = _scored_outputs(request, batch_size)
        self._was_read = False

    def or_of_a_single_run(self, engine: Engine, batch: Batch) -> None:
        """Run the batch alone for outputs to compare with, where none were scored. Raises: MeasurementError."""
        if self._expected is None:
            self._expected, self._of = by_name(ran(engine, batch)), "those of a single run"

    def look(self, timer: Timer, when: str) -> None:
        """Look at what a timer's calls computed, where it keeps that; runs nothing."""
        if self._expected is None or not isinstance(timer, KeepsOutputs):
            return
        found = timer.outputs()
        if found is not None:
            self._was_read = True
            self._compare(found, when)

    def check(self, keeps: KeepsOutputs, which: str) -> None:
        """Look at some outputs. Raises: MeasurementError where they are not those that were scored."""
        found = keeps.outputs()
        if found is not None:
            self._compare(found, which)
            if hidden := sorted(set(self._expected or {}) - set(by_name(found))):
                raise MeasurementError(f"its outputs {which} lack {', '.join(hidden)}")
        if self.void:
            raise MeasurementError(self.void)

    def verdict(self, engine: Engine, batch: Batch) -> str:
        """Return what was wrong, "" where nothing was. Call it when all is timed.

        Runs the batch once more where its timer could not be looked at: what `infer` leaves behind bears on times.
        """
        if self._expected is not None and not self._was_read:
            self._compare(ran(engine, batch), AFTER)
        return self.void

    def _compare(self, found: Outputs | Tensors, when: str) -> None:
        if self._expected is not None and not self.void:
            problem = _difference(by_name(found), self._expected, self._precision)
            self.void = f"its outputs {when} are not {self._of}: {problem}" if problem else ""


def by_name(outputs: Outputs | Tensors) -> Tensors:
    """Return outputs by name; those of a batch of images have none."""
    return outputs if isinstance(outputs, Mapping) else {"": outputs}


def ran(engine: Engine, batch: Batch) -> Outputs | Tensors:
    """Run a batch of images, or of named tensors. Raises: MeasurementError."""
    return tensors_engine(engine).run(batch) if isinstance(batch, Mapping) else engine.infer(batch)


def _scored_outputs(request: CaseRequest, batch_size: int) -> Tensors | None:
    """Return the scored outputs of the first samples, repeated where they are fewer; None where none were kept."""
    path, tensors = Path(request.outputs_path), request.model.tensors
    if not request.outputs_path or not path.is_file() or not path.stat().st_size:
        return None
    if tensors is not None:
        return first_outputs(path, batch_size, tensors)
    width = request.model.num_classes
    scored = np.memmap(path, "<f4", "r")
    if scored.size != request.data.scored.n_images * width:  # scoring ended early
        return None
    return {"": np.array(scored.reshape(-1, width)[np.arange(batch_size) % (scored.size // width)])}


def _difference(found: Tensors, expected: Tensors, precision: Precision) -> str:
    """Say what differs, "" where nothing does."""
    told = (_difference_of(found[name], array, precision, name) for name, array in expected.items() if name in found)
    return next((text for text in told if text), "")


def _difference_of(found: NDArray[np.generic], expected: NDArray[np.generic], precision: Precision, name: str) -> str:
    where = f"{name}: " if name else ""
    if name and np.squeeze(found).shape == np.squeeze(expected).shape:
        expected = expected.reshape(found.shape)  # of any graph: not every file has the batch axis that it tells of
    if found.shape != expected.shape:
        return f"{where}shape {list(found.shape)} instead of {list(expected.shape)}"
    if expected.dtype.kind != "f":
        n_other = int((found != expected).sum())
        return f"{where}{n_other} of {found.size} are other numbers" if n_other else ""
    ours, theirs = found.astype(np.float64), expected.astype(np.float64)
    is_broken = (np.isnan(ours) & ~np.isnan(theirs)) | (np.isposinf(ours) & ~np.isposinf(theirs))
    if is_broken.any():
        return f"{where}{int(is_broken.sum())} of {found.size} are NaN or infinite"
    tolerance = GRAPH_TOLERANCE[precision] if name else None
    limit, gap = accepted_gap(theirs, precision, tolerance), largest_gap(ours, theirs)
    return f"{where}they differ by up to {gap:.2g}, accepted {limit:.2g}" if gap > limit else ""


def throughput_of(case: OpenCase, progress: Progress) -> ThroughputReport:
    """Measure every timed batch size.

    Raises: MeasurementError where a context gives other outputs than were scored, or, where nothing was, than one run.
    """
    request, engine = case.request, case.engine
    offered = RunsConcurrently if request.model.tensors is None else RunsTensorsConcurrently
    if not isinstance(engine, offered):
        return ThroughputReport(why_not=f"{request.case.backend} does not say how its engines run at once")
    case.stage("time")
    most = engine.most_contexts or _n_cpus() // max(1, request.build.num_threads)
    levels = request.timing.concurrency or levels_up_to(most)
    found = []
    for index, batch_size in enumerate(request.timing.batch_sizes):
        batch = timing_batch(request, batch_size)
        outputs = AsScored(request, batch_size)
        with case.turn(partial(progress, index, len(request.timing.batch_sizes))):
            try:
                outputs.or_of_a_single_run(engine, batch)
                found.append(measure_throughput(engine, batch, levels, batch_size=batch_size, look=outputs.check))
            except MeasurementError as error:
                raise MeasurementError(f"throughput at batch {batch_size}: {error}") from error
        progress(index + 1, len(request.timing.batch_sizes))
    return ThroughputReport(found=tuple(found))


def _n_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
