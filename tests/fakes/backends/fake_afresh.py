"""A backend whose times depend on what its process did before, and which tells a file what each process does.

NN_FAKE_LOG names the file: one JSON line an event. NN_FAKE_FAULT is "PRECISION:FAULT", of `_faults` or `wrong`: what an
engine of that precision does when it is timed.
"""

import hashlib
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from harness.backends._faults import FAULTS, asked
from harness.backends._numpy_engine import NumpyBackend, NumpyEngine

from harness.machine.clocks import HostTimer, outputs_of
from harness.records import EngineFile


def tell(what, precision, **more):
    line = json.dumps({"pid": os.getpid(), "what": what, "precision": precision, **more})
    with open(os.environ["NN_FAKE_LOG"], "a") as log:
        log.write(line + "\n")


class AfreshTimer(HostTimer):
    precision = ""

    def sample(self, n_samples):
        stage, fault = asked()
        if stage == self.precision and fault in FAULTS:
            FAULTS[fault]()
        started = time.monotonic_ns()
        samples = super().sample(n_samples)
        tell("sample", self.precision, n=n_samples, from_ns=started, to_ns=time.monotonic_ns())
        return samples


class AfreshEngine(NumpyEngine):
    def __init__(self, artifact, file, cache):
        super().__init__(artifact)
        self.precision = artifact.precision.value
        self.facts = replace(self.facts, file=file, cache=cache)

    def infer(self, images):
        tell("infer", self.precision)
        return super().infer(images)

    def timer(self, images, *, window, launch):
        buffer = np.zeros((len(images), 10), np.float32)
        wrong = np.float32(0.5 if asked() == (self.precision, "wrong") else 0)

        def call():
            buffer[:] = super(AfreshEngine, self).infer(images) + wrong

        timer = AfreshTimer(call, batch_size=len(images), window=window, outputs=outputs_of(buffer))
        timer.precision = self.precision
        return timer

    def close(self):
        if not self.closed:
            tell("close", self.precision)
        super().close()


class AfreshBackend(NumpyBackend):
    """Engines are files in the cache; a later build of the same artifact loads them."""

    is_timed_afresh = True

    def build(self, artifact, *, device, batch_sizes, options, calibration=None):
        path = Path(options.cache_dir) / f"engine-{artifact.sha256}.onnx"
        is_known = path.exists() and not options.rebuild
        tell("hit" if is_known else "build", artifact.precision.value)
        if not is_known:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(artifact.onnx_path, path)
        file = EngineFile(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        return AfreshEngine(artifact, file, "hit" if is_known else "rebuilt" if options.rebuild else "miss")

    def load(self, file, artifact, *, device, options):
        tell("load", artifact.precision.value)
        return AfreshEngine(replace(artifact, onnx_path=file.path), file, "none")


BACKEND = AfreshBackend("fake-afresh")
