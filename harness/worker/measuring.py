"""An open case -> its measurements, inside a worker: score, times, layers, invariance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.measure.scoring import score_engine
from harness.protocols import Progress
from harness.records import Accuracy
from harness.worker import inspecting, samples
from harness.worker.as_scored import throughput_of
from harness.worker.exporting import exported
from harness.worker.images import pictures_of, scored_dataset, scored_range
from harness.worker.opening import OpenCase
from harness.worker.timers import time_engine

__all__ = ["MEASUREMENTS", "exported", "score"]


def score(case: OpenCase, progress: Progress) -> Accuracy:
    """Score the asked images."""
    request = case.request
    dataset = scored_dataset(request.model, request.data, pictures_of(request))
    outputs = Path(request.outputs_path) if request.outputs_path else None
    if outputs is not None:
        outputs.parent.mkdir(parents=True, exist_ok=True)  # somebody removed the run's folder meanwhile
    return score_engine(
        case.engine,
        dataset,
        request.model,
        scored_range(dataset, request.data),  # its name decides what was trained on
        batch_size=request.score_batch,
        outputs_path=outputs,
        progress=progress,
    )


# What is measured of an open case, by the name of the call.
MEASUREMENTS: dict[str, Callable[[OpenCase, Progress], object]] = {
    "score": score,
    "run_samples": samples.run,
    "time": time_engine,
    "throughput": throughput_of,
    "layers": inspecting.read_layers,
    "invariance": inspecting.invariance,
    "outputs_by_size": inspecting.outputs_by_size,
}
