"""Cold costs of a worker: the runtime's import, and the first inference of a process, once and before anything else."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest

from harness.records import EngineFacts, TensorSpec
from harness.specs import ModelInput, ModelTensors
from harness.worker import cold
from harness.worker.measuring import MEASUREMENTS
from harness.worker.service import Service


class Engine:
    """Notes what it runs."""

    output = None

    def __init__(self, *, batch=None, first_inference_ns=None):
        self.input = TensorSpec(name="in", dtype="float32", shape=(batch, 4))
        self.facts = EngineFacts(build_ns=1, first_inference_ns=first_inference_ns)
        self.ran = []

    def infer(self, images):
        self.ran.append(images.shape)
        return np.zeros((len(images), 10), np.float32)


@pytest.fixture
def start(monkeypatch):
    """Return a ColdStart of a backend that needs some modules."""

    def made(*modules, loads=lambda: None):
        def load(name):
            loads()
            return SimpleNamespace(name=name, required_modules=modules)

        monkeypatch.setattr(cold, "load_backend", load)
        return cold.ColdStart("mine")

    return made


def test_the_first_inference_is_timed_once(start):
    process, engine = start(), Engine()
    assert process.first_inference_ns is None
    process.run_once(engine, 3)
    first = process.first_inference_ns
    assert first > 0
    process.run_once(engine, 3)
    assert (engine.ran, process.first_inference_ns) == ([(3, 4)], first)


def test_an_engine_of_a_fixed_batch_runs_that(start):
    engine = Engine(batch=8)
    start().run_once(engine, 1)
    assert engine.ran == [(8, 4)]


def test_a_model_of_any_graph_runs_its_named_inputs(start):
    class AnyGraph(Engine):
        inputs = outputs = ()

        def bind(self, feeds, *, batch_size, window, launch):
            raise AssertionError

        def run(self, feeds):
            self.ran.append({name: value.shape for name, value in feeds.items()})
            return {}

    tensors = ModelTensors(
        inputs=(ModelInput(name="ids", dtype="int64", shape=(1, 7), batch_axis=0, free_axes=(0,), low=0, high=9),),
        outputs=(),
    )
    process, engine = start(), AnyGraph()
    process.run_once(engine, 2, tensors)
    assert engine.ran == [{"ids": (2, 7)}]
    assert process.first_inference_ns > 0


def test_nothing_that_is_not_the_first_is_called_so(start):
    told, engine = start(), Engine(first_inference_ns=7)  # its build ran it
    told.run_once(engine, 1)
    assert (engine.ran, told.first_inference_ns) == ([], None)
    left, engine = start(), Engine()
    left.leave()
    left.run_once(engine, 1)
    assert (engine.ran, left.first_inference_ns) == ([], None)


def test_a_runtime_that_was_there_before_has_no_import_time(start):
    assert start("numpy").import_ns is None
    assert start().import_ns is None
    assert start("no_such_runtime").import_ns is None


def test_a_runtime_that_comes_with_the_backends_file_is_timed_with_it(start, tmp_path, monkeypatch):
    (tmp_path / "comes_along.py").write_text("import time; time.sleep(0.01)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "comes_along", raising=False)
    assert start("comes_along", loads=lambda: __import__("comes_along")).import_ns >= 10_000_000


class Case:
    """An open case that notes the order of what is done to it."""

    request, engine, batch_sizes = SimpleNamespace(case="case", model=SimpleNamespace(tensors=None)), None, (1,)

    def __init__(self, *, is_timed_afresh):
        self.is_timed_afresh, self.done = is_timed_afresh, []
        self.cold = self

    def __getattr__(self, name):
        return lambda *_: self.done.append(name)


@pytest.mark.parametrize("is_timed_afresh", [False, True])
@pytest.mark.parametrize("call", MEASUREMENTS)
def test_the_first_inference_comes_before_everything_but_times_of_a_fresh_process(monkeypatch, call, is_timed_afresh):
    case, service = Case(is_timed_afresh=is_timed_afresh), Service(lambda name: None)
    service._open = case
    monkeypatch.setitem(MEASUREMENTS, call, lambda case, progress: case.done.append("measured"))
    service.measure(call, case.request, None)
    assert case.done == ["leave" if call == "time" and is_timed_afresh else "run_once", "measured"]


def test_the_first_inference_comes_before_the_reference_is_built():
    case, service = Case(is_timed_afresh=True), Service(lambda name: None)
    service._open = case
    service.build_reference(case.request, None)
    assert case.done == ["stage", "run_once", "build_reference"]


def test_what_a_conversion_imports_is_no_part_of_the_runtime(start, tmp_path, monkeypatch):
    (tmp_path / "lib_of_mine").mkdir()
    (tmp_path / "lib_of_mine/__init__.py").write_text("")
    (tmp_path / "lib_of_mine/tools.py").write_text("import time; time.sleep(0.05)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    process = start("lib_of_mine")
    with process.converting():
        importlib.import_module("lib_of_mine.tools")
    assert 0 < process.import_ns < 50_000_000
    with start("numpy").converting():  # of a runtime that is there already
        pass
