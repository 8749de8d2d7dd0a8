"""What lies behind a verdict against FP32: drift of outputs, images that changed hands. Reads, never decides."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.datasets import open_dataset, open_samples
from harness.measure.drift import DriftAccumulator
from harness.measure.invariance import accepted_gap, largest_gap
from harness.models.preprocess import fit_of
from harness.protocols import IMAGE
from harness.records import (
    Accuracy,
    Flip,
    OutputDrift,
    OutputsOfSize,
    PackedArray,
    SamplePicture,
    SampleScores,
    SizeCheck,
)
from harness.specs import Case, DatasetRequest, ModelSpec

CHUNK_IMAGES = 10_000
THUMBNAIL_SIDE = 64  # pixels: two dozen of them stand in a record
PICTURE_PIXELS, MAX_PICTURES, PICTURE_RANK = 128 * 128, 6, 3  # of samples whose metric changed, in colours
MAX_FLIPS = 24  # images kept in a record, those with the clearest change first


def drift_between(
    reference_outputs: NDArray[np.float32], outputs: NDArray[np.float32], *, kind: str, reference: str
) -> OutputDrift:
    """Return the drift of outputs float32[N, K], read in pieces from disk."""
    drift = DriftAccumulator(output_kind=kind)
    for first in range(0, len(outputs), CHUNK_IMAGES):
        drift.update(reference_outputs[first : first + CHUNK_IMAGES], outputs[first : first + CHUNK_IMAGES])
    return drift.drift(reference)


def flips_between_runs(
    reference: Accuracy, accuracy: Accuracy, data: DatasetRequest, spec: ModelSpec
) -> tuple[Flip, ...]:
    """Return images that one side gets right and the other wrong, lost ones first, with their pixels.

    At most MAX_FLIPS: those whose margins are largest, that is the clearest changes of mind.
    """
    before, now = reference.hits(), accuracy.hits()
    lost, gained = np.flatnonzero(before & ~now), np.flatnonzero(~before & now)
    margins, reference_margins = accuracy.margins.array(), reference.margins.array()
    clarity = np.minimum(margins, reference_margins)
    chosen = [*lost[np.argsort(-clarity[lost])], *gained[np.argsort(-clarity[gained])]][:MAX_FLIPS]
    if not chosen:
        return ()
    dataset = open_dataset(data.name, split=data.split, data_dir=data.data_dir, fit=fit_of(spec))
    labels = accuracy.labels.array()
    flips = []
    for place in map(int, chosen):
        index = accuracy.images.first + place
        pixels, _ = dataset.read(index, index + 1)
        flips.append(
            Flip(
                index=index,
                label=int(labels[place]),
                reference_prediction=int(reference.predictions.array()[place]),
                prediction=int(accuracy.predictions.array()[place]),
                reference_margin=float(reference_margins[place]),
                margin=float(margins[place]),
                gained=bool(now[place]),
                image=_thumbnail(pixels[0]),
            )
        )
    return tuple(flips)


def pictures_of_changed(
    reference: SampleScores, scores: SampleScores, data: DatasetRequest
) -> tuple[SamplePicture, ...]:
    """Return the samples whose leading metric changed most, of those that are pictures, the worse ones first.

    Raises: DataError for data that are gone.
    """
    ours, theirs = scores.leading, reference.leading
    if ours is None or theirs is None or scores.fingerprint != reference.fingerprint or ours.name != theirs.name:
        return ()
    change = np.nan_to_num(ours.values.array().astype(np.float64) - theirs.values.array().astype(np.float64))
    worse = -change if ours.higher_is_better else change
    chosen = [int(place) for place in np.argsort(-np.abs(worse), kind="stable")[:MAX_PICTURES] if worse[place]]
    if not chosen:
        return ()
    samples = open_samples(data.name, split=data.split, data_dir=data.data_dir)
    found = []
    for place in sorted(chosen, key=lambda place: -worse[place]):
        sample = samples.sample(data.scored.first + place)
        image = sample.inputs.get(IMAGE)
        if image is not None and image.dtype == np.uint8 and image.ndim == PICTURE_RANK:
            found.append(SamplePicture(id=sample.id, image=_picture(np.asarray(image, np.uint8))))
    return tuple(found)


def size_checks(
    found: Sequence[OutputsOfSize], truth: NDArray[np.float32], case: Case, *, against: str
) -> tuple[SizeCheck, ...]:
    """Hold the outputs at each batch size against what they should be: float32[N, K] of the same images and more."""
    checks = []
    for one in found:
        outputs = one.outputs.array().astype(np.float32)
        expected = np.asarray(truth[np.arange(len(outputs)) % len(truth)])
        checks.append(
            SizeCheck(
                batch_size=one.batch_size,
                largest_gap=largest_gap(outputs, expected),
                accepted_gap=accepted_gap(expected, case.precision),
                against=against,
            )
        )
    return tuple(checks)


def _picture(image: NDArray[np.uint8]) -> PackedArray:
    """Return uint8[H, W, C] as uint8[H, W] or uint8[3, H, W] of at most PICTURE_PIXELS: means of squares of pixels."""
    step = math.ceil(math.sqrt(image.shape[0] * image.shape[1] / PICTURE_PIXELS))
    height, width = (max(1, side // step) for side in image.shape[:2])
    step_y, step_x = (max(1, side // n) for side, n in zip(image.shape[:2], (height, width), strict=True))
    cut = image[: height * step_y, : width * step_x]
    small = cut.reshape(height, step_y, width, step_x, -1).mean(axis=(1, 3)).astype(np.uint8)
    return PackedArray.of(small[..., 0] if small.shape[-1] == 1 else np.moveaxis(small, -1, 0))


def _thumbnail(pixels: NDArray[np.generic]) -> PackedArray | None:
    """Return one image as the report draws it, grey and at most THUMBNAIL_SIDE wide: uint8[H, W]; None for other ranks.

    pixels: [H, W] or [C, H, W]; channels are averaged. A larger image is thinned out, every second pixel, third, ...
    """
    plane = pixels.mean(axis=0).astype(pixels.dtype) if pixels.ndim == 3 else pixels
    if plane.ndim != 2:
        return None
    step = -(-max(plane.shape) // THUMBNAIL_SIDE)
    plane = plane[::step, ::step]
    if plane.dtype != np.uint8:
        spread = float(plane.max() - plane.min()) or 1.0
        plane = np.asarray((plane - plane.min()) / spread * np.iinfo(np.uint8).max).astype(np.uint8)
    return PackedArray.of(np.asarray(plane))
