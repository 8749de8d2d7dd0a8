"""An open case -> its measurements, inside a worker: score, times, layers, invariance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from harness.measure.latency import measure_latency
from harness.measure.scoring import score_engine
from harness.protocols import Progress
from harness.records import Accuracy, Latency
from harness.worker import inspecting, samples
from harness.worker.as_scored import AsScored, throughput_of
from harness.worker.images import scored_dataset
from harness.worker.opening import OpenCase
from harness.worker.sample_sets import timing_batch


def score(case: OpenCase, progress: Progress) -> Accuracy:
    """Score the asked images."""
    request = case.request
    dataset = scored_dataset(request.model, request.data)
    outputs = Path(request.outputs_path) if request.outputs_path else None
    if outputs is not None:
        outputs.parent.mkdir(parents=True, exist_ok=True)  # somebody removed the run's folder meanwhile
    return score_engine(
        case.engine,
        dataset,
        request.model,
        # A path's data set knows better than the request what it is: its name decides what was trained on.
        replace(request.data.scored, dataset=dataset.name, split=dataset.split),
        batch_size=request.score_batch,
        outputs_path=outputs,
        progress=progress,
    )


def time_engine(case: OpenCase, progress: Progress) -> tuple[Latency, ...]:
    """Time the engine at every batch size, in turn with its FP32 reference unless it is FP32 itself."""
    request, asked = case.request, case.request.case
    plan = request.timing
    reference = asked.source_on(asked.backend, asked.device)
    engines = [case.engine]
    closing = []
    if asked != reference:
        engines.append(case.build(case.artifact(reference)))
        closing.append(engines[-1])
        case.stage("time")
    latencies, looked_at = [], []
    try:
        for index, batch_size in enumerate(plan.batch_sizes):
            images = timing_batch(request, batch_size)
            with case.turn(partial(progress, index, len(plan.batch_sizes))):
                outputs = AsScored(request, batch_size)
                latency = measure_latency(
                    engines,
                    images,
                    plan,
                    device=asked.device,
                    batch_size=batch_size,
                    reference_case=reference.id,
                    look=outputs.look,
                )
            looked_at.append((outputs, images))
            latencies.append(latency)
            progress(index + 1, len(plan.batch_sizes))
        for outputs, images in looked_at:  # after the clock: what `infer` leaves would be timed too
            outputs.run(case.engine, images)
    finally:
        for engine in closing:
            engine.close()
    return tuple(replace(one, void=outputs.void) for one, (outputs, _) in zip(latencies, looked_at, strict=True))


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
