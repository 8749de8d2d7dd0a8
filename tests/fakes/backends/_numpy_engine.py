"""An engine in NumPy for tests of what surrounds engines: ONNX's reference evaluator, faulty on request."""

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
from harness.backends._faults import asked, happen

from harness.errors import MeasurementError, Unsupported
from harness.machine.clocks import HostTimer
from harness.records import Availability, EngineFacts, Layer, Support, TensorSpec


class TorchVersion(str):
    """As PyTorch tells its version: a str, and yet of a type of its own."""


class NumpyEngine:
    """Evaluates the artifact node by node."""

    def __init__(self, artifact, fault="", cache_dir=""):
        from onnx.reference import ReferenceEvaluator

        self.evaluator = ReferenceEvaluator(artifact.onnx_path)
        self.input = TensorSpec(name="images", dtype="float32", shape=(None, 1, 28, 28))
        self.output = TensorSpec(name="probabilities", dtype="float32", shape=(None, 10))
        self.facts = EngineFacts(build_ns=1_000, engine_bytes=1_000, options={"fault": fault})
        self.fault, self.closed = fault, False
        if fault == "tells":
            self._tell_of_the_build(Path(cache_dir))

    def _tell_of_the_build(self, cache):
        mark = cache / "built"
        known = mark.exists()
        cache.mkdir(parents=True, exist_ok=True)
        mark.touch()
        self.facts = EngineFacts(
            build_ns=np.int64(1 if known else 1_000),
            versions={"runtime": TorchVersion("2.11.0+cu130")},
            cache="hit" if known else "miss",
            notes=("loaded",) if known else ("built",),
            warnings=() if known else ("the cached plan was damaged",),
        )

    def infer(self, images):
        if self.closed:
            raise MeasurementError("the engine is closed")
        if self.fault == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.fault == "hang":
            threading.Event().wait()
        if self.fault == "tells" and not self.facts.log_errors:
            notes = (*self.facts.notes, "noted while it ran")
            self.facts = replace(self.facts, notes=notes, log_errors=("an error while it ran",))
        outputs = np.array(self.evaluator.run(None, {self.evaluator.input_names[0]: images})[0])
        if self.fault == "loses":
            lost = np.floor(images.sum(axis=(1, 2, 3), dtype=np.float64) * 8) % 4 == 0  # by what the image is
            outputs[lost] = np.roll(outputs[lost], 1, axis=1)
        if self.fault == "slot_leak" and len(images) > 1:
            outputs[0] = outputs[1]
        if self.fault == "nan":
            outputs[-1, 3] = np.nan
        return outputs

    def infer_stream(self, batches):
        return map(self.infer, batches)

    def timer(self, images, *, window, launch):
        if self.fault == "loses":
            raise MeasurementError("the clock is broken")
        return HostTimer(lambda: self.infer(images), batch_size=len(images), window=window)

    def layers(self):
        self.infer(np.zeros((1, 1, 28, 28), np.float32))
        precision = "" if self.fault == "untold" else "fp32"
        return (Layer(name="classifier", kind="Gemm", precision=precision, time_ns=np.float32(1_000)),)

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class NumpyBackend:
    """Builds NumpyEngines."""

    install_hint = ""
    required_modules = ("numpy",)

    def __init__(self, name, fault="", usable=True):
        self.name, self.fault, self.usable = name, fault, usable

    def probe(self):
        if not self.usable:
            return Availability(
                backend=self.name, usable=False, reason="there is no such device", install_hint="buy one"
            )
        return Availability(
            backend=self.name, usable=True, versions={"numpy": np.__version__}, devices=("cpu",), device_names=("CPU",)
        )

    def supports(self, case):
        if self.fault == "refuses" and case.precision == "fp16":
            return Support(supported=False, reason="this device has no 16-bit arithmetic")
        return Support(supported=True)

    def build(self, artifact, *, device, batch_sizes, options, calibration=None):
        if self.fault == "lacks":
            raise Unsupported("this device has no kernel for Gemm")
        return NumpyEngine(artifact, self.fault, options.cache_dir)


class FaultyEngine(NumpyEngine):
    """A NumpyEngine that fails at one stage; see `_faults`."""

    def __init__(self, artifact):
        happen("load")
        super().__init__(artifact)
        self.was_profiled = False
        self.stage, self.wrong = asked()
        self.last = {}

    def infer(self, images, stage="invariance"):
        if stage == "invariance" and not self.was_profiled:  # a timed batch that is compared with its scores
            return super().infer(images)
        happen(stage)
        outputs = super().infer(images)
        return self._spoiled(outputs) if stage == self.stage else outputs

    def _spoiled(self, outputs):
        if self.wrong == "wrong_dtype":
            return outputs.astype(np.float64)
        if self.wrong == "wrong_shape":
            return outputs[:, :-1]
        if self.wrong == "nan":
            outputs[-1, 3] = np.nan
        if self.wrong == "permuted":
            return outputs[::-1].copy()
        if self.wrong == "stale":
            self.last[outputs.shape], outputs = outputs, self.last.get(outputs.shape, outputs)
        return outputs

    def infer_stream(self, batches):
        return (self.infer(images, "score") for images in batches)

    def timer(self, images, *, window, launch):
        timer = HostTimer(lambda: self.infer(images, "time"), batch_size=len(images), window=window)
        if self.stage == "time" and self.wrong == "constant_timer":
            timer.sample = lambda n: np.full(n, 1_000.0)
        if self.stage == "time" and self.wrong == "negative_timer":
            timer.sample = lambda n: np.full(n, -1.0)
        return timer

    def layers(self):
        happen("layers")
        layers = super().layers()
        self.was_profiled = True
        return layers

    def close(self):
        happen("close")
        super().close()


class FaultyBackend(NumpyBackend):
    """Builds FaultyEngines."""

    def probe(self):
        happen("probe")
        return super().probe()

    def supports(self, case):
        happen("supports")
        return super().supports(case)

    def build(self, artifact, *, device, batch_sizes, options, calibration=None):
        happen("build")
        return FaultyEngine(artifact)
