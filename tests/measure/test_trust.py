"""What bears on a time: warm-up until steady, CPU time, throttled rounds, doubts, energy; on clocks under control."""

from unittest.mock import Mock

import numpy as np
import pytest
from timed_works import FINE, SLOWED, Clock, FakeCard, Work

from harness.errors import MeasurementError
from harness.machine import conditions
from harness.measure import audits
from harness.measure.arms import LocalArm
from harness.measure.audits import audit_of
from harness.measure.energy import LOOP_NS, energy_of_arms
from harness.measure.latency import measure_latency
from harness.measure.timing import MIN_ROUNDS, check_clock, time_arms
from harness.measure.warm_up import BUDGET, warm_up
from harness.records import ClockAudit
from harness.specs import TimingPlan


def warmed(call_ns, warmup_ns=1_000_000):
    clock = Clock()
    return warm_up(Work(clock, call_ns), TimingPlan(warmup_ns=warmup_ns), clock.now_ns), clock.now


def test_a_steady_engine_is_warmed_up_as_long_as_asked():
    found, spent = warmed(lambda n: 10_000)
    assert (found.is_steady, found.call_ns) == (True, 10_000)
    assert spent == pytest.approx(1_000_000, rel=0.1)


def test_an_engine_that_still_gets_faster_is_warmed_up_for_longer():
    found, spent = warmed(lambda n: 20_000 if n < 42 else 10_000)
    assert (found.is_steady, found.call_ns) == (True, 10_000)
    assert 1_200_000 < spent < BUDGET * 1_000_000


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_a_time_that_never_settles_spends_the_budget(factor):
    found, spent = warmed(lambda n: int(10_000 * factor**n) if n < 200 else 2_000 + n, warmup_ns=400_000)
    assert not found.is_steady
    assert BUDGET * 400_000 <= spent < (BUDGET + 1) * 400_000 + 3 * 80_000


def test_noise_that_goes_up_and_down_is_no_trend():
    rng = np.random.default_rng(1)
    assert warmed(lambda n: int(rng.normal(10_000, 500)), warmup_ns=20_000_000)[0].is_steady


@pytest.mark.parametrize(("times", "is_steady"), [((9e8, 6e8, 6e8), True), ((9e8, 8e8, 6e8), False)])
def test_of_slow_calls_the_last_two_decide(times, is_steady):
    found, _ = warmed(lambda n: int(times[n % 3]))
    assert (found.n_calls, found.is_steady) == (3, is_steady)


def test_without_warm_up_nothing_is_decided():
    found, _ = warmed(lambda n: 1_000 * (n + 1), warmup_ns=0)
    assert (found.n_calls, found.is_steady) == (3, True)


def test_a_broken_clock_ends_the_warm_up():
    with pytest.raises(MeasurementError, match="positive"):
        warmed(lambda n: 0)


PLAN = TimingPlan(n_rounds=8, round_ns=100_000, warmup_ns=100_000)


def arms_of(*works, plan=PLAN, watch=None):
    clock = works[0].world
    clocks = {"now_ns": clock.now_ns, "cpu_now_ns": clock.cpu_ns}
    arms = [LocalArm(work, plan, watch=watch, min_ns=1, **clocks) for work in works]
    return time_arms(arms, plan, now_ns=clock.now_ns)[0]


@pytest.mark.parametrize("cores", [0.0, 1.0, 3.5])
def test_cpu_time_is_of_all_threads_and_per_call(cores):
    clock = Clock()
    (arm,) = arms_of(Work(clock, lambda n: 10_000, cores))
    assert arm.cpu_ns == pytest.approx(10_000 * cores)
    assert arm.wall_ns == pytest.approx(10_000)


def test_each_arm_has_its_own_cpu_time():
    clock = Clock()
    ours, theirs = arms_of(Work(clock, lambda n: 10_000, 2.0), Work(clock, lambda n: 30_000, 1.0))
    assert (ours.cpu_ns, theirs.cpu_ns) == (pytest.approx(20_000), pytest.approx(30_000))


def test_a_time_that_does_not_settle_is_flagged():
    clock = Clock()
    (arm,) = arms_of(Work(clock, lambda n: int(1_000 * 1.05 ** min(n, 90))))
    assert arm.flags == ("not_steady",)


@pytest.mark.parametrize(
    ("slowed", "n_kept", "flags"),
    [
        ((), 8, ()),
        ((2,), 7, ()),
        ((2, 5), MIN_ROUNDS, ()),
        ((2, 5, 7), 8, ("throttled",)),
        (range(8), 8, ("throttled",)),
    ],
)
def test_throttled_rounds_are_discarded_of_both_arms_while_enough_are_left(slowed, n_kept, flags):
    clock = Clock()
    watch = conditions.Watch(FakeCard([SLOWED if n in slowed else FINE for n in range(8)]))
    ours, theirs = arms_of(Work(clock, lambda n: 10_000 + n), Work(clock, lambda n: 20_000 + n), watch=watch)
    for arm in (ours, theirs):
        assert len(arm.rounds_ns) == len(arm.starts_ns) == n_kept
        assert (arm.n_discarded, arm.flags) == (8 - n_kept, flags)
    # Calls are counted through, so a gap shows where a round was taken out.
    steps = np.diff(ours.rounds_ns[:, 0])
    assert np.count_nonzero(steps > 1.5 * steps.min()) == (0 if flags else len([n for n in slowed if 0 < n < 7]))


