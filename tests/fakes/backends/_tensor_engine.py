"""NumpyEngines of any graph: named inputs and outputs, faulty on request while samples are run."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from harness.backends._faults import asked, happen
from harness.backends._numpy_engine import FaultyBackend, FaultyEngine, NumpyBackend, NumpyEngine

from harness.errors import MeasurementError
from harness.machine.clocks import HostTimer
from harness.records import EngineFile, TensorSpec
from harness.store.cache import sha256_of_file

FAILING_RUN = 3  # of a process: the first is the cold one, the second gives what a stale answer repeats
DTYPES = {"FLOAT": "float32", "INT64": "int64"}


def specs(values):
    """Return the inputs or outputs that a graph declares; every axis is free."""
    from onnx import TensorProto

    for value in values:
        kind = value.type.tensor_type
        shape = (None,) * len(kind.shape.dim)
        yield TensorSpec(name=value.name, dtype=DTYPES[TensorProto.DataType.Name(kind.elem_type)], shape=shape)


class TensorEngine(NumpyEngine):
    """Runs named inputs."""

    def __init__(self, artifact, *, is_faulty):
        super().__init__(artifact)
        graph = self.evaluator.proto_.graph
        self.inputs, self.outputs = tuple(specs(graph.input)), tuple(specs(graph.output))
        self.is_faulty, self.n_runs, self.last = is_faulty, 0, {}

    def run(self, feeds):
        if self.closed:
            raise MeasurementError("the engine is closed")
        self.n_runs += 1
        found = self.evaluator.run(None, dict(feeds))
        outputs = {spec.name: np.array(array) for spec, array in zip(self.outputs, found, strict=True)}
        if not self.is_faulty:
            return outputs
        if self.n_runs == FAILING_RUN:
            happen("samples")
        stage, wrong = asked()
        return self._spoiled(outputs, wrong) if stage == "samples" and self.n_runs > 1 else outputs

    def _spoiled(self, outputs, wrong):
        ((name, array),) = outputs.items()
        if wrong == "wrong_dtype":
            return {name: array.astype(np.float64)}
        if wrong == "wrong_shape":
            return {name: array[:, :-1]}
        if wrong == "fewer_samples":
            return {name: array[:-1]}
        if wrong == "wrong_name":
            return {f"{name}_": array}
        if wrong == "nan":
            array[-1, -1] = np.nan
        if wrong == "permuted":
            return {name: array[::-1].copy()}
        if wrong == "stale":
            self.last[array.shape], array = array, self.last.get(array.shape, array)
        return {name: array}

    def bind(self, feeds, *, batch_size, window, launch):
        return HostTimer(lambda: self.run(feeds), batch_size=batch_size, window=window)

    def layers(self):
        return ()


class AnyGraph:
    """A mixin of backends: engines of any graph too."""

    is_faulty = False

    def build(self, artifact, *, device, batch_sizes, options, calibration=None):
        if options.tensors is not None:
            happen("build") if self.is_faulty else None
            return TensorEngine(artifact, is_faulty=self.is_faulty)
        return super().build(artifact, device=device, batch_sizes=batch_sizes, options=options, calibration=calibration)


class HonestGraphs(AnyGraph, NumpyBackend):
    pass


class FaultyGraphs(AnyGraph, FaultyBackend):
    is_faulty = True


class FaultyAfresh(FaultyBackend):
    """Each engine is timed in a process of its own, which loads what another has built."""

    is_timed_afresh = True

    def build(self, artifact, *, device, batch_sizes, options, calibration=None):
        path = Path(options.cache_dir) / f"faulty-{artifact.sha256}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(artifact.onnx_path, path)
        engine = FaultyEngine(artifact)
        engine.facts = replace(engine.facts, file=EngineFile(path=str(path), sha256=sha256_of_file(path)))
        return engine

    def load(self, file, artifact, *, device, options):
        return FaultyEngine(replace(artifact, onnx_path=file.path))
