"""Confusions, flips and the lowest-margin tenth."""

import numpy as np
import pytest

from harness.errors import MeasurementError
from harness.stats import (
    confusion_matrix,
    flips_between,
    largest_confusion_moves,
    low_margin_agreement,
    low_margin_images,
)

LABELS = np.array([0, 0, 1, 1, 2, 2])


def test_confusion_matrix_counts_labels_by_predictions():
    matrix = confusion_matrix(LABELS, np.array([0, 1, 1, 1, 0, 2]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]
    assert confusion_matrix(np.array([3], np.uint8), np.array([2], np.uint8), 300)[3, 2] == 1


def test_confusion_moves_name_what_grew_and_shrank():
    before = confusion_matrix(LABELS, np.array([0, 1, 1, 1, 2, 2]), 3)
    now = confusion_matrix(LABELS, np.array([0, 0, 1, 2, 1, 1]), 3)
    moves = largest_confusion_moves(before, now)
    assert [(m.label, m.prediction, m.before, m.now, m.change) for m in moves] == [
        (2, 1, 0, 2, 2),
        (0, 1, 1, 0, -1),
        (1, 2, 0, 1, 1),
    ]
    assert largest_confusion_moves(now, now) == ()


def test_flips_go_both_ways_with_their_margins():
    reference, ours = np.array([0, 0, 1, 2, 2, 0]), np.array([0, 1, 1, 1, 0, 1])
    margins = np.array([0.9, 0.1, 0.8, 0.3, 0.7, 0.2])
    flips = flips_between(
        labels=LABELS,
        reference_predictions=reference,
        predictions=ours,
        reference_margins=margins,
        margins=margins / 2,
        first=100,
    )
    assert [(f.index, f.gained, f.reference_prediction, f.prediction) for f in flips] == [
        (104, False, 2, 0),
        (101, False, 0, 1),
        (103, True, 2, 1),
    ]
    assert flips[0].reference_margin == 0.7
    assert flips[0].margin == 0.35


def test_the_lowest_tenth_is_a_tenth():
    margins = np.linspace(1, 0, 50)
    assert sorted(low_margin_images(margins)) == [45, 46, 47, 48, 49]
    assert low_margin_images(np.array([0.5])).tolist() == [0]
    assert len(low_margin_images(np.ones(30))) == 3
    ours = np.zeros(50, int)
    ours[45] = 1
    assert low_margin_agreement(np.zeros(50, int), ours, margins) == pytest.approx(0.8)


@pytest.mark.parametrize(
    "call",
    [
        lambda: confusion_matrix(np.array([], int), np.array([], int), 3),
        lambda: confusion_matrix(np.array([0]), np.array([3]), 3),
        lambda: confusion_matrix(np.array([0, 1]), np.array([1]), 3),
        lambda: largest_confusion_moves(np.eye(2, dtype=int), np.eye(3, dtype=int)),
        lambda: low_margin_images(np.array([np.nan, 1.0])),
        lambda: low_margin_images(np.array([])),
    ],
)
def test_nothing_to_compare_is_an_error(call):
    with pytest.raises(MeasurementError):
        call()


def test_flips_refuse_nan_margins_and_other_lengths():
    arrays = {"labels": LABELS, "reference_predictions": LABELS, "predictions": LABELS}
    with pytest.raises(MeasurementError, match="NaN"):
        flips_between(**arrays, reference_margins=np.full(6, np.nan), margins=np.ones(6))
    with pytest.raises(MeasurementError, match="pair up"):
        flips_between(**arrays, reference_margins=np.ones(5), margins=np.ones(6))
