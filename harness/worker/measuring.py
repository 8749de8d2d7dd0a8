"""An open case -> its measurements, inside a worker: score, times, layers, invariance."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from harness.measure.invariance import check_invariance, outputs_in_batches
from harness.measure.latency import measure_latency
from harness.measure.scoring import score_engine
from harness.precision.effective import effective_precision
from harness.protocols import BoundsBatches, Images, Progress
from harness.records import Accuracy, InvarianceCheck, Latency, OutputsOfSize, PackedArray
from harness.worker.as_scored import AsScored, throughput_of
from harness.worker.images import scored_dataset, timing_batch
from harness.worker.opening import OpenCase
from harness.worker.requests import LayerReport, ThroughputReport

INVARIANCE_IMAGES = 16


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
            images = timing_batch(request.model, request.data, batch_size)
            with case.turn(partial(progress, index, len(plan.batch_sizes))):
                outputs = AsScored(request, batch_size)
                latency = measure_latency(
                    engines, images, plan, device=asked.device, reference_case=reference.id, look=outputs.look
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


def throughput(case: OpenCase, progress: Progress) -> ThroughputReport:
    """Run several inferences at once."""
    return throughput_of(case, progress)


def read_layers(case: OpenCase) -> LayerReport:
    """Read back what ran. Call it last: profiling disturbs what is timed after it."""
    asked, layers = case.request.case, case.engine.layers()
    effective = effective_precision(layers, asked.precision, has_cast_weights=asked.has_cast_weights)
    return LayerReport(layers=layers, effective_precision=effective)


def invariance(case: OpenCase) -> tuple[InvarianceCheck, ...]:
    """Try whether an image's result depends on its neighbours, slot or batch size."""
    images, sizes = _tried(case)
    return check_invariance(case.engine, images, batch_sizes=sizes, precision=case.request.case.precision)


def outputs_by_size(case: OpenCase) -> tuple[OutputsOfSize, ...]:
    """Return the outputs of the images that invariance was tried with, at each batch size."""
    images, sizes = _tried(case)
    fixed = case.engine.input.shape[0]
    return tuple(
        OutputsOfSize(batch_size=size, outputs=PackedArray.of(outputs_in_batches(case.engine, images, size)))
        for size in ((fixed,) if fixed else sizes)
    )


def _tried(case: OpenCase) -> tuple[Images, tuple[int, ...]]:
    request = case.request
    own = case.backend.batch_bounds(request.build) if isinstance(case.backend, BoundsBatches) else ()
    bounds = set(own or case.batch_sizes)
    largest = max(bounds)
    images = timing_batch(request.model, request.data, max(2, min(INVARIANCE_IMAGES, largest)))
    # Where a backend names the bounds of what its engine takes, those are the sizes to try; else small ones as well.
    small = set() if own else {1, min(2, largest), min(INVARIANCE_IMAGES, largest)}
    return images, tuple(sorted(small | bounds))
