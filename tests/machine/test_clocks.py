"""The host clock: injected, so that every number below is exact."""

import itertools

import numpy as np
import pytest

from harness.errors import MeasurementError
from harness.machine.clocks import (
    CUDA_EVENT_RESOLUTION_NS,
    MAX_CALLS_PER_SAMPLE,
    HostTimer,
    ReportedTimer,
    calibrate_calls,
    clock_resolution_ns,
)


class Clock:
    """A clock that stands still until the work moves it."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now

    def work(self, *durations_ns):
        durations = itertools.chain(durations_ns, itertools.repeat(durations_ns[-1]))

        def call():
            self.now += next(durations)

        return call


def test_a_sample_is_the_mean_over_its_calls():
    clock = Clock()
    timer = HostTimer(clock.work(10, 30, 10, 30, 10, 30, 5, 35, 20), batch_size=4, window="compute", now_ns=clock)
    np.testing.assert_array_equal(timer.sample(4), [10, 30, 10, 30])
    timer.calls_per_sample = 2
    np.testing.assert_array_equal(timer.sample(3), [20, 20, 20])


def test_a_timer_says_what_it_times():
    timer = HostTimer(lambda: None, batch_size=7, window="end_to_end")
    assert (timer.batch_size, timer.window, timer.clock, timer.launch, timer.gated) == (
        7,
        "end_to_end",
        "host",
        "call",
        False,
    )
    assert timer.enqueue_ns() is None


def test_a_reported_timer_adds_up_what_the_runtime_reports():
    durations = iter([5.0, 7.0, 1.0, 3.0])
    timer = ReportedTimer(lambda: next(durations), batch_size=1, window="compute")
    timer.calls_per_sample = 2
    np.testing.assert_array_equal(timer.sample(2), [6.0, 2.0])
    assert timer.enqueue_ns() is None


@pytest.mark.parametrize(("call_ns", "min_ns", "calls"), [(100, 1_000, 10), (100, 1_001, 11), (5_000, 1_000, 1)])
def test_calls_are_calibrated_to_the_shortest_sample(call_ns, min_ns, calls):
    clock = Clock()
    timer = HostTimer(clock.work(call_ns), batch_size=1, window="compute", now_ns=clock)
    timer.calls_per_sample = 50
    assert calibrate_calls(timer, min_ns) == calls
    assert timer.calls_per_sample == calls
    assert timer.sample(1)[0] * calls >= min_ns


def test_the_fastest_probe_decides():
    clock = Clock()
    timer = HostTimer(clock.work(900, 100, 500), batch_size=1, window="compute", now_ns=clock)
    assert calibrate_calls(timer, 1_000) == 10


def test_a_timer_that_takes_fewer_calls_is_believed():
    class AtMost(HostTimer):
        @property
        def calls_per_sample(self):
            return min(self._calls, 4)

        @calls_per_sample.setter
        def calls_per_sample(self, calls):
            self._calls = calls

    clock = Clock()
    timer = AtMost(clock.work(100), batch_size=1, window="compute", now_ns=clock)
    assert calibrate_calls(timer, 1_000) == timer.calls_per_sample == 4


def test_a_clock_that_stands_still_is_refused():
    timer = HostTimer(lambda: None, batch_size=1, window="compute", now_ns=lambda: 5)
    with pytest.raises(MeasurementError, match="positive"):
        calibrate_calls(timer, 1_000)
    with pytest.raises(MeasurementError, match="did not move"):
        clock_resolution_ns(now_ns=lambda: 5)


def test_too_many_calls_are_refused():
    clock = Clock()
    timer = HostTimer(clock.work(1), batch_size=1, window="compute", now_ns=clock)
    with pytest.raises(MeasurementError, match="something other than the engine"):
        calibrate_calls(timer, MAX_CALLS_PER_SAMPLE + 1)


def test_the_resolution_is_the_smallest_step():
    steps = itertools.cycle([0, 0, 40, 70])
    readings = itertools.accumulate(steps)
    assert clock_resolution_ns(now_ns=lambda: next(readings)) == 40.0


def test_the_resolution_of_this_machine_is_a_time():
    assert 0 < clock_resolution_ns() < 1e6


def test_other_clocks():
    assert clock_resolution_ns("cuda_event") == CUDA_EVENT_RESOLUTION_NS
    with pytest.raises(MeasurementError, match="sundial"):
        clock_resolution_ns("sundial")
