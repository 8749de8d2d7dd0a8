"""Two engines in processes of their own, timed in turn: which is slower, and that nothing else is compared."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from harness.errors import MeasurementError, Unsupported
from harness.measure.arms import RoundTimes, TimerFacts, WarmedUp
from harness.protocols import no_progress
from harness.records import PackedArray, Support
from harness.run.case_worker import WorkerSettings
from harness.run.pairing import Arm, time_pair, time_slowed_pair
from harness.specs import BuildOptions, Case, DatasetRequest, Precision, StageLimits, TimingPlan
from harness.worker.requests import CaseRequest, Prepared

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


@pytest.fixture
def fake_workers(monkeypatch):
    """Processes that take 100 ns a call, and longer by what is planted in them; the order of their rounds is kept."""
    order = []

    class FakeWorker:
        is_lost = False

        def __init__(self, *, label, **settings):
            self.label, self.slowdown = label, 0.0

        def call(self, name, value, kind):
            if name == "prepare":
                return Prepared(support=Support(supported=True))
            if name == "open_timers":
                self.slowdown = value.slowdown or 0.0
                return tuple(map(facts_of, value.batch_sizes))
            if name != "time_step":
                return None
            if value.step == "warm_up":
                return WarmedUp(facts=facts_of(value.batch_size), n_calls=3, is_steady=True, sample_ns=100.0)
            assert value.step == "round"
            order.append(self.label.split("(")[1][:-1])
            samples = PackedArray.of(np.full(3, 100.0 * (1 + self.slowdown)))
            return RoundTimes(samples_ns=samples, cpu_ns=100, wall_ns=100)

        def close(self, *, politely):
            pass

    def facts_of(size):
        return TimerFacts(
            batch_size=size,
            clock="host",
            launch="call",
            gated=False,
            window="compute",
            calls_per_sample=1,
            samples_per_round=3,
        )

    monkeypatch.setattr("harness.run.arms.Worker", FakeWorker)
    return order


@pytest.mark.parametrize("candidate_first", [True, False])
def test_a_planted_slowdown_is_on_the_right_side(arm_of, fake_workers, candidate_first):
    slowed, plain = arm_of("candidate", slowdown=0.5), arm_of("control", slowdown=0.0)
    for times in time_pair(slowed, plain, n_rounds=4, candidate_first=candidate_first):
        assert times.candidate_ns.shape == times.control_ns.shape == (4, 3)
        assert times.candidate_ns == pytest.approx(1.5 * times.control_ns)


def test_rounds_alternate_and_so_does_who_is_first(arm_of, fake_workers):
    time_pair(arm_of("A", batch_sizes=(1,)), arm_of("B", batch_sizes=(1,)), n_rounds=3)
    assert fake_workers == ["B", "A", "A", "B", "B", "A", "A", "B"]  # the first of each is not kept
    fake_workers.clear()
    time_pair(arm_of("A", batch_sizes=(1,)), arm_of("B", batch_sizes=(1,)), n_rounds=3, candidate_first=False)
    assert fake_workers == ["A", "B", "B", "A", "A", "B", "B", "A"]


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


def test_one_pair_of_processes_is_timed_as_it_is_and_slowed(arm_of, fake_workers):
    candidate, control = arm_of("candidate", batch_sizes=(4,)), arm_of("control", batch_sizes=(4,))
    plain, slowed = time_slowed_pair(candidate, control, (4.0,), n_rounds=4)
    ratios = [
        math.log(np.median(np.median(times.candidate_ns, axis=1) / np.median(times.control_ns, axis=1)))
        for (times,) in (plain, slowed)
    ]
    assert ratios[1] - ratios[0] > math.log(2)
