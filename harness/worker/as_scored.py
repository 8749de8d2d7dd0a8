"""Times of outputs that are held against the scored ones: of an engine alone, and of several inferences at once."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np

from harness.errors import MeasurementError
from harness.measure.invariance import accepted_gap, largest_gap
from harness.measure.throughput import levels_up_to, measure_throughput
from harness.measure.timing import AFTER
from harness.protocols import Engine, Images, KeepsOutputs, Outputs, Progress, RunsConcurrently, Timer
from harness.worker.images import timing_batch
from harness.worker.opening import OpenCase
from harness.worker.requests import CaseRequest, ThroughputReport


class AsScored:
    """Holds the outputs of one timed batch against the scored ones, before and after it is timed."""

    def __init__(self, request: CaseRequest, batch_size: int) -> None:
        """Read what was scored of the batch's images; where nothing was, nothing is wrong."""
        self.void = ""  # what was wrong first
        self._precision = request.case.precision
        self._expected = _scored_outputs(request, batch_size)
        self._was_read = False

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
        if self.void:
            raise MeasurementError(self.void)

    def run(self, engine: Engine, images: Images) -> None:
        """Run the batch once more where its timer could not be looked at: what `infer` leaves behind bears on times."""
        if self._expected is not None and not self._was_read:
            self._compare(engine.infer(images), AFTER)

    def _compare(self, found: Outputs, when: str) -> None:
        if self._expected is not None and not self.void:
            problem = _difference(found, self._expected, accepted_gap(self._expected, self._precision))
            self.void = f"its outputs {when} are not those that were scored: {problem}" if problem else ""


def _scored_outputs(request: CaseRequest, batch_size: int) -> Outputs | None:
    """Return float32[batch, K]: the scored outputs of the first images, repeated where they are fewer."""
    path, width = Path(request.outputs_path), request.model.num_classes
    if not request.outputs_path or not path.is_file() or not path.stat().st_size:
        return None
    scored = np.memmap(path, "<f4", "r")
    if scored.size != request.data.scored.n_images * width:  # scoring ended early
        return None
    return np.array(scored.reshape(-1, width)[np.arange(batch_size) % (scored.size // width)])


def _difference(found: Outputs, expected: Outputs, limit: float) -> str:
    """Say what differs, "" where nothing does."""
    if found.shape != expected.shape:
        return f"shape {list(found.shape)} instead of {list(expected.shape)}"
    if n_broken := int((np.isnan(found) | np.isposinf(found)).sum()):
        return f"{n_broken} of {found.size} are NaN or infinite"
    gap = largest_gap(found, expected)
    return f"they differ by up to {gap:.2g}, accepted {limit:.2g}" if gap > limit else ""


def throughput_of(case: OpenCase, progress: Progress) -> ThroughputReport:
    """Measure every timed batch size. Raises: MeasurementError where a context gives other outputs than were scored."""
    request, engine = case.request, case.engine
    if not isinstance(engine, RunsConcurrently):
        return ThroughputReport(why_not=f"{request.case.backend} does not say how its engines run at once")
    case.stage("time")
    levels = request.timing.concurrency or levels_up_to(_n_cpus() // max(1, request.build.num_threads))
    found = []
    for index, batch_size in enumerate(request.timing.batch_sizes):
        images = timing_batch(request.model, request.data, batch_size)
        outputs = AsScored(request, batch_size)
        with case.turn(partial(progress, index, len(request.timing.batch_sizes))):
            try:
                found.append(measure_throughput(engine, images, levels, look=outputs.check))
            except MeasurementError as error:
                raise MeasurementError(f"throughput at batch {batch_size}: {error}") from error
        progress(index + 1, len(request.timing.batch_sizes))
    return ThroughputReport(found=tuple(found))


def _n_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
