"""What was there and is gone: stored baselines say which cases a run should have had."""

from dataclasses import replace

import pytest
from comparison_records import ENVIRONMENT, accuracy_with, latency_with, record_with

from harness.gates import JudgeOptions, judge_records
from harness.options.values import HarnessOptions
from harness.records import Status
from harness.report.model import build_report
from harness.report.standing import Standing
from harness.run.expected import ExpectedCases
from harness.run.plan import Plan
from harness.specs import DatasetRequest, ModelSpec, Precision, ShippedEngine
from harness.store.baselines import BaselineStore
from harness.store.selecting import prune_baselines
from tests.render_records import make_run

NOT_INSTALLED = "openvino is not installed"


class Machine:
    """This machine, whatever backend asks."""

    def of(self, backend, device):
        return ENVIRONMENT


def model(name):
    return ModelSpec(
        name=name,
        onnx_path=f"{name}.onnx",
        sha256="0" * 64,
        input_name="x",
        input_shape=(1, 28, 28),
        output_name="y",
        num_classes=10,
    )


def plan_of(*records, models=("lenet5",), left_out=(("openvino", NOT_INSTALLED),), device_names=()):
    return Plan(
        cases=tuple(record.case for record in records),
        models={name: model(name) for name in models},
        backends=(),
        left_out=dict(left_out),
        device_names=device_names,
        of_models_folder=frozenset(models),
    )


def measured(backend="ort", **changes):
    """A record with predictions and times, of a model of the models folder."""
    changes = {"latencies": (latency_with(),), "is_of_models_folder": True, **changes}
    return record_with(accuracy_with(n=300), backend=backend, **changes)


@pytest.fixture
def store(tmp_path):
    return BaselineStore(tmp_path / "baselines")


def accept(store, *records):
    for record in records:
        store.queue(record, accepted_by="me", accepted_at="2026-11-20T01:00:00Z")
    store.flush(is_clean=True)


def night(store, records, plan, baseline="auto", **options):
    """Return the judged records of a run with these options."""
    asked = HarnessOptions(baseline=baseline, baseline_dir=str(store.root), **options)
    found = ExpectedCases(plan, asked, Machine()).completed(records, recorded_at="2026-11-21T01:00:00Z")
    return judge_records(found, {}, JudgeOptions(gates=frozenset({"presence"}), baseline=baseline))


def absent(judged):
    return {record.case.id: record for record in judged if record.absent}


def test_a_backend_that_is_gone_is_red_where_its_times_were_accepted(store):
    here, gone = measured(), measured("openvino")
    accept(store, here, gone)
    (record,) = absent(night(store, [here], plan_of(here))).values()
    assert record.status is Status.FAILED
    assert record.reason == (
        f"expected, did not run: backend openvino cannot run here: {NOT_INSTALLED}; "
        "its baseline holds predictions and times"
    )
    assert record.verdicts[0].advice.endswith("harness baseline prune --case lenet5-openvino-fp32")


def test_for_a_newcomer_it_is_told_and_does_not_fail_unless_baselines_are_required(store):
    here, gone = measured(), measured("openvino", environment=replace(ENVIRONMENT, n_cpus=64))
    accept(store, here, gone)
    (told,) = absent(night(store, [here], plan_of(here))).values()
    assert told.status is Status.ABSENT
    assert told.baseline_parts == ("predictions",)
    (failed,) = absent(night(store, [here], plan_of(here), baseline="require")).values()
    assert failed.status is Status.FAILED


def test_an_unsupported_case_with_a_baseline_is_not_just_unsupported(store):
    was = measured("openvino")
    accept(store, was)
    now = replace(was, status=Status.NOT_JUDGED, accuracy=None, latencies=(), unsupported="no such operator")
    (judged,) = night(store, [now], plan_of(now, left_out=()))
    assert judged.status is Status.FAILED
    assert judged.reason.startswith("expected, did not run: no such operator;")
    other = replace(now, case=replace(now.case, backend="trt"))
    unsupported, _ = night(store, [other], plan_of(other, left_out=()))
    assert (unsupported.status, unsupported.verdicts) == (Status.UNSUPPORTED, ())


def test_a_model_that_is_gone_is_missed_by_those_who_ask_for_all(store):
    here, gone = measured(), measured()
    gone = replace(gone, case=replace(gone.case, model="mlp"))
    own = replace(gone, case=replace(gone.case, model="mine"), is_of_models_folder=False)
    accept(store, here, gone, own)
    missed = absent(night(store, [here], plan_of(here)))
    assert list(missed) == ["mlp-ort-fp32"], "a model that was given by its path is not part of a run of all"
    assert "model mlp is not among the models any more" in missed["mlp-ort-fp32"].reason
    assert not absent(night(store, [here], plan_of(here), models=("lenet5",)))


