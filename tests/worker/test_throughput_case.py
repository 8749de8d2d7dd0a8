"""A case's throughput: each context is held against what was scored; a backend that cannot is told."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_as_scored import request_of, right

from harness.errors import MeasurementError
from harness.machine.clocks import BoundContext
from harness.measure.samples import OutputsFile
from harness.measure.throughput import measure_throughput
from harness.models.feeds import seeded_sample, stacked
from harness.specs import ModelInput, ModelOutput, ModelTensors, TimingPlan
from harness.worker import as_scored


class FakeEngine:
    concurrency, most_contexts = "fake", None

    def __init__(self, fault=None):
        self.levels, self.fault = [], fault

    def contexts(self, images, n_contexts):
        self.levels.append(n_contexts)
        return [
            BoundContext(run=lambda: None, outputs=lambda i=i: self.outputs(len(images), i)) for i in range(n_contexts)
        ]

    def outputs(self, batch, index):
        outputs = right(batch)
        return outputs[::-1] if self.fault == (batch, index) else outputs


class FakeTensorEngine:
    """Runs named inputs: the output is their sum over an axis; context `fault` gives another, or lacks it."""

    concurrency, most_contexts = "fake", None
    inputs = outputs = ()

    def __init__(self, fault=None, lacks=False):
        self.fault, self.lacks, self.bound = fault, lacks, []

    def run(self, feeds):
        return {"sum": feeds["x"].sum(axis=1)}

    def bind(self, feeds, *, batch_size, window, launch):
        raise AssertionError("nothing is timed alone")

    def bind_contexts(self, feeds, n_contexts, *, batch_size):
        self.bound.append((batch_size, n_contexts, feeds["x"].shape))
        return [BoundContext(run=lambda: None, outputs=lambda i=i: self.found(feeds, i)) for i in range(n_contexts)]

    def found(self, feeds, index):
        if index != self.fault:
            return self.run(feeds)
        return {} if self.lacks else {"sum": self.run(feeds)["sum"] + 1}


GRAPH = ModelTensors(
    inputs=(ModelInput(name="x", dtype="float32", shape=(1, 4), batch_axis=0, free_axes=(0,)),),
    outputs=(ModelOutput(name="sum", batch_axis=0),),
)


def graph_request(tmp_path, *, is_scored, offset=0.0):
    request = request_of(tmp_path, plan=TimingPlan(batch_sizes=(1, 3), throughput=True, concurrency=(1, 2)))
    request.model.tensors, request.has_data, request.data.score_images = GRAPH, False, 2
    request.build, request.outputs_path = SimpleNamespace(num_threads=1, cache_dir=""), ""
    if is_scored:
        request.outputs_path = str(tmp_path / "outputs.zip")
        with OutputsFile(Path(request.outputs_path), ("sum",)) as file:
            for index in range(2):
                sample = stacked(GRAPH, [seeded_sample(GRAPH, index)])
                file.add({"sum": sample["x"].sum(axis=1)[0] + np.float32(offset)})
    return request


def graph_throughput(request, monkeypatch, engine):
    case = SimpleNamespace(request=request, engine=engine, stage=lambda name: None, turn=lambda waiting: nullcontext())
    monkeypatch.setattr(as_scored, "measure_throughput", quick(measure_throughput))
    return as_scored.throughput_of(case, lambda done, total: None)


@pytest.mark.parametrize("is_scored", [True, False])
def test_a_model_of_any_graph_is_measured_on_its_samples(tmp_path, monkeypatch, is_scored):
    engine = FakeTensorEngine()
    report = graph_throughput(graph_request(tmp_path, is_scored=is_scored), monkeypatch, engine)
    assert [one.batch_size for one in report.found] == [1, 3]
    assert engine.bound == [(1, 1, (1, 4)), (1, 2, (1, 4)), (3, 1, (3, 4)), (3, 2, (3, 4))]


@pytest.mark.parametrize(("is_scored", "of"), [(True, "those that were scored"), (False, "those of a single run")])
def test_named_outputs_of_every_context_are_looked_at(tmp_path, monkeypatch, is_scored, of):
    told = f"at batch 1: its outputs of context 2 of 2 at once, before they were timed, are not {of}: sum: they differ"
    with pytest.raises(MeasurementError, match=told):
        graph_throughput(graph_request(tmp_path, is_scored=is_scored), monkeypatch, FakeTensorEngine(fault=1))


def test_all_contexts_of_other_outputs_than_were_scored_fail_the_case(tmp_path, monkeypatch):
    with pytest.raises(MeasurementError, match=r"context 1 of 1 at once, .* are not those that were scored"):
        graph_throughput(graph_request(tmp_path, is_scored=True, offset=1), monkeypatch, FakeTensorEngine())


def test_a_context_that_hides_an_output_fails_the_case(tmp_path, monkeypatch):
    with pytest.raises(MeasurementError, match=r"its outputs of context 1 of 1 at once, before .*, lack sum"):
        graph_throughput(graph_request(tmp_path, is_scored=True), monkeypatch, FakeTensorEngine(fault=0, lacks=True))


def test_an_engine_of_one_inference_of_named_inputs_at_a_time_is_told(tmp_path, monkeypatch):
    report = graph_throughput(graph_request(tmp_path, is_scored=True), monkeypatch, FakeEngine())
    assert (report.found, report.why_not) == ((), "ort does not say how its engines run at once")


def measured(tmp_path, monkeypatch, engine, concurrency=(1, 2)):
    plan = TimingPlan(batch_sizes=(1, 8), throughput=True, concurrency=concurrency)
    request = request_of(tmp_path, plan=plan)
    request.build = SimpleNamespace(num_threads=1, cache_dir="")
    case = SimpleNamespace(request=request, engine=engine, stage=lambda name: None, turn=lambda waiting: nullcontext())
    monkeypatch.setattr(as_scored, "measure_throughput", quick(measure_throughput))
    return as_scored.throughput_of(case, lambda done, total: None)


def quick(measure):
    return lambda *args, **options: measure(*args, **options, n_rounds=6, round_ns=100_000)


def test_every_batch_size_is_measured(tmp_path, monkeypatch):
    engine = FakeEngine()
    report = measured(tmp_path, monkeypatch, engine)
    assert [one.batch_size for one in report.found] == [1, 8]
    assert engine.levels == [1, 2, 1, 2]


def test_levels_follow_the_cpus_where_none_are_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(as_scored, "_n_cpus", lambda: 3)
    engine = FakeEngine()
    measured(tmp_path, monkeypatch, engine, concurrency=())
    assert engine.levels == [1, 2, 3] * 2


def test_one_context_of_other_outputs_fails_the_case_by_its_name(tmp_path, monkeypatch):
    told = "throughput at batch 8: its outputs of context 2 of 2 at once, before they were timed, are not those that"
    with pytest.raises(MeasurementError, match=told):
        measured(tmp_path, monkeypatch, FakeEngine(fault=(8, 1)))


def test_an_engine_that_runs_nothing_at_once_is_told(tmp_path, monkeypatch):
    report = measured(tmp_path, monkeypatch, SimpleNamespace(infer=np.zeros))
    assert report.found == ()
    assert report.why_not == "ort does not say how its engines run at once"


def test_images_that_nobody_scored_are_held_against_a_single_run(tmp_path, monkeypatch):
    plan = TimingPlan(batch_sizes=(8,), throughput=True, concurrency=(2,))
    request = request_of(tmp_path, plan=plan)
    request.outputs_path, request.build = "", SimpleNamespace(num_threads=1, cache_dir="")
    engine = FakeEngine(fault=(8, 1))
    engine.infer = lambda images: right(len(images))
    with pytest.raises(MeasurementError, match=r"context 2 of 2 at once, before .* are not those of a single run"):
        graph_throughput(request, monkeypatch, engine)
