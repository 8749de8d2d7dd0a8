"""Top-k hits from outputs, with NumPy's tie rule and the ties counted. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.tasks._task import Task, TopK

TOP_K = 5
SORTED_CLASSES = 64  # so many are sorted in less time than their largest are parted from the others


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
    few = min(TOP_K + 1, n_classes)
    kept = np.partition(outputs, n_classes - few, axis=1)[:, -few:] if n_classes > SORTED_CLASSES else outputs
    largest = np.sort(kept, axis=1)[:, -few:]  # ascending
    first, second = largest[:, -1], largest[:, -2]
    return TopK(
        predictions=predictions,
        top1=ranks == 0,
        top5=ranks < TOP_K,
        margins=(first - second).astype(np.float32),
        n_ties_top1=int(np.count_nonzero(first == second)),
        n_ties_top5=int(np.count_nonzero(largest[:, 0] == largest[:, 1])) if n_classes > TOP_K else 0,
    )


TASK = Task(name="classification", summary="one class an image: the largest output", score=score_top_k)
