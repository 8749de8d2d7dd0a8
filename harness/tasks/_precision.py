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
    n_there, weights = counts @ ranking.n_there, counts[:, ranking.rows]
    found = np.full((len(counts), len(ranking.is_right)), np.nan)
    needed = _needed(n_there)
    seen_all = np.cumsum(weights, axis=1)
    for t, (is_right, is_counted) in enumerate(zip(ranking.is_right, ranking.counts, strict=True)):
        places = np.flatnonzero(is_right & is_counted)  # precision peaks where something right was found
        if places.size == 0:
            found[:, t] = np.where(n_there > 0, 0.0, np.nan)
            continue
        seen = seen_all if is_counted.all() else np.cumsum(weights * is_counted, axis=1)
        right = np.cumsum(weights[:, places], axis=1)
        precision = right / np.maximum(seen[:, places], np.finfo(np.float64).tiny)
        falling = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # One search for all resamples: whole numbers, each resample's above those of the one before.
        above = (float(right.max() + needed.max()) + 1) * np.arange(len(counts))[:, None]
        first = np.searchsorted((right + above).ravel(), (needed + above).ravel()).reshape(needed.shape)
        first -= places.size * np.arange(len(counts))[:, None]
        read = np.take_along_axis(falling, np.minimum(first, places.size - 1), axis=1)
        mean = np.where(first < places.size, read, 0.0).mean(axis=1)
        found[:, t] = np.where(n_there > 0, mean, np.nan)
    return found


def _needed(n_there: Floats) -> Floats:
    """Return float64[R, 101]: how many have to be found for each recall, as a comparison of fractions has it."""
    n = np.maximum(n_there, 1.0)[:, None]
    needed = np.maximum(np.ceil(RECALLS * n - 1e-6), 0.0)
    return needed + (needed / n < RECALLS)


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
