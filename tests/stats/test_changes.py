"""Level changes: planted steps are found where they are, noise and odd nights are none."""

import itertools

import numpy as np
import pytest

from harness.stats.changes import MIN_LEVEL_RUNS, _fit_levels, _steps_back, find_steps, noise_sigma


def steps_of(series, resolution=1e-6):
    values = np.atleast_2d(np.asarray(series, float))
    return find_steps(values, resolution=np.full(len(values), resolution))


def levels(*parts):
    return np.concatenate([np.full(n, value) for n, value in parts])


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (levels((20, 1.0), (20, 2.0)), [20]),
        (levels((10, 1.0), (5, 3.0), (30, 1.0)), [10, 15]),
        (levels((30, 1.0)), []),
        (levels((37, 1.0), (3, 1.1)), [37]),  # three nights make a level
        (levels((38, 1.0), (2, 1.1)), []),
        (levels((20, 1.0), (1, 9.0), (20, 1.0)), []),  # an odd night
        (levels((20, 1.0), (2, 9.0), (20, 1.0)), []),
        (levels((2, 1.0), (2, 5.0)), []),  # too short to tell
        ([], []),
    ],
)
def test_steps_without_noise(series, expected):
    assert steps_of(series) == [expected]


def test_a_difference_below_the_resolution_is_no_step():
    series = levels((20, 1.0), (20, 1.0 + 1e-5))
    assert steps_of(series, resolution=1e-6) == [[20]]
    assert steps_of(series, resolution=1e-4) == [[]]


def test_missing_runs_are_skipped_and_indices_are_those_of_all_runs():
    series = levels((20, 1.0), (20, 2.0))
    series[[3, 18, 19, 20, 30]] = np.nan
    assert steps_of(series) == [[21]]
    assert steps_of(np.full(30, np.nan)) == [[]]


def test_series_of_different_kinds_do_not_disturb_each_other():
    one, other = levels((20, 1.0), (20, 2.0)), np.r_[np.full(30, np.nan), levels((10, 1e6))]
    assert find_steps(np.stack([one, other]), resolution=np.array([1e-6, 1.0])) == [[20], []]


def brute_force(series, penalty):
    """Try every way to cut a series into levels of at least MIN_LEVEL_RUNS."""
    best = (np.inf, [])
    for n_steps in range(len(series) // MIN_LEVEL_RUNS):
        for cuts in itertools.combinations(range(1, len(series)), n_steps):
            edges = [0, *cuts, len(series)]
            parts = [series[start:stop] for start, stop in itertools.pairwise(edges)]
            if all(len(part) >= MIN_LEVEL_RUNS for part in parts):
                cost = sum(((part - part.mean()) ** 2).sum() for part in parts) + penalty * n_steps
                best = min(best, (cost, list(cuts)))
    return best[1]


@pytest.mark.parametrize("seed", range(25))
def test_the_fit_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    series = rng.normal(0, 1, 12) + rng.choice([0, 3, 6]) * (np.arange(12) >= rng.integers(3, 10))
    for penalty in (0.5, 2.0, 8.0):
        starts = _fit_levels(series[None], np.array([penalty]))
        assert _steps_back(starts[0], 12) == brute_force(series, penalty)


def test_steady_noise_raises_few_false_steps_and_real_steps_are_found():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (600, 100))
    false_alarms = np.mean([bool(found) for found in steps_of(noise, 1e-9)])
    assert false_alarms <= 0.01
    heavy = np.mean([bool(found) for found in steps_of(rng.standard_t(3, (600, 100)), 1e-9)])
    assert heavy <= 0.04
    shifted = noise[:200].copy()
    shifted[:, 70:] += 2
    hits = [any(abs(step - 70) <= 3 for step in found) for found in steps_of(shifted, 1e-9)]
    assert np.mean(hits) >= 0.9


def test_noise_is_measured_despite_steps():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 2.0, 4000)
    assert noise_sigma(noise) == pytest.approx(2.0, rel=0.05)
    assert noise_sigma(noise + 100 * (np.arange(4000) > 2000)) == pytest.approx(2.0, rel=0.05)
    assert noise_sigma(np.array([1.0])) == 0.0
