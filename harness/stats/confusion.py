"""Which classes are taken for which, which images changed sides, and how sure the engine was of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.records import Flip

LOW_MARGIN_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionMove:
    """How often images of one class are predicted as another, before and now [images]."""

    label: int
    prediction: int
    before: int
    now: int

    @property
    def change(self) -> int:
        """Return the change [images]; positive is more often."""
        return self.now - self.before


def confusion_matrix(
    labels: NDArray[np.integer], predictions: NDArray[np.integer], num_classes: int
) -> NDArray[np.int64]:
    """Return int64[K, K]: images of class `row` that were predicted as class `column`.

    labels, predictions: int[N], 0 <= class < K.
    Raises: MeasurementError for different lengths, no images, or a class out of range.
    """
    rows, columns = np.asarray(labels, np.int64), np.asarray(predictions, np.int64)
    if rows.shape != columns.shape or rows.ndim != 1 or rows.size == 0:
        raise MeasurementError(f"{rows.shape} labels and {columns.shape} predictions do not pair up")
    for name, classes in (("label", rows), ("prediction", columns)):
        if classes.min() < 0 or classes.max() >= num_classes:
            raise MeasurementError(f"{name}s {classes.min()}..{classes.max()} are outside classes 0..{num_classes - 1}")
    return np.bincount(rows * num_classes + columns, minlength=num_classes**2).reshape(num_classes, num_classes)


def largest_confusion_moves(
    before: NDArray[np.int64], now: NDArray[np.int64], limit: int = 5
) -> tuple[ConfusionMove, ...]:
    """Return the cells off the diagonal of two confusion matrices that grew or shrank most; none that stayed.

    Raises: MeasurementError for matrices of different shapes.
    """
    if before.shape != now.shape:
        raise MeasurementError(f"confusion matrices of {before.shape} and {now.shape} classes cannot be compared")
    change = now - before
    np.fill_diagonal(change, 0)
    order = np.argsort(-np.abs(change), axis=None, kind="stable")[:limit]
    cells = [(int(cell) // change.shape[1], int(cell) % change.shape[1]) for cell in order]
    return tuple(
        ConfusionMove(label=row, prediction=column, before=int(before[row, column]), now=int(now[row, column]))
        for row, column in cells
        if change[row, column]
    )


def flips_between(
    *,
    labels: NDArray[np.integer],
    reference_predictions: NDArray[np.integer],
    predictions: NDArray[np.integer],
    reference_margins: NDArray[np.floating],
    margins: NDArray[np.floating],
    first: int = 0,
    limit: int | None = None,
) -> tuple[Flip, ...]:
    """Return the images that one engine gets right and the other wrong, lost ones first, then the surest reference.

    A flip at a large margin of the reference is a fault; flips at margins near 0 are rounding. All arrays [N], in
    data-set order; `first`: index of the first image in its split.
    Raises: MeasurementError for arrays of different lengths or a NaN margin.
    """
    arrays = (labels, reference_predictions, predictions, reference_margins, margins)
    if len({len(array) for array in arrays}) != 1:
        raise MeasurementError(f"arrays of {[len(array) for array in arrays]} images do not pair up")
    if np.isnan(reference_margins).any() or np.isnan(margins).any():
        raise MeasurementError("a margin is NaN: the outputs it came from were not checked")
    right, reference_right = predictions == labels, reference_predictions == labels
    flipped = np.flatnonzero(right != reference_right)
    order = np.lexsort((-np.asarray(reference_margins)[flipped], right[flipped]))
    return tuple(
        Flip(
            index=first + int(i),
            label=int(labels[i]),
            reference_prediction=int(reference_predictions[i]),
            prediction=int(predictions[i]),
            reference_margin=float(reference_margins[i]),
            margin=float(margins[i]),
            gained=bool(right[i]),
        )
        for i in flipped[order][:limit]
    )


def low_margin_images(margins: NDArray[np.floating], share: float = LOW_MARGIN_SHARE) -> NDArray[np.intp]:
    """Return the indices of the images with the smallest margins; equal margins by index. At least one image.

    Raises: MeasurementError for no images or a NaN margin.
    """
    values = np.asarray(margins)
    if values.size == 0 or np.isnan(values).any():
        raise MeasurementError(f"{values.size} margins, {int(np.isnan(values).sum())} of them NaN, cannot be ordered")
    return np.argsort(values, kind="stable")[: max(1, int(np.ceil(values.size * share - 1e-9)))]


def low_margin_agreement(
    reference_predictions: NDArray[np.integer],
    predictions: NDArray[np.integer],
    reference_margins: NDArray[np.floating],
) -> float:
    """Return the share of equal predictions among the tenth of images with the smallest reference margin [fraction].

    No labels are needed, and it moves long before top-1 does: images near a border between classes flip first.
    Raises: MeasurementError for no images or a NaN margin.
    """
    chosen = low_margin_images(reference_margins)
    return float((np.asarray(reference_predictions)[chosen] == np.asarray(predictions)[chosen]).mean())
