"""Average precision from scores and what they were right about, on the whole set and on its resamples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.tasks._metrics import Counts, Floats

RECALLS = np.linspace(0, 1, 101)  # at which COCO reads precision


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranking:
    """All that was found of one class, by falling score, and what was there to be found."""

    rows: NDArray[np.int64]  # int64[M]: place of the sample
    scores: Floats  # float64[M], falling
    is_right: NDArray[np.bool_]  # bool[T, M]: at each of T thresholds of overlap
    counts: NDArray[np.bool_]  # bool[T, M]: False for what is neither right nor wrong
    n_there: Floats  # float64[N]: of each sample

    @classmethod
    def of(
        cls,
        rows: NDArray[np.int64],
        scores: Floats,
        is_right: NDArray[np.bool_],
        n_there: Floats,
        counts: NDArray[np.bool_] | None = None,
    ) -> Ranking:
        """Rank by score; of equal scores the first comes first."""
        order = np.argsort(-scores, kind="mergesort")
        counted = np.ones_like(is_right) if counts is None else counts
        return cls(
            rows=rows[order],
            scores=scores[order],
            is_right=is_right[:, order],
            counts=counted[:, order],
            n_there=n_there,
        )


def coco_precision(ranking: Ranking, counts: Counts) -> NDArray[np.float64]:
    """Return average precision float64[R, T] as COCO has it: at 101 recalls, precision made to fall.

    `counts`: float64[R, N]; NaN where a resample holds nothing to be found.
    Source: T.-Y. Lin et al., Microsoft COCO, ECCV 2014; `pycocotools.cocoeval.COCOeval.accumulate`.
    """
    n_there = counts @ ranking.n_there
    found = np.full((len(counts), len(ranking.is_right)), np.nan)
    weights = counts[:, ranking.rows]
    for t, (is_right, is_counted) in enumerate(zip(ranking.is_right, ranking.counts, strict=True)):
        right = np.cumsum(weights * (is_right & is_counted), axis=1)
        wrong = np.cumsum(weights * (~is_right & is_counted), axis=1)
        precision = right / np.maximum(right + wrong, np.finfo(np.float64).tiny)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for r in np.flatnonzero(n_there > 0):
            places = np.searchsorted(right[r] / n_there[r], RECALLS, side="left")
            inside = places < precision.shape[1]
            found[r, t] = precision[r, places[inside]].sum() / RECALLS.size
    return found


def ranked_precision(ranking: Ranking, counts: Counts) -> Floats:
    """Return average precision float64[R]: the mean over what is there of the precision down to its score.

    Equal scores are taken together. NaN where a resample holds nothing to be found.
    Source: `sklearn.metrics.average_precision_score`.
    """
    if ranking.scores.size == 0:
        return np.where(counts @ ranking.n_there > 0, 0.0, np.nan)
    ends = np.flatnonzero(np.append(ranking.scores[1:] != ranking.scores[:-1], True))
    weights = counts[:, ranking.rows]
    right = np.cumsum(weights * ranking.is_right[0], axis=1)[:, ends]
    seen = np.cumsum(weights, axis=1)[:, ends]
    gained = np.diff(right, axis=1, prepend=0.0)
    precision = np.divide(right, seen, out=np.zeros_like(right), where=seen > 0)
    n_there = counts @ ranking.n_there
    total = (gained * precision).sum(axis=1)
    means: Floats = np.divide(total, n_there, out=np.full(len(counts), np.nan), where=n_there > 0)
    return means


def mean_over_classes(of_classes: list[Floats], n_resamples: int) -> Floats:
    """Return the mean float64[R] over the classes that have one; NaN where none has."""
    if not of_classes:
        return np.full(n_resamples, np.nan)
    stacked = np.stack(of_classes)
    has_one = np.isfinite(stacked)
    n_classes = has_one.sum(axis=0)
    total = np.where(has_one, stacked, 0.0).sum(axis=0)
    means: Floats = np.divide(total, n_classes, out=np.full(n_resamples, np.nan), where=n_classes > 0)
    return means