def given(name):
    """A record of a file that was quantized, or built, before it came."""
    record = measured(precision=Precision.INT8)
    return replace(record, case=replace(record.case, model=name, recipe="given"))


def test_a_quantized_model_that_is_gone_is_missed_as_given(store):
    here = measured()
    accept(store, here, given("mlp"))
    assert list(absent(night(store, [here], plan_of(here)))) == ["mlp-ort-int8-given"]


def test_of_a_quantized_model_what_is_given_is_missed_and_its_earlier_float_file_too(store):
    fp32, int8 = measured(), given("lenet5")
    accept(store, fp32, int8)
    plan = plan_of()
    plan = replace(plan, models={"lenet5": replace(plan.models["lenet5"], is_quantized=True)})
    missed = absent(night(store, [], plan))
    assert list(missed) == ["lenet5-ort-fp32", "lenet5-ort-int8-given"]
    assert "lenet5 is a quantized file now, which runs as given alone" in missed["lenet5-ort-fp32"].reason


def test_an_engine_named_like_a_model_asks_for_none_of_the_models_cases(store):
    fp32, other, engine = measured(), measured(), given("lenet5")
    other = replace(other, case=replace(other.case, model="mlp"))
    accept(store, fp32, other, engine)
    plan = plan_of()
    shipped = ShippedEngine(backend="ort", precision=Precision.INT8)
    plan = replace(plan, models={"lenet5": replace(plan.models["lenet5"], engine=shipped)})
    assert list(absent(night(store, [], plan, engines=("x/lenet5.ort",)))) == ["lenet5-ort-int8-given"]


@pytest.mark.parametrize(
    "options",
    [
        {"backends": ("ort",)},
        {"precisions": (Precision.FP16,)},
        {"device": "cuda:0"},
    ],
)
def test_what_was_not_asked_is_not_missed(store, options):
    here, gone = measured(), measured("openvino")
    accept(store, here, gone)
    assert not absent(night(store, [here], plan_of(here), **options))


def test_another_recipe_or_data_set_is_not_missed(store):
    here, gone = measured(), measured("openvino", precision=Precision.INT8, latencies=(), weight_bits=8)
    gone = replace(gone, case=replace(gone.case, recipe="qdq-entropy"))
    accept(store, here, gone)
    assert not absent(night(store, [here], plan_of(here)))
    assert list(absent(night(store, [here], plan_of(here), recipes=("qdq-entropy",)))) == [gone.case.id]
    others = DatasetRequest(name="mnist", split="test")
    assert not absent(night(store, [here], plan_of(here), recipes=("qdq-entropy",), data=others))


def test_a_gpu_is_missed_only_where_it_is_there(store):
    here = measured()
    environment = replace(ENVIRONMENT, device="cuda:0", device_name="NVIDIA H100 80GB HBM3")
    gpu = measured("trt", environment=environment)
    gpu = replace(gpu, case=replace(gpu.case, device="cuda:0"))
    accept(store, here, gpu)
    left_out = (("trt", "tensorrt is not installed"),)
    assert not absent(night(store, [here], plan_of(here, left_out=left_out)))
    names = (environment.device_name,)
    (missed,) = absent(night(store, [here], plan_of(here, left_out=left_out, device_names=names))).values()
    assert missed.environment.device_type == environment.device_name


def test_a_report_has_a_row_for_it_and_its_headline_too(store):
    here, gone = measured(), measured("openvino")
    accept(store, here, gone)
    run, _ = make_run(1)
    report = build_report(run, night(store, [here], plan_of(here)))
    assert report.rows[0].standing is Standing.FAILED
    assert "expected, did not run: backend openvino cannot run here" in report.sentence
    newcomer = measured("openvino", environment=replace(ENVIRONMENT, n_cpus=64))
    prune_baselines(store, backends=["openvino"])
    accept(store, newcomer)
    report = build_report(run, night(store, [here], plan_of(here)))
    assert report.rows[0].standing is Standing.DID_NOT_RUN
    assert report.tone == "warn"
    assert "1 expected and did not run" in report.sentence


def test_a_case_without_a_baseline_is_nobody_s_loss(store):
    here = measured()
    assert not absent(night(store, [here], plan_of(here)))
