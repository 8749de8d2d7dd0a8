"""A timed engine's outputs beside those that were scored: a time counts only if they are the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.measure.invariance import accepted_gap, largest_gap
from harness.protocols import Engine, Images, KeepsOutputs, Outputs, Timer
from harness.worker.requests import CaseRequest

BEFORE, AFTER = "before timing", "after timing"


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
