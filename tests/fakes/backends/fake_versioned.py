"""A fake backend of a runtime that each environment has its own version of: `fake_runtime`, and what it does."""

import time
from dataclasses import replace

from harness.backends._numpy_engine import NumpyBackend, NumpyEngine

from harness.errors import BuildError
from harness.machine.clocks import HostTimer
from harness.records import Support


class VersionedEngine(NumpyEngine):
    """A NumpyEngine that is spoiled or slowed down by the runtime's version, and is timed whatever it is."""

    def __init__(self, artifact, runtime):
        super().__init__(artifact, getattr(runtime, "FAULT", ""))
        self.slowdown_s = getattr(runtime, "SLOWDOWN_S", 0)
        self.facts = replace(self.facts, options={}, versions={"fake_runtime": runtime.__version__})

    def timer(self, images, *, window, launch):
        return HostTimer(lambda: self.infer(images), batch_size=len(images), window=window)

    def infer(self, images):
        if self.slowdown_s:
            time.sleep(self.slowdown_s)
        return super().infer(images)


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
