"""Calibrating: which pairs are asked for, what of them is kept, and cases that cannot be timed."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from harness.errors import BuildError, MeasurementError
from harness.measure.arms import TimerFacts
from harness.options.values import HarnessOptions
from harness.records import INJECTED, Availability
from harness.run import calibrating
from harness.run.calibrating import CalibrationPlan, calibrate
from harness.run.pairing import PairTimes
from harness.run.plan import Plan
from harness.specs import Case, Precision, TimingPlan
from harness.stats.calibrated import case_spreads

SIZES = (1, 100)


@pytest.fixture
def plan(bundled):
    case = Case(model="mlp", backend="ort", precision=Precision.FP32, recipe="none")
    broken = replace(case, backend="openvino")
    usable = tuple(Availability(backend=name, usable=True, devices=("cpu",)) for name in ("ort", "openvino"))
    return Plan(cases=(case, broken), models={"mlp": bundled("mlp")}, backends=usable, left_out={})


@pytest.fixture
def asked_pairs(monkeypatch):
    """Pairs that take the planted time, and what was asked of each."""
    asked, rng = [], np.random.default_rng(1)

    def time_slowed_pair(candidate, control, slowdowns, *, n_rounds, candidate_first):
        if candidate.request.case.backend == "openvino":
            raise BuildError("no such kernel")
        asked.append(SimpleNamespace(request=candidate.request, first=candidate_first, control=control))

        def condition(slowdown: float):
            return tuple(
                PairTimes(
                    facts=TimerFacts(
                        batch_size=size,
                        clock="host",
                        launch="call",
                        gated=False,
                        window="compute",
                        calls_per_sample=1,
                        samples_per_round=5,
                    ),
                    candidate_ns=1e5 * (1 + slowdown) * rng.lognormal(0, 1e-3, (n_rounds, 5)),
                    control_ns=1e5 * rng.lognormal(0, 1e-3, (n_rounds, 5)),
                )
                for size in SIZES
            )

        return tuple(map(condition, (0.0, *slowdowns)))

    monkeypatch.setattr(calibrating, "time_slowed_pair", time_slowed_pair)
    return asked


def test_pairs_of_a_case_become_samples_and_a_case_that_fails_is_left_out(plan, asked_pairs, tmp_path):
    told = []
    options = HarnessOptions(timing=TimingPlan(batch_sizes=SIZES, n_rounds=6))
    (found,) = calibrate(options, plan, CalibrationPlan(), folder=tmp_path, echo=told.append)
    assert found.max_slowdown == 0.02  # on a CPU
    (night,) = found.nights
    assert [(case.case_id, case.batch_size) for case in night.cases] == [("mlp-ort-fp32", size) for size in SIZES]
    first = night.cases[0]
    assert len(first.medians_ns) == len(first.builds) == 32
    assert first.builds[:6] == (0, 0, 1, 1, 0, 0)
    assert [len(ratios) for ratios in first.log_ratios] == [16] * len(INJECTED)
    for slowdown, ratios in zip(INJECTED, first.log_ratios, strict=True):
        assert np.mean(ratios) == pytest.approx(np.log1p(slowdown), abs=0.001)
    assert told.count("left out: mlp-openvino-fp32: no such kernel") == 1
    spread = case_spreads(found)[0]
    assert [caught.n_called for caught in spread.caught] == [0, 0, 0, 1]  # 1 and 2 % are accepted here


def test_either_arm_is_first_equally_often_in_every_build_and_builds_have_a_cache_of_their_own(
    plan, asked_pairs, tmp_path
):
    calibrate(HarnessOptions(), plan, CalibrationPlan(n_pairs=8), folder=tmp_path, echo=lambda line: None)
    by_build = {}
    for pair in asked_pairs:
        by_build.setdefault(pair.request.build.cache_dir, []).append(pair.first)
    assert len(by_build) == 2
    assert all(firsts == [True, False, True, False] for firsts in by_build.values())
    assert all(pair.control.request == pair.request for pair in asked_pairs)


def test_no_case_that_can_be_timed_is_an_error(plan, asked_pairs, tmp_path):
    only_broken = replace(plan, cases=plan.cases[1:])
    with pytest.raises(MeasurementError, match="no case could be timed"):
        calibrate(HarnessOptions(), only_broken, CalibrationPlan(), folder=tmp_path, echo=lambda line: None)


@pytest.mark.parametrize("wrong", [{"n_pairs": 0}, {"n_builds": 0}])
def test_a_calibration_of_nothing_is_refused(wrong):
    with pytest.raises(MeasurementError):
        CalibrationPlan(**wrong)
