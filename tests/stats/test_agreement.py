"""Agreement beyond chance: against statsmodels, and at its edges."""

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from harness.errors import MeasurementError
from harness.stats import kappa_interval

RNG = np.random.default_rng(0)
TABLES = [
    np.array([[20, 5], [10, 15]]),
    np.array([[90, 3, 7], [4, 80, 16], [0, 9, 91]]),
    RNG.integers(1, 50, (10, 10)),
    np.diag([40, 50, 60]),
    np.roll(np.diag([40, 50, 60]), 1, axis=1),
]


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_kappa_and_its_interval_agree_with_statsmodels(table):
    expected = cohens_kappa(table)
    kappa, low, high = kappa_interval(table, 0.95)
    assert kappa == pytest.approx(expected.kappa)
    if expected.std_kappa > 0:
        assert (low, high) == pytest.approx((expected.kappa_low, expected.kappa_upp))


@pytest.mark.parametrize("table", [np.zeros((3, 3), int), np.array([[5, 0], [5, 0]]), np.array([[5, 5], [0, 0]])])
def test_what_cannot_be_told_is_no_number(table):
    with pytest.raises(MeasurementError):
        kappa_interval(table, 0.998)
