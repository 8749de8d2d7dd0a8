"""A grid search over quantile and cutoff: images held out to judge by, and how pairs are judged. Pure.

The last fifth of the calibration images measures nothing and judges, and calibration images are never scored. Labels
are not used: a pair is judged by how the outputs differ from FP32's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import BuildError
from harness.protocols import CalibrationSet, Images

HELD_OUT_SHARE = 0.2
MIN_IMAGES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One pair of the grid, on the images held out."""

    quantile: float
    cutoff: float
    n_changed: int  # images whose largest output is another than FP32's
    error: float  # of the outputs: squared differences over squared outputs of FP32


class ImagesWithin:
    """Images first..stop-1 of a calibration set. Implements `protocols.CalibrationSet`."""

    def __init__(self, calibration: CalibrationSet, first: int, stop: int) -> None:
        self._calibration, self._first, self._stop = calibration, first, stop
        self.n_images = stop - first
        self.fingerprint = f"{calibration.fingerprint} {first}..{stop}"

    def batches(self, batch_size: int) -> Iterator[Images]:
        """Yield the images in batches of at most `batch_size`."""
        offset = 0
        for batch in self._calibration.batches(batch_size):
            kept = batch[max(self._first - offset, 0) : max(self._stop - offset, 0)]
            offset += len(batch)
            if len(kept):
                yield kept
            if offset >= self._stop < self._calibration.n_images:
                return  # a set that ends here is read to its end, where it is checked as a whole


def held_apart(images: CalibrationSet | None, subject: str) -> tuple[ImagesWithin, ImagesWithin]:
    """Return the images that calibrate and those that judge. Raises: BuildError for too few, naming `subject`."""
    if images is None or images.n_images < MIN_IMAGES:
        raise BuildError(f"{subject} needs {MIN_IMAGES} calibration images or more")
    first = int(images.n_images * (1 - HELD_OUT_SHARE))
    return ImagesWithin(images, 0, first), ImagesWithin(images, first, images.n_images)


def judged(quantile: float, cutoff: float, outputs: NDArray[Any], fp32: NDArray[Any]) -> Judged:
    """Return how a pair does: outputs and FP32's, both [N, K]."""
    exact = fp32.astype(np.float64)
    n_changed = int((outputs.argmax(1) != exact.argmax(1)).sum())
    error = float(np.square(outputs - exact).sum() / max(float(np.square(exact).sum()), 1e-30))
    return Judged(quantile=quantile, cutoff=cutoff, n_changed=n_changed, error=error)


def best_of(grid: Sequence[Judged]) -> Judged:
    """Return the pair of the least error, the first of equals; a count of changed images is too coarse."""
    return min(grid, key=lambda pair: pair.error)


def best_in_words(best: Judged, n_pairs: int, n_images: int) -> str:
    """Return the choice for a reader. It is part of a baseline: no number that differs by rounding is in it."""
    pair = f"quantile {best.quantile:g}, cutoff {best.cutoff:g}"
    return f"{pair}, the best of {n_pairs} pairs on {n_images} images held out"


def grid_text(grid: Sequence[Judged]) -> str:
    """Return the whole grid as JSON."""
    rows = [[pair.quantile, pair.cutoff, pair.n_changed, float(f"{pair.error:.4g}")] for pair in grid]
    return json.dumps({"columns": ["quantile", "cutoff", "changed", "error"], "rows": rows})
