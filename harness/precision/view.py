"""How each range was chosen, small enough to be kept with a record: histograms, candidates, divergences. Pure.

Source: Migacz, "8-bit Inference with TensorRT", GTC 2017 (s7310), which draws these per tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from harness.precision.ranges import MagnitudeHistogram, entropy_search
from harness.records import TensorCalibration

MAX_DRAWN = 16  # tensors of a model whose histograms are kept; a record of more would grow beyond some 20 KB
MAX_TENSORS = 256  # of a model whose ranges are kept
N_BINS, N_CANDIDATES = 64, 32
DIGITS = 6


def calibration_view(
    ranges: Mapping[str, float], histograms: Mapping[str, MagnitudeHistogram] | None = None
) -> tuple[TensorCalibration, ...]:
    """Return how each tensor's range was chosen; without a histogram its range is its largest magnitude.

    Of more than MAX_DRAWN tensors the histograms are left out; () for more than MAX_TENSORS.
    """
    if len(ranges) > MAX_TENSORS:
        return ()
    is_drawn = len(ranges) <= MAX_DRAWN
    return tuple(_tensor(name, value, (histograms or {}).get(name), is_drawn) for name, value in ranges.items())


def divergence_at(tensor: TensorCalibration) -> float | None:
    """Return the divergence at the chosen threshold, or at the candidate next to it [nat]; None without candidates."""
    lost = dict(zip(tensor.candidates, tensor.divergences, strict=True))
    near = min(lost, key=lambda candidate: abs(candidate - tensor.threshold), default=None)
    return None if near is None else lost[near]


def _tensor(name: str, threshold: float, histogram: MagnitudeHistogram | None, is_drawn: bool) -> TensorCalibration:
    if histogram is None:
        value = _rounded(threshold)
        return TensorCalibration(tensor=name, threshold=value, largest=value, saturated_share=0.0)
    total = int(histogram.counts.sum())
    first_beyond = round(threshold / histogram.largest * histogram.counts.size) if total else 0
    beyond = int(histogram.counts[first_beyond:].sum())
    told = TensorCalibration(
        tensor=name,
        threshold=_rounded(threshold),
        largest=_rounded(histogram.largest),
        saturated_share=_rounded(beyond / total) if total else 0.0,
    )
    return _drawn(told, histogram) if is_drawn else told


def _drawn(told: TensorCalibration, histogram: MagnitudeHistogram) -> TensorCalibration:
    search = entropy_search(histogram)
    finite = np.flatnonzero(np.isfinite(search.divergences))
    spread = finite[np.unique(np.linspace(0, finite.size - 1, min(N_CANDIDATES, finite.size)).astype(int))]
    shown = np.unique([*spread, search.chosen]) if finite.size else finite
    return replace(
        told,
        counts=tuple(histogram.counts.reshape(N_BINS, -1).sum(1).tolist()),
        candidates=tuple(_rounded(value) for value in search.thresholds[shown]),
        divergences=tuple(_rounded(value) for value in search.divergences[shown]),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
