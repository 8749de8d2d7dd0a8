"""Top-k against a stable sort, at few and many classes, with ties."""

import numpy as np
import pytest

from harness.tasks.classification import SORTED_CLASSES, score_top_k


@pytest.mark.parametrize("n_levels", [3, 1_000_000])
@pytest.mark.parametrize("n_classes", [2, 5, 6, 7, 10, SORTED_CLASSES, SORTED_CLASSES + 1, 1000])
def test_hits_margins_and_ties_are_those_of_a_stable_sort(n_classes, n_levels):
    generator = np.random.default_rng(n_classes)
    outputs = generator.integers(-n_levels, n_levels, (300, n_classes)).astype(np.float32)
    labels = generator.integers(0, n_classes, 300)
    found = score_top_k(outputs, labels)
    order = np.argsort(-outputs, axis=1, kind="stable")
    ranked = np.take_along_axis(outputs, order, axis=1)
    assert np.array_equal(found.predictions, order[:, 0])
    assert np.array_equal(found.top1, order[:, 0] == labels)
    assert np.array_equal(found.top5, (order[:, :5] == labels[:, None]).any(axis=1))
    assert np.array_equal(found.margins, ranked[:, 0] - ranked[:, 1])
    assert found.margins.dtype == np.float32
    assert found.n_ties_top1 == (ranked[:, 0] == ranked[:, 1]).sum()
    assert found.n_ties_top5 == ((ranked[:, 4] == ranked[:, 5]).sum() if n_classes > 5 else 0)
    if n_levels == 3:
        assert found.n_ties_top1
    if found.n_ties_top1:
        last = n_classes - 1 - outputs[:, ::-1].argmax(axis=1)
        assert np.array_equal(found.top1_last, last == labels)
    else:
        assert found.top1_last is None
