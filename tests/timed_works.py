"""Timers, clocks and cards under control, for tests of what surrounds rounds."""

import numpy as np

from harness.machine.nvml import CardReading


class Clock:
    def __init__(self):
        self.now = self.cpu = 0

    def now_ns(self):
        return self.now

    def cpu_ns(self):
        return self.cpu


class Work:
    """A timer whose calls take what `call_ns(number of the call)` says, on `cores` CPUs."""

    clock, launch, gated, window, batch_size = "host", "call", False, "compute", 4

    def __init__(self, clock, call_ns, cores=1.0):
        self.world, self.call_ns, self.cores = clock, call_ns, cores
        self.calls_per_sample, self.n_calls = 1, 0

    def sample(self, n_samples):
        samples = np.empty(n_samples)
        for index in range(n_samples):
            took = 0
            for _ in range(self.calls_per_sample):
                took += self.call_ns(self.n_calls)
                self.n_calls += 1
            self.world.now += took
            self.world.cpu += int(took * self.cores)
            samples[index] = took / self.calls_per_sample
        return samples

    def enqueue_ns(self):
        return None


class FakeCard:
    """A card that says what it is given: readings one a round; energy and power by the world's clock."""

    uuid = "GPU-1"

    def __init__(self, readings=(), *, clock=None, watts=100.0, step_ns=50_000_000, has_counter=True, has_power=True):
        self._readings = iter(readings)
        self.world, self.watts, self.step_ns = clock, watts, step_ns
        self.has_counter, self.has_power = has_counter, has_power

    def reading(self):
        return next(self._readings, CardReading())

    def process_ids(self):
        return None

    def energy_mj(self):
        if not self.has_counter:
            return None
        return int(self.world.now // self.step_ns * self.step_ns * self.watts / 1e6) if self.step_ns else 7

    def power_w(self):
        return self.watts if self.has_power else None


SLOWED, FINE = CardReading(reasons=frozenset({"hw_thermal_slowdown"})), CardReading()
