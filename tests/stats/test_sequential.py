"""The sequential test on signs: few trials, and no more wrong answers than it says."""

import numpy as np
import pytest

from harness.errors import MeasurementError
from harness.stats import SignTest


def test_it_decides_at_walds_boundary():
    test = SignTest(error=0.01)
    assert test.lead == 4, "log(99) / log(4) = 3.3"
    for _ in range(4):
        assert test.decision is None
        test = test.after(True)
    assert (test.decision, test.n_trials) == (True, 4)
    test = SignTest(error=0.01).after(True)
    for _ in range(5):
        assert test.decision is None
        test = test.after(False)
    assert (test.decision, test.n_trials) == (False, 6)


@pytest.mark.parametrize("agreement", [0.8, 0.9, 1.0])
@pytest.mark.parametrize("truth", [True, False])
def test_wrong_answers_are_no_more_than_stated(agreement, truth):
    generator, n_wrong, n_trials = np.random.default_rng(7), 0, 0
    for _ in range(2_000):
        test = SignTest(error=0.01)
        while test.decision is None:
            test = test.after(truth if generator.random() < agreement else not truth)
        n_wrong += test.decision is not truth
        n_trials += test.n_trials
    assert n_wrong <= 20 + 3 * np.sqrt(20)
    assert n_trials / 2_000 < 8


@pytest.mark.parametrize("values", [{"error": 0.0}, {"error": 1.0}, {"error": 0.01, "agreement": 0.5}])
def test_a_test_that_could_decide_nothing_is_refused(values):
    with pytest.raises(MeasurementError):
        SignTest(**values)
