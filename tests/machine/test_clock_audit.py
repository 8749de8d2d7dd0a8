"""A clock's audit: its quantum, whatever it is rounded to; its drift; and a quantum that grows with the run."""

import numpy as np
import pytest

from harness.errors import MeasurementError
from harness.machine.clock_audit import (
    CLOCK_COARSENS,
    CLOCK_DRIFT,
    COARSE_CLOCK,
    audited,
    clock_flags,
    quantum_ns,
    quantum_of_samples,
)
from harness.machine.clocks import CUDA_EVENT_RESOLUTION_NS, HostTimer, host_drift
from harness.records import ClockAudit


class World:
    """Time that passes by `step_ns` with every look at a clock."""

    def __init__(self, step_ns, start_ns=0):
        self.ns, self.step_ns = start_ns, step_ns

    def exact(self):
        self.ns += self.step_ns
        return self.ns

    def ticking(self, tick_ns):
        return int(self.exact() // tick_ns * tick_ns)

    def float_ms(self):
        """Milliseconds since the start as a 32-bit float, as in a trace of trtexec."""
        return float(np.float32(self.exact() / 1e6)) * 1e6


def timer_of(now_ns):
    return HostTimer(lambda: None, batch_size=1, window="compute", now_ns=now_ns)


@pytest.mark.parametrize(
    ("step_ns", "tick_ns", "found"),
    [
        (30, 1_000, 1_000),  # coarser than a reading takes
        (50, 125 / 3, 41),  # Apple silicon: 41 or 42 is one step
        (100, 100, 100),
        (70, 25, 25),
    ],
)
def test_the_quantum_is_the_clocks_own(step_ns, tick_ns, found):
    world = World(step_ns)
    empty = timer_of(lambda: world.ticking(tick_ns)).empty_ns(500)
    assert quantum_ns(empty) == pytest.approx(found, abs=1.01)


def test_a_fine_clock_is_finer_than_its_reading():
    assert quantum_ns(np.array([38.0, 39.0, 40.0, 41.0, 55.0])) == 1


def test_equal_steps_are_no_finer_than_themselves():
    assert quantum_ns(np.full(100, 32.0)) == 32
    assert quantum_ns(np.array([1984.0, 2016.0, 2048.0])) == pytest.approx(32, abs=0.1)


def test_a_clock_that_stands_still_is_an_error():
    with pytest.raises(MeasurementError, match="0 ns in each of 5 empty measurements"):
        quantum_ns(np.zeros(5))


class Stub:
    def __init__(self, empty, drift=0.0):
        self._empty, self._drift = np.asarray(empty, float), drift

    def empty_ns(self, n):
        return self._empty

    def drift(self, span_ns):
        return self._drift


def test_an_audit_names_what_it_found():
    audit = audited(Stub([20, 40, 40, 60], 2e-4), "host")
    assert (audit.quantum_ns, audit.empty_ns, audit.drift, audit.against) == (20, 40, 2e-4, "monotonic_raw")
    events = audited(Stub([0, 0, 0]), "cuda_event")
    assert (events.quantum_ns, events.against) == (CUDA_EVENT_RESOLUTION_NS, "host")
    assert events.span_ns >= 100_000_000


@pytest.mark.parametrize("rate", [1.0, 1.01, 0.998])
def test_the_rate_against_another_clock(rate):
    world = World(20)
    found = host_drift(1_000_000, now_ns=lambda: int(world.exact() * rate), other_ns=world.exact)
    assert found == pytest.approx(rate - 1, abs=1e-4)


def samples_of(timer, work, n_rounds, n_samples=20):
    rounds = []
    for _ in range(n_rounds):
        work()
        rounds.append(timer.sample(n_samples))
    return np.stack(rounds)


@pytest.mark.parametrize("clock", ["exact", "float_ms"])
@pytest.mark.parametrize("minutes", [0, 1, 30])
def test_a_quantum_that_grows_with_the_run_is_found(clock, minutes):
    """A 32-bit float of milliseconds has steps of 4 us after a minute, of 125 us after half an hour."""
    world = World(100)
    read = getattr(world, clock)
    rng = np.random.default_rng(2)

    def call():
        world.ns += int(rng.normal(50_000, 2_000))

    timer = HostTimer(call, batch_size=1, window="compute", now_ns=read)
    audit = audited(timer, "host")
    world.ns += minutes * 60_000_000_000
    samples = np.stack([timer.sample(40) for _ in range(6)])
    later = timer.empty_ns(500)
    by_timer = clock_flags(audit, samples, quantum_ns(later) if later.any() else None)
    by_samples = clock_flags(audit, samples, None)
    is_coarser = clock == "float_ms" and minutes > 0
    assert (CLOCK_COARSENS in by_samples) == is_coarser
    assert (CLOCK_COARSENS in by_timer) == is_coarser


def test_a_step_is_seen_only_where_samples_repeat():
    rng = np.random.default_rng(0)
    fine = rng.normal(50_000, 2_000, 200)
    assert quantum_of_samples(fine) is None
    assert quantum_of_samples(np.round(fine / 500) * 500) == 500
    assert quantum_of_samples(np.full(50, 7.0)) is None


@pytest.mark.parametrize(
    ("quantum", "drift", "flags"),
    [
        (100.0, 0.0, ()),
        (400.0, 0.0, ()),
        (600.0, 0.0, (COARSE_CLOCK,)),
        (100.0, 5e-4, ()),
        (100.0, -2e-3, (CLOCK_DRIFT,)),
        (100.0, None, ()),
    ],
)
def test_doubts_of_a_clock_have_names(quantum, drift, flags):
    audit = ClockAudit(clock="host", quantum_ns=quantum, empty_ns=0, drift=drift)
    assert clock_flags(audit, np.full((6, 5), 50_000.0), None) == flags


def test_this_machines_clock_passes_its_audit():
    audit = audited(timer_of(__import__("time").perf_counter_ns), "host")
    assert 0 < audit.quantum_ns < 1e6
    assert audit.empty_ns < 1e6
    assert abs(audit.drift) < 1e-2
