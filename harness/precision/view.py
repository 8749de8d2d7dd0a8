"""How each range was chosen, small enough to be kept with a record: histograms, candidates, divergences. Pure.

Source: Migacz, "8-bit Inference with TensorRT", GTC 2017 (s7310), which draws these per tensor.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.precision.ranges import MagnitudeHistogram, entropy_search
from harness.records import TensorCalibration

MAX_TENSORS = 16  # of a model; a record of more would grow beyond some 20 KB
N_BINS, N_CANDIDATES = 64, 32
DIGITS = 6


def calibration_view(
    histograms: Mapping[str, MagnitudeHistogram], ranges: Mapping[str, float]
) -> tuple[TensorCalibration, ...]:
    """Return how each tensor's range was chosen, () for a model of more than MAX_TENSORS tensors."""
    if len(histograms) > MAX_TENSORS:
        return ()
    return tuple(_tensor(name, histogram, ranges[name]) for name, histogram in histograms.items())


def _tensor(name: str, histogram: MagnitudeHistogram, threshold: float) -> TensorCalibration:
    search = entropy_search(histogram)
    finite = np.flatnonzero(np.isfinite(search.divergences))
    spread = finite[np.unique(np.linspace(0, finite.size - 1, min(N_CANDIDATES, finite.size)).astype(int))]
    shown = np.unique([*spread, search.chosen]) if finite.size else finite
    total = int(histogram.counts.sum())
    first_beyond = round(threshold / histogram.largest * histogram.counts.size) if total else 0
    beyond = int(histogram.counts[first_beyond:].sum())
    return TensorCalibration(
        tensor=name,
        largest=_rounded(histogram.largest),
        threshold=_rounded(threshold),
        saturated_share=_rounded(beyond / total) if total else 0.0,
        counts=tuple(histogram.counts.reshape(N_BINS, -1).sum(1).tolist()),
        candidates=tuple(_rounded(value) for value in search.thresholds[shown]),
        divergences=tuple(_rounded(value) for value in search.divergences[shown]),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
