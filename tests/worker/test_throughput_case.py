"""A case's throughput: each context is held against what was scored; a backend that cannot is told."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from test_as_scored import request_of, right

from harness.errors import MeasurementError
from harness.machine.clocks import BoundContext
from harness.specs import TimingPlan
from harness.worker import as_scored


class FakeEngine:
    concurrency = "fake"

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


def measured(tmp_path, monkeypatch, engine, concurrency=(1, 2)):
    monkeypatch.setattr("harness.measure.throughput.N_ROUNDS", 6)
    plan = TimingPlan(batch_sizes=(1, 8), throughput=True, concurrency=concurrency)
    request = request_of(tmp_path, plan=plan)
    request.build = SimpleNamespace(num_threads=1)
    case = SimpleNamespace(request=request, engine=engine, stage=lambda name: None, turn=lambda waiting: nullcontext())
    monkeypatch.setattr(as_scored, "measure_throughput", quick(as_scored.measure_throughput))
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
