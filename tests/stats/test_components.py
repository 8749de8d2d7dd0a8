"""Variance components: planted ones are found again, whatever the numbers at each level."""

import numpy as np
import pytest

from harness.errors import MeasurementError
from harness.stats.components import TimedProcess, variance_components

PLANTED = {"night": 0.006, "build": 0.004, "process": 0.002, "round": 0.005}


def processes(rng, planted, *, n_nights=10, n_builds=3, n_processes=4, uneven=False) -> list[TimedProcess]:
    made = []
    for night in range(n_nights):
        at_night = 11.5 + rng.normal(0, planted["night"])
        for build in range(n_builds + (night % 2 if uneven else 0)):
            of_build = at_night + rng.normal(0, planted["build"])
            for process in range(n_processes + (build if uneven else 0)):
                n_rounds = 12 + (process if uneven else 0)
                of_process = of_build + rng.normal(0, planted["process"])
                logs = of_process + rng.normal(0, planted["round"], n_rounds)
                made.append(TimedProcess(night=f"2026-11-{night}", build=str(build), logs=logs))
    return made


@pytest.mark.parametrize("uneven", [False, True])
def test_planted_components_are_recovered(uneven):
    """The mean variance of 40 calibrations lies within 20 % (as a deviation) of what was planted."""
    rng = np.random.default_rng(11)
    estimates = [variance_components(processes(rng, PLANTED, uneven=uneven)) for _ in range(40)]
    for level, planted in PLANTED.items():
        root_mean = np.sqrt(np.mean([getattr(estimate, level) ** 2 for estimate in estimates]))
        assert root_mean == pytest.approx(planted, rel=0.2), level


def test_a_level_without_scatter_is_near_nothing_and_never_negative():
    rng = np.random.default_rng(12)
    estimates = [variance_components(processes(rng, {**PLANTED, "build": 0.0})) for _ in range(20)]
    assert min(estimate.build for estimate in estimates) == 0
    assert np.median([estimate.build for estimate in estimates]) < 0.001


def test_a_level_with_one_member_is_unknown():
    rng = np.random.default_rng(13)
    one_night = variance_components(processes(rng, PLANTED, n_nights=1, n_builds=1, n_processes=30))
    assert one_night.night is None
    assert one_night.build is None
    assert one_night.process == pytest.approx(PLANTED["process"], rel=0.4)
    one_round = variance_components([TimedProcess(night="a", build="0", logs=np.zeros(1)) for _ in range(3)])
    assert one_round.round is None
    assert one_round.process == 0


def test_the_same_number_of_a_build_on_two_nights_is_two_builds():
    rng = np.random.default_rng(14)
    logs = [
        TimedProcess(night=night, build="0", logs=rng.normal(shift, 1e-4, 9)) for night, shift in (("a", 0), ("b", 1))
    ]
    assert variance_components(logs).build is None
    assert variance_components(logs).night == pytest.approx(2**-0.5, rel=0.01)


def test_nothing_has_no_scatter():
    with pytest.raises(MeasurementError):
        variance_components([])
    with pytest.raises(MeasurementError):
        variance_components([TimedProcess(night="a", build="0", logs=np.zeros(0))])
