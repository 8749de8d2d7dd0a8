"""Workers survive their engines: crash, hang, and errors come back as one reason each."""

import gc
import weakref
from contextlib import closing
from pathlib import Path

import pytest

from harness.errors import ConfigError, WorkerDied
from harness.records import Accuracy, Availability, EngineFacts, InvarianceCheck, Latency
from harness.specs import BuildOptions, Case, DatasetRequest, Precision, StageLimits, TimingPlan
from harness.worker.process import Worker
from harness.worker.requests import CaseRequest, LayerReport, Prepared

FAKES = str(Path(__file__).parents[1] / "fakes")


@pytest.fixture
def worker(tmp_path):
    made = Worker(log_path=tmp_path / "worker.log", extension_dirs=[FAKES], label="case under test")
    yield made
    made.close()


@pytest.fixture
def request_of(bundled, tmp_path):
    def make(backend, precision=Precision.FP32):
        return CaseRequest(
            case=Case(model="mlp", backend=backend, precision=precision, recipe="none"),
            model=bundled("mlp"),
            data=DatasetRequest(score_images=150),
            build=BuildOptions(cache_dir=str(tmp_path / "cache")),
            timing=TimingPlan(batch_sizes=(1, 4), n_rounds=6, round_ns=100_000, warmup_ns=0),
            outputs_path=str(tmp_path / "outputs.f32"),
        )

    return make


def test_a_case_from_model_to_layers(worker, request_of, tmp_path):
    request = request_of("fake-honest")
    prepared = worker.call("prepare", request, Prepared)
    assert prepared.engine.build_ns == 1_000
    seen = []
    accuracy = worker.call("score", request, Accuracy, progress=lambda done, total: seen.append((done, total)))
    assert accuracy.n_images == 150
    assert seen[-1] == (150, 150)
    assert (tmp_path / "outputs.f32").stat().st_size == 150 * 10 * 4
    latencies = worker.call("time", request, tuple[Latency, ...])
    assert [latency.batch_size for latency in latencies] == [1, 4]
    assert latencies[0].reference_rounds_ns is None
    report = worker.call("layers", request, LayerReport)
    assert report.effective_precision.main == "fp32"
    checks = worker.call("invariance", request, tuple[InvarianceCheck, ...])
    assert checks
    assert all(check.largest_gap <= check.accepted_gap for check in checks)


def test_cold_costs_of_a_real_runtime_are_told_once(worker, request_of):
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime")
    request = request_of("ort")
    prepared = worker.call("prepare", request, Prepared)
    assert prepared.engine.import_ns > 1_000_000, "hundreds of files and a library of megabytes"
    assert prepared.engine.batch_sizes == (1, 4, 100)
    assert prepared.engine.first_inference_ns is None, "preparing runs nothing"
    worker.call("score", request, Accuracy)
    facts = worker.call("facts", request, EngineFacts)
    assert facts.first_inference_ns > 0
    assert facts.load_ns is None, "it loads no engine: it opens the model file"
    worker.call("invariance", request, tuple[InvarianceCheck, ...])
    again = worker.call("facts", request, EngineFacts)
    assert (again.first_inference_ns, again.import_ns) == (facts.first_inference_ns, facts.import_ns)


def test_a_slot_leak_is_caught(worker, request_of):
    request = request_of("fake-slot-leak")
    worker.call("prepare", request, Prepared)
    checks = worker.call("invariance", request, tuple[InvarianceCheck, ...])
    assert any(check.largest_gap > check.accepted_gap for check in checks)


def test_a_crash_is_told_with_its_signal(worker, request_of):
    request = request_of("fake-segfault")
    worker.call("prepare", request, Prepared)
    sentence = r"case under test: crashed \(SIGSEGV\) during score; last log line: prepare: .*; stack: infer \(_numpy"
    with pytest.raises(WorkerDied, match=sentence):
        worker.call("score", request, Accuracy)


@pytest.mark.parametrize(
    "limits", [StageLimits(all_s=0.3), StageLimits(all_s=500, by_stage=(("score", 0.3),))], ids=["all", "stage"]
)
def test_a_hang_is_ended(tmp_path, request_of, limits):
    request = request_of("fake-hang")
    told = r"no sign of life for 0.3 s during score; killed it; last log line: prepare: .*; stack: infer "
    with closing(
        Worker(log_path=tmp_path / "worker.log", extension_dirs=[FAKES], label="case under test", limits=limits)
    ) as worker:
        worker._limits = StageLimits()
        worker.call("prepare", request, Prepared)
        worker._limits = limits
        with pytest.raises(WorkerDied, match=told + r".*--stage-timeout=score=SECONDS sets the limit; its output is"):
            worker.call("score", request, Accuracy)


def test_an_error_keeps_its_class_and_sentence(worker, request_of):
    with pytest.raises(ConfigError, match="no backend is called 'fake-missing'"):
        worker.call("prepare", request_of("fake-missing"), Prepared)


def test_the_worker_goes_on_after_an_error(worker, request_of):
    with pytest.raises(ConfigError):
        worker.call("prepare", request_of("fake-missing"), Prepared)
    assert worker.call("prepare", request_of("fake-honest"), Prepared).support.supported


def test_a_case_that_is_not_open_is_refused(worker, request_of):
    with pytest.raises(ConfigError, match="is not open"):
        worker.call("score", request_of("fake-honest"), Accuracy)


def test_probing_tells_why_a_backend_is_absent(worker):
    found = worker.call("probe", ("fake-honest", "fake-absent"), tuple[Availability, ...])
    assert [a.usable for a in found] == [True, False]
    assert found[1].reason == "there is no such device"


def test_an_interpreter_that_is_not_there_is_an_error():
    with pytest.raises(ConfigError, match="no worker could be started"):
        Worker(python="/nowhere/python")


def test_nothing_is_kept_of_a_worker_that_has_ended():
    kept = []
    for _ in range(2):
        with closing(Worker(label="case")) as worker:
            worker.call("probe", (), tuple[()])
            kept += [weakref.ref(worker._group), weakref.ref(worker._gateway)]
    del worker
    gc.collect()
    assert [reference() for reference in kept] == [None] * len(kept)
