"""Top-k hits from outputs, with NumPy's tie rule and the ties counted. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.tasks._classes import CLASSES_OF_SAMPLES
from harness.tasks._task import Task, TopK

TOP_K = 5
SORTED_CLASSES = 64  # so many are sorted in less time than their largest are parted from the others


def score_top_k(outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> TopK:
    """Return the hits of `outputs: float32[N, K]` against `labels: int64[N]`, K >= 2.

    Top-1 is `np.argmax`: the first of equal largest outputs. Top-5 takes the classes in order of output, equal ones
    by lower index first, so both follow one rule. With five classes or fewer every known label is a top-5 hit. An
    output of -inf is a score: the class is ruled out.
    """
    n_images, n_classes = outputs.shape
    predictions = outputs.argmax(axis=1)
    own = outputs[np.arange(n_images), labels]
    few = min(TOP_K + 1, n_classes)
    kept = np.partition(outputs, n_classes - few, axis=1)[:, -few:] if n_classes > SORTED_CLASSES else outputs
    largest = np.sort(kept, axis=1)[:, -few:]  # ascending
    first, second = largest[:, -1], largest[:, -2]
    is_tied = first == second
    behind = _equal_behind(outputs, own, labels) if is_tied.any() else None
    # Where all other classes are ruled out (-inf), the margin has no bound: the largest number stands for it.
    margins = np.minimum(first.astype(np.float64) - second, np.finfo(np.float32).max)
    if n_classes > TOP_K:
        top5 = own > largest[:, 0]
        is_open = largest[:, 0] == largest[:, 1]  # fifth and sixth are equal: the index decides
        top5[is_open] = _ranks(outputs[is_open], own[is_open], labels[is_open]) < TOP_K
    else:
        top5, is_open = np.ones(n_images, np.bool_), np.zeros(n_images, np.bool_)
    return TopK(
        predictions=predictions,
        top1=predictions == labels,
        top5=top5,
        margins=margins.astype(np.float32),
        n_ties_top1=int(np.count_nonzero(is_tied)),
        n_ties_top5=int(np.count_nonzero(is_open)),
        top1_last=None if behind is None else (own == first) & ~behind,
    )


def _ranks(outputs: NDArray[np.float32], own: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return int64[N]: how many classes come before the label's."""
    is_before = np.arange(outputs.shape[1])[None, :] < labels[:, None]
    ranks: NDArray[np.int64] = ((outputs > own[:, None]) | ((outputs == own[:, None]) & is_before)).sum(axis=1)
    return ranks


def _equal_behind(
    outputs: NDArray[np.float32], own: NDArray[np.float32], labels: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return bool[N]: whether a later class has the output of the label's."""
    is_behind = np.arange(outputs.shape[1])[None, :] > labels[:, None]
    equal: NDArray[np.bool_] = ((outputs == own[:, None]) & is_behind).any(axis=1)
    return equal


TASK = Task(
    name="classification",
    summary="one class an image: the largest output",
    score=score_top_k,
    samples=CLASSES_OF_SAMPLES,
)
