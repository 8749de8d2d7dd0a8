"""What an engine says of itself while it runs reaches the record, whichever tests were selected."""

import runpy
import sys
from pathlib import Path

import pytest

from harness.errors import HarnessError, Unsupported
from harness.gates import JudgeOptions, judge_records
from harness.machine.environment import collect_environment
from harness.options.values import HarnessOptions
from harness.protocols import no_progress
from harness.records import Availability, EngineFacts, Status
from harness.run.case import CaseRun
from harness.run.case_worker import WorkerSettings, facts_together
from harness.run.plan import Plan
from harness.run.session import RunSession
from harness.specs import BuildOptions, Case, DatasetRequest, Precision, StageLimits, TimingPlan, Tolerance
from harness.worker.requests import CaseRequest

FAKES = str(Path(__file__).parents[1] / "fakes")
SUITES = Path(__file__).parents[2] / "suites"


@pytest.fixture
def case(bundled, tmp_path, request):
    backend, precision, recipe = getattr(request, "param", "fake-tells"), Precision.FP32, "none"
    if not isinstance(backend, str):
        backend, precision, recipe = backend
    request = CaseRequest(
        case=Case(model="mlp", backend=backend, precision=precision, recipe=recipe),
        model=bundled("mlp"),
        data=DatasetRequest(score_images=150),
        build=BuildOptions(cache_dir=str(tmp_path / "cache")),
        timing=TimingPlan(batch_sizes=(1,), n_rounds=6, round_ns=100_000, warmup_ns=0),
        outputs_path=str(tmp_path / "outputs.f32"),
    )
    settings = WorkerSettings(
        log_dir=tmp_path,
        python=sys.executable,
        extension_dirs=(FAKES,),
        limits=StageLimits(),
        progress=lambda label: no_progress,
    )
    run = CaseRun(request, name="case", tolerance=Tolerance(), settings=settings)
    yield run
    run.close()


def facts_of(case):
    return case.record(environment=collect_environment(), recorded_at="", command="").engine


def test_before_it_runs_only_the_build_is_known(case):
    case.prepare()
    assert facts_of(case).notes == ("built",)


def test_what_a_backend_tells_in_types_of_its_own_arrives(case):
    """PyTorch's version is a str of a class of its own, and a number may be NumPy's: neither is JSON's."""
    case.prepare()
    assert (facts_of(case).versions, facts_of(case).build_ns) == ({"runtime": "2.11.0+cu130"}, 1_000)
    assert [layer.time_ns for layer in case.layers().layers] == [1_000.0]


@pytest.mark.parametrize("case", ["fake-untold"], indirect=True)
def test_a_runtime_that_does_not_tell_its_types_has_them_said_to_be_unknown(case):
    runpy.run_path(str(SUITES / "test_precision.py"))["test_effective_precision"](case)
    record = case.record(environment=collect_environment(), recorded_at="", command="")
    assert record.effective_precision.main == "unknown"
    assert "100% in unknown" in record.effective_precision.note


def test_an_error_that_differs_from_the_first_is_kept_beside_it(case):
    for text in ("the times are void", "the times are void", "its baseline is damaged", "it does not close"):
        case.note_error(HarnessError(text))
    record = case.record(environment=collect_environment(), recorded_at="", command="")
    assert (record.error, record.later_error) == ("the times are void", "its baseline is damaged")


@pytest.mark.parametrize("ask", [CaseRun.accuracy, CaseRun.latencies, CaseRun.invariance, CaseRun.layers])
def test_what_is_noted_while_it_runs_is_in_the_record(case, ask):
    ask(case)
    facts = facts_of(case)
    assert facts.notes == ("built", "noted while it ran")
    assert facts.log_errors == ("an error while it ran",)


@pytest.mark.parametrize("case", ["fake-lacks"], indirect=True)
def test_what_only_the_build_finds_unsupported_is_a_skip_with_its_reason(case):
    for ask in (CaseRun.prepare, CaseRun.accuracy, CaseRun.latencies):
        with pytest.raises(Unsupported, match="mlp-fake-lacks-fp32: this device has no kernel for Gemm"):
            ask(case)
    assert (case.is_unsupported, case.failure) == (True, None)
    record = case.record(environment=collect_environment(), recorded_at="", command="")
    assert (record.status, record.unsupported) == (Status.NOT_JUDGED, "this device has no kernel for Gemm")
    (judged,) = judge_records([record], {}, JudgeOptions())
    assert (judged.status, judged.reason) == (Status.UNSUPPORTED, "this device has no kernel for Gemm")


def test_a_second_worker_adds_to_what_the_first_one_said(case):
    case.prepare()
    case.close()
    case.accuracy()
    case.close()
    facts = facts_of(case)
    assert facts.cache == "miss"  # it was built in this run; the second worker found it
    assert facts.build_ns == 1_000
    assert facts.notes == ("built", "loaded", "noted while it ran")
    assert facts.warnings == ("the cached plan was damaged",)


@pytest.mark.parametrize(
    ("first", "now", "most"),
    [
        ((4, 4), (1, 1), (4, 4)),
        ((1, 1), (4, 2), (4, 2)),
        ((2, None), (None, 3), (2, 3)),
        ((None, None), (None, None), (None, None)),
    ],
)
def test_the_most_there_were_is_of_all_workers(first, now, most):
    before, after = (EngineFacts(build_ns=1, n_contexts=c, n_engines=e, host_peak_bytes=c) for c, e in (first, now))
    facts = facts_together(before, after)
    assert (facts.n_contexts, facts.n_engines) == most
    assert facts.host_peak_bytes == most[0]


def test_a_run_is_on_its_own_device(bundled, tmp_path):
    found = Availability(
        backend="fake-tells",
        usable=True,
        devices=("cuda:0", "cuda:1"),
        device_names=("GPU A", "GPU B"),
        driver="580.65.06",
        cuda_version="13.0",
        compute_capabilities=("9.0", "10.0"),
    )
    case = Case(model="mlp", backend="fake-tells", precision=Precision.FP32, recipe="none", device="cuda:1")
    plan = Plan(cases=(case,), models={"mlp": bundled("mlp")}, backends=(found,), left_out={})
    session = RunSession(HarnessOptions(report_dir=str(tmp_path), root=str(tmp_path)), plan, command="", gates=())
    environment = session.run.environment
    assert (environment.device_name, environment.compute_capability) == ("GPU B", "10.0")
    assert (environment.driver, environment.cuda_version) == ("580.65.06", "13.0")
