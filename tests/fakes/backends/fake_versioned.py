"""A fake backend of a runtime that each environment has its own version of: `fake_runtime`, and what it does."""

import os
import random
import time
from dataclasses import replace

from harness.backends._numpy_engine import NumpyBackend, NumpyEngine

from harness.errors import BuildError
from harness.machine.clocks import HostTimer
from harness.records import Support


class VersionedEngine(NumpyEngine):
    """A NumpyEngine that is spoiled or slowed down by the runtime's version, and is timed by a clock of its own.

    It is the machine's, put forward by 1 ms, give or take 1 %, at every call, unlike in every process; a call does no
    work, so that it hardly matters what else the machine does.
    """

    def __init__(self, artifact, runtime):
        super().__init__(artifact, getattr(runtime, "FAULT", ""))
        self.call_ns = 1e6 * getattr(runtime, "TIMES_SLOWER", 1)
        self.forward_ns, self.noise = 0, random.Random(os.getpid())
        self.facts = replace(self.facts, options={}, versions={"fake_runtime": runtime.__version__})

    def timer(self, images, *, window, launch):
        return HostTimer(self.pass_time, batch_size=len(images), window=window, now_ns=self.now_ns)

    def now_ns(self):
        return time.perf_counter_ns() + self.forward_ns

    def pass_time(self):
        self.forward_ns += round(self.call_ns * self.noise.gauss(1, 0.01))


class VersionedBackend(NumpyBackend):
    """Builds VersionedEngines."""

    required_modules = ("fake_runtime",)

    def probe(self):
        import fake_runtime

        return replace(super().probe(), versions={"fake_runtime": fake_runtime.__version__})

    def supports(self, case):
        import fake_runtime

        if case.precision.value in getattr(fake_runtime, "LACKS", ()):
            return Support(supported=False, reason=f"no {case.precision.value} kernels")
        return Support(supported=True)

    def build(self, artifact, *, device, batch_sizes, options, calibration=None):
        import fake_runtime

        if getattr(fake_runtime, "BREAKS", False):
            raise BuildError("the build broke")
        return VersionedEngine(artifact, fake_runtime)


BACKEND = VersionedBackend("fake-versioned")
