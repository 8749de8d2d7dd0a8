"""Two engines in processes of their own, timed in turn: which is slower, and that nothing else is compared."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from harness.errors import MeasurementError, Unsupported
from harness.protocols import no_progress
from harness.run.case_worker import WorkerSettings
from harness.run.pairing import Arm, time_pair, time_slowed_pair
from harness.specs import BuildOptions, Case, DatasetRequest, Precision, StageLimits, TimingPlan
from harness.worker.requests import CaseRequest

FAKES = str(Path(__file__).parents[1] / "fakes")


@pytest.fixture
def arm_of(bundled, tmp_path):
    settings = WorkerSettings(
        log_dir=tmp_path / "logs",
        python="",
        extension_dirs=(FAKES,),
        limits=StageLimits(),
        progress=lambda what: no_progress,
    )

    def make(name, backend="fake-honest", slowdown=None, window="compute", batch_sizes=(1, 4)):
        import sys

        request = CaseRequest(
            case=Case(model="mlp", backend=backend, precision=Precision.FP32, recipe="none"),
            model=bundled("mlp"),
            data=DatasetRequest(score_images=150),
            build=BuildOptions(cache_dir=str(tmp_path / "cache")),
            timing=TimingPlan(batch_sizes=batch_sizes, n_rounds=6, round_ns=2_000_000, warmup_ns=0, window=window),
        )
        return Arm(
            request=request, settings=dataclasses.replace(settings, python=sys.executable), name=name, slowdown=slowdown
        )

    return make


@pytest.mark.parametrize("candidate_first", [True, False])
def test_a_planted_slowdown_is_on_the_right_side(arm_of, candidate_first):
    slowed, plain = arm_of("candidate", slowdown=1.0), arm_of("control", slowdown=0.0)
    for times in time_pair(slowed, plain, n_rounds=4, candidate_first=candidate_first):
        assert len(times.candidate_ns) == len(times.control_ns) == 4
        ratios = np.median(times.candidate_ns, axis=1) / np.median(times.control_ns, axis=1)
        assert math.log(np.median(ratios)) > math.log(2)  # five times, less what a busy machine takes away


def test_both_processes_leave_a_log_of_their_own(arm_of, tmp_path):
    found = time_pair(arm_of("candidate"), arm_of("control"), n_rounds=1)
    assert [times.batch_size for times in found] == [1, 4]
    assert sorted(path.name for path in (tmp_path / "logs").glob("*.log")) == ["candidate.log", "control.log"]


def test_arms_that_are_timed_otherwise_have_no_ratio(arm_of):
    with pytest.raises(MeasurementError, match="timed with window compute and end_to_end; there is no ratio"):
        time_pair(arm_of("candidate"), arm_of("control", window="end_to_end"), n_rounds=1)
    with pytest.raises(MeasurementError, match=r"at batch sizes \[1, 4\] and \[1\]"):
        time_pair(arm_of("candidate"), arm_of("control", batch_sizes=(1,)), n_rounds=1)


def test_an_arm_that_cannot_run_says_why(arm_of):
    with pytest.raises(Unsupported, match="mlp-fake-lacks-fp32"):
        time_pair(arm_of("candidate"), arm_of("control", backend="fake-lacks"), n_rounds=1)


def test_one_pair_of_processes_is_timed_as_it_is_and_slowed(arm_of):
    candidate, control = arm_of("candidate", batch_sizes=(4,)), arm_of("control", batch_sizes=(4,))
    plain, slowed = time_slowed_pair(candidate, control, (4.0,), n_rounds=4)
    ratios = [
        math.log(np.median(np.median(times.candidate_ns, axis=1) / np.median(times.control_ns, axis=1)))
        for (times,) in (plain, slowed)
    ]
    assert ratios[1] - ratios[0] > math.log(2)
