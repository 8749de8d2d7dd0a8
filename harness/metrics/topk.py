"""Top-k hits from outputs, with NumPy's tie rule and the ties counted. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOP_K = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """Per-image results of one batch."""

    predictions: NDArray[np.int64]  # int64[N]
    top1: NDArray[np.bool_]  # bool[N]
    top5: NDArray[np.bool_]  # bool[N]
    margins: NDArray[np.float32]  # float32[N]: largest minus second largest
    n_ties_top1: int
    n_ties_top5: int


def score_top_k(outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> TopK:
    """Return the hits of `outputs: float32[N, K]` against `labels: int64[N]`, K >= 2.

    Top-1 is `np.argmax`: the first of equal largest outputs. Top-5 takes the classes in order of output, equal ones
    by lower index first, so both follow one rule. With five classes or fewer every known label is a top-5 hit.
    """
    n_images, n_classes = outputs.shape
    rows = np.arange(n_images)
    predictions = outputs.argmax(axis=1)
    own = outputs[rows, labels]
    classes = np.arange(n_classes)
    ahead = (outputs > own[:, None]) | ((outputs == own[:, None]) & (classes[None, :] < labels[:, None]))
    ranks = ahead.sum(axis=1)
    descending = -np.partition(-outputs, min(TOP_K, n_classes - 1), axis=1) if n_classes > TOP_K else None
    top_two = -np.partition(-outputs, 1, axis=1)[:, :2]
    n_ties_top5 = 0
    if descending is not None:
        first_six = np.sort(descending[:, : TOP_K + 1], axis=1)
        n_ties_top5 = int((first_six[:, 0] == first_six[:, 1]).sum())
    return TopK(
        predictions=predictions,
        top1=ranks == 0,
        top5=ranks < TOP_K,
        margins=(top_two[:, 0] - top_two[:, 1]).astype(np.float32),
        n_ties_top1=int((top_two[:, 0] == top_two[:, 1]).sum()),
        n_ties_top5=n_ties_top5,
    )
