"""An open case -> what its engine is beside right and fast, inside a worker: its layers, its invariance."""

from __future__ import annotations

from harness.measure.invariance import check_invariance, outputs_in_batches
from harness.precision.effective import effective_precision
from harness.protocols import BoundsBatches, Images, Progress
from harness.records import InvarianceCheck, OutputsOfSize, PackedArray
from harness.worker import samples
from harness.worker.images import pictures_of, timing_images
from harness.worker.opening import OpenCase
from harness.worker.requests import LayerReport

INVARIANCE_IMAGES = 16


def read_layers(case: OpenCase, progress: Progress) -> LayerReport:
    """Read back what ran. Call it last: profiling disturbs what is timed after it."""
    asked, layers = case.request.case, case.engine.layers()
    effective = effective_precision(layers, asked.precision, has_cast_weights=asked.has_cast_weights)
    return LayerReport(layers=layers, effective_precision=effective)


def invariance(case: OpenCase, progress: Progress) -> tuple[InvarianceCheck, ...]:
    """Try whether an image's result depends on its neighbours, slot or batch size."""
    if case.request.model.tensors is not None:
        return samples.invariance(case, INVARIANCE_IMAGES)
    images, sizes = _tried(case)
    return check_invariance(case.engine, images, batch_sizes=sizes, precision=case.request.case.precision)


def outputs_by_size(case: OpenCase, progress: Progress) -> tuple[OutputsOfSize, ...]:
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
    images = timing_images(request.model, request.data, max(2, min(INVARIANCE_IMAGES, largest)), pictures_of(request))
    # Where a backend names the bounds of what its engine takes, those are the sizes to try; else small ones as well.
    small = set() if own else {1, min(2, largest), min(INVARIANCE_IMAGES, largest)}
    return images, tuple(sorted(small | bounds))
