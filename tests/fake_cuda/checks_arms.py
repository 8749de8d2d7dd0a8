"""A case of TensorRT in workers on the fake driver: each engine is loaded and timed alone in a process of its own."""

import os
import sys
from pathlib import Path

import pytest

from harness.protocols import no_progress
from harness.run.case import CaseRun
from harness.run.case_worker import WorkerSettings
from harness.specs import BuildOptions, Case, DatasetRequest, ModelSpec, Precision, StageLimits, TimingPlan, Tolerance
from harness.worker.requests import CaseRequest

HERE = Path(__file__).parent


@pytest.fixture
def case(tmp_path, monkeypatch, write_model):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(HERE), os.environ["PYTHONPATH"])))
    monkeypatch.setenv("NN_FAKE_LOG", str(tmp_path / "told"))
    model = ModelSpec(
        name="net",
        onnx_path=str(write_model(classes=10)),
        sha256="a" * 64,
        input_name="in",
        input_shape=(1, 28, 28),
        output_name="out",
        num_classes=10,
        output_kind="logits",
    )
    request = CaseRequest(
        case=Case(model="net", backend="fake-trt", precision=Precision.FP16, recipe="cast", device="cuda:0"),
        model=model,
        data=DatasetRequest(score_images=40),
        build=BuildOptions(cache_dir=str(tmp_path / "cache")),
        timing=TimingPlan(batch_sizes=(1, 4), n_rounds=6, round_ns=100_000, warmup_ns=0),
        score_batch=4,
        outputs_path=str(tmp_path / "outputs.f32"),
    )
    settings = WorkerSettings(
        log_dir=tmp_path / "logs",
        python=sys.executable,
        extension_dirs=(str(HERE / "extensions"),),
        limits=StageLimits(),
        progress=lambda label: no_progress,
    )
    run = CaseRun(request, name="case", tolerance=Tolerance(), settings=settings)
    yield run
    run.close()


def test_both_engines_are_timed_in_fresh_processes_by_events(case, tmp_path):
    case.accuracy()
    for latency in case.latencies():
        assert (latency.clock, latency.launch, latency.gated) == ("cuda_event", "graph", True)
        assert (latency.reference_launch, latency.reference_gated) == ("graph", True)
        assert latency.rounds_ns.array() == pytest.approx(50_000, rel=1e-3)
        assert latency.reference_rounds_ns.array() == pytest.approx(50_000, rel=1e-3)
        assert (latency.void, latency.audit.clock) == ("", "cuda_event")
        assert latency.enqueue_ns > 0
    pids, *told = zip(*(line.split() for line in (tmp_path / "told").read_text().splitlines()), strict=True)
    assert list(zip(*told, strict=True)) == [
        ("build:miss", "fp16"),
        ("build:miss", "fp32"),
        ("load", "fp16"),
        ("load", "fp32"),
    ]
    assert (pids[0] == pids[1], len(set(pids))) == (True, 3)
