"""A vector a sample: recall@k among the other samples, cosine to a given vector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError, DataError, MeasurementError
from harness.protocols import Sample, Tensors
from harness.records import MetricScore
from harness.tasks._metrics import Floats, Naming, Slicing, mean_score
from harness.tasks._samples import OUTPUT, SampleTask, Setting, Settings, numbers_of, one_output, output_of

NAME = "embeddings"
COSINE = Naming(name="cosine", summary="mean cosine of a sample's vector with the vector that it should have")
MAX_RANKS = 100
BLOCK_ROWS = 512  # queries compared with all samples at a time


class VectorScores:
    """Scores vectors: by labels, by the vectors that they should be, or by both.

    Recall@k: the share of samples that find one of their own label among the k samples most like them; a sample that
    is alone with its label has nothing to find and is left out. The set is the gallery, and the same for all engines.
    """

    def __init__(self, settings: Settings) -> None:
        """Begin without samples. Raises: ConfigError for ranks that are none."""
        self._settings = settings
        self._ranks = _ranks_of(settings["ranks"])
        self._vectors: list[Floats] = []
        self._labels: list[object] = []
        self._cosines: list[float] = []

    def add(self, outputs: Tensors, sample: Sample) -> None:
        """Take the outputs of one sample; its target is a label, a vector, or {"label": ..., "vector": ...}."""
        vector = output_of(outputs, self._settings[OUTPUT], task=NAME).astype(np.float64).reshape(-1)
        if not np.isfinite(vector).all():
            raise MeasurementError(f"sample {sample.id}: the vector is not finite")
        if self._vectors and vector.size != self._vectors[0].size:
            first = self._vectors[0].size
            raise DataError(f"sample {sample.id}: the vector has {vector.size} numbers, that of the first {first}")
        label, expected = _parts_of(sample)
        if self._vectors and (label is None) != (not self._labels):
            raise DataError(f"sample {sample.id}: some samples have a label and some have none")
        if self._vectors and (expected is None) != (not self._cosines):
            raise DataError(f"sample {sample.id}: some samples have a vector as target and some have none")
        if expected is not None:
            if expected.size != vector.size:
                raise DataError(f"sample {sample.id}: the target has {expected.size} numbers, the output {vector.size}")
            self._cosines.append(_cosine(vector, expected.reshape(-1)))
        if label is not None:
            self._labels.append(label)
        self._vectors.append(vector)

    def scores(self) -> tuple[MetricScore, ...]:
        """Return recall@k for every k, and the mean cosine; each where its targets are there."""
        if not self._vectors:
            raise MeasurementError(f"task {NAME}: no sample was scored")
        scores = self._recalls() if self._labels else []
        if self._cosines:
            scores.append(mean_score(COSINE, self._cosines))
        return tuple(scores)

    def _recalls(self) -> list[MetricScore]:
        names = sorted({str(label) for label in self._labels})
        labels = np.searchsorted(np.asarray(names), [str(label) for label in self._labels])
        if np.unique(labels, return_counts=True)[1].max() < 2:
            raise MeasurementError(f"task {NAME}: no two samples share a label, so none can find another")
        first = self._first_of_its_own(labels)
        has_other = np.bincount(labels)[labels] > 1
        scores: list[MetricScore] = []
        for k in self._ranks:
            hits = np.where(has_other, first < k, True).astype(np.float64)
            slicing = Slicing(f"recall@{k}")
            for row in np.flatnonzero(has_other).tolist():
                slicing.add(row, {int(labels[row]): float(hits[row])})
            naming = Naming(
                name=f"recall@{k}",
                summary=f"samples that find one of their own label among the {k} samples most like them",
            )
            scores.append(mean_score(naming, hits, None if scores else slicing.slices(names)))
        return scores

    def _first_of_its_own(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return int64[N]: how many samples of another label come before the first of a sample's own."""
        vectors = np.stack(self._vectors)
        if self._settings["similarity"] == "cosine":
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
        first = np.empty(len(vectors), np.int64)
        for start in range(0, len(vectors), BLOCK_ROWS):
            rows = np.arange(start, min(start + BLOCK_ROWS, len(vectors)))
            similar = vectors[rows] @ vectors.T
            if self._settings["similarity"] == "euclidean":
                similar = 2 * similar - (vectors**2).sum(axis=1)
            similar[np.arange(rows.size), rows] = -np.inf
            is_own = (labels[rows][:, None] == labels[None, :]) & np.isfinite(similar)
            best = np.where(is_own, similar, -np.inf).max(axis=1, keepdims=True)
            first[rows] = ((similar >= best) & ~is_own & np.isfinite(similar)).sum(axis=1)  # a tie is no find
        return first


def _parts_of(sample: Sample) -> tuple[object, Floats | None]:
    """Return (label, vector), None for what the target has not. Raises: DataError for a target of neither."""
    target = sample.target
    if isinstance(target, dict):
        label, vector = target.get("label"), target.get("vector")
    elif isinstance(target, str) or np.ndim(np.asarray(target)) == 0:
        label, vector = target, None
    else:
        label, vector = None, target
    if label is None and vector is None:
        raise DataError(f"sample {sample.id}: it has no label and no vector, of which task {NAME} needs one")
    return label, None if vector is None else numbers_of(vector, sample)


def _cosine(a: Floats, b: Floats) -> float:
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.dot(a, b)) / norm if norm > 0 else 0.0


def _ranks_of(given: object) -> tuple[int, ...]:
    is_right = isinstance(given, list) and bool(given)
    if not is_right or not all(type(k) is int and 1 <= k <= MAX_RANKS for k in given):  # type: ignore[attr-defined]
        raise ConfigError(f"[task] ranks = {given!r}: task {NAME} expects whole numbers of 1 to {MAX_RANKS}")
    return tuple(dict.fromkeys(given))  # type: ignore[call-overload]


TASK = SampleTask(
    name=NAME,
    summary="a vector a sample",
    make=VectorScores,
    metrics=(*(f"recall@{k}" for k in range(1, MAX_RANKS + 1)), COSINE.name),
    reads=one_output,
    settings=(
        Setting(name="ranks", summary="the k of recall@k", kinds=(list,), default=[1, 5]),
        Setting(
            name="similarity",
            summary="how alike two vectors are",
            default="cosine",
            choices=("cosine", "dot", "euclidean"),
        ),
    ),
)