def test_a_latency_carries_what_was_seen(monkeypatch):
    audit = ClockAudit(clock="host", quantum_ns=10.0, empty_ns=20.0, drift=0.0)
    monkeypatch.setitem(audits._AUDITS, "host", audit)
    sources = conditions.Sources(cpu=lambda family: None, allowed=lambda: 1, load=lambda: 0.5, n_cpus=2)
    watch = conditions.Watch(FakeCard([SLOWED] + [FINE] * 20), sources=sources, spinning=("OMP_WAIT_POLICY=active",))
    clock = Clock()
    work = Work(clock, lambda n: 10_000 + n % 7)
    plan = TimingPlan(n_rounds=8, round_ns=100_000, warmup_ns=0)
    # On its own clock alone: by the machine's, calls of a sample can come to a multiple of 7, all samples alike.
    arm = LocalArm(work, plan, watch=watch, now_ns=clock.now_ns, cpu_now_ns=clock.cpu_ns, min_ns=1)
    found = measure_latency([arm], plan)
    assert {"pinned", "spinning_threads"} <= set(found.flags)
    assert "throttled" not in found.flags
    assert (found.n_discarded_rounds, found.conditions.card.uuid, found.audit) == (1, "GPU-1", audit)
    assert found.conditions.card.throttle_reasons == ("hw_thermal_slowdown",)
    assert found.resolution_ns == 10 / found.calls_per_sample
    assert found.energy is None  # not asked for


def test_a_clock_is_audited_once_a_process(monkeypatch):
    monkeypatch.setattr(audits, "_AUDITS", {})
    work = Work(Clock(), lambda n: 10_000)
    first = audit_of(work)
    assert first is not None
    assert audit_of(Work(Clock(), lambda n: 1)) is first
    work.clock = "sundial"
    assert audit_of(work) is None


# -- energy


def energy(clock, works, card, n_loops=3):
    watch = conditions.Watch(card)
    return energy_of_arms([LocalArm(work, PLAN, watch=watch, now_ns=clock.now_ns) for work in works], n_loops)


@pytest.mark.parametrize("watts", [100.0, 350.0])
def test_energy_is_counted_from_step_to_step(watts):
    clock = Clock()
    ours, theirs = Work(clock, lambda n: 1_000_000), Work(clock, lambda n: 2_500_000)
    ours.calls_per_sample = 3
    found = energy(clock, [ours, theirs], FakeCard(clock=clock, watts=watts))
    assert (found.source, len(found.mj_per_image), len(found.reference_mj_per_image)) == ("counter", 3, 3)
    assert found.mj_per_image == pytest.approx([watts * 1.0 / 4] * 3, rel=0.03)  # W x ms / 4 images
    assert found.reference_mj_per_image == pytest.approx([watts * 2.5 / 4] * 3, rel=0.03)
    assert clock.now > 6 * LOOP_NS
    assert (ours.calls_per_sample, theirs.calls_per_sample) == (3, 1)


@pytest.mark.parametrize("card", [{"has_counter": False}, {"step_ns": 0}])
def test_without_a_counter_that_moves_the_power_is_taken(card):
    clock = Clock()
    found = energy(clock, [Work(clock, lambda n: 1_000_000)], FakeCard(clock=clock, **card))
    assert found.source == "power"
    assert found.mj_per_image == pytest.approx([25.0] * 3, rel=0.03)
    assert found.reference_mj_per_image == ()


def test_a_card_that_says_nothing_has_no_energy():
    clock = Clock()
    works = [Work(clock, lambda n: 1_000_000)]
    assert energy(clock, works, FakeCard(clock=clock, has_counter=False, has_power=False)) is None
    assert energy(clock, works, None) is None
    assert energy(clock, works, FakeCard(clock=clock), n_loops=0) is None


@pytest.mark.parametrize("shape", [(6, 3), (18,), (20, 50)])
def test_times_that_are_all_alike_are_refused_however_few_a_verdict_may_rest_on(shape):
    facts = Mock(clock="host", batch_size=1)
    with pytest.raises(MeasurementError, match="it stands still, or its timer returns a constant"):
        check_clock(facts, np.full(shape, 1_000.0))
    check_clock(facts, np.full(17, 1_000.0))  # too few for an interval
    samples = np.full(shape, 1_000.0)
    samples.flat[-1] += 1
    check_clock(facts, samples)
