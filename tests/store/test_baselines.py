"""Baseline files: round trip, damage, schemas, who may write them, and what is unused."""

import json
import os
from dataclasses import replace

import pytest

from harness.errors import BaselineError, ConfigError
from harness.records import EngineFacts, Outcome, Status, Verdict
from harness.specs import Precision, Tolerance
from harness.store.baselines import (
    BASELINE_SCHEMA,
    BaselineStore,
    baseline_from_json,
    baseline_from_record,
    device_slug,
    json_from_baseline,
    line_from_baseline,
    text_from_baseline,
)
from tests.comparison_records import ENVIRONMENT, accuracy_with, latency_with, pair_with, record_with

BY = {"accepted_by": "A. Reviewer", "accepted_at": "2026-11-21T02:00:00Z"}
MEND = "harness baseline accept latest --case lenet5-ort-fp32"


@pytest.fixture
def store(tmp_path):
    return BaselineStore(tmp_path / "baselines")


def written(store, record):
    store.queue(record, **BY)
    (path,) = store.flush(is_clean=True)
    return path


def test_a_baseline_survives_the_disk(store):
    record = record_with(accuracy_with(wrong=range(70), other=range(70, 75)), latencies=(latency_with(),))
    path = written(store, record)
    assert path.parts[-2:] == ("cpu", "lenet5-ort-fp32.json")
    loaded = store.load(record.case, record.environment)
    assert loaded == baseline_from_record(record, **BY)
    subject = loaded.subject()
    assert (subject.hits == record.accuracy.hits()).all()
    assert (subject.wrong_predictions[:75] == record.accuracy.predictions.array()[:75]).all()
    verdicts = store.judge(record, tolerance=Tolerance())
    assert [(v.gate, v.code) for v in verdicts] == [("baseline", "identical"), ("latency", "same_speed")]
    assert "the baseline of 2026-11-21" in verdicts[0].message


def test_options_are_kept_and_a_file_without_them_blames_none(store):
    accuracy = accuracy_with(wrong=[3])
    plain, other = (
        record_with(accuracy, engine=EngineFacts(build_ns=1, options={"tf32": tf32})) for tf32 in ("off", "on")
    )
    path = written(store, plain)
    assert "engine options differ: tf32 off -> on" in store.judge(other, tolerance=Tolerance())[0].message
    document = json.loads(path.read_text())
    del document["engine_options"]  # as files of before
    path.write_text(json.dumps(document))
    assert "options" not in store.judge(other, tolerance=Tolerance())[0].message


def test_the_file_is_small_and_its_numbers_stand_on_one_line(store):
    record = record_with(accuracy_with(wrong=range(0, 10_000, 100)), latencies=(latency_with(),))
    text = written(store, record).read_text()
    assert len(text) < 8_000
    assert text.endswith("}\n")
    assert any(line.count("100.0") == 20 for line in text.splitlines())
    assert json.loads(text)["scores"]["n_right"] == 9_900
    assert list(json.loads(text))[:3] == ["schema", "case", "accepted_by"]


def test_the_same_record_gives_the_same_bytes():
    record = record_with(accuracy_with(wrong=[1, 2]), latencies=(latency_with(),))
    assert json_from_baseline(baseline_from_record(record, **BY)) == json_from_baseline(
        baseline_from_record(record, **BY)
    )


def test_a_regression_against_the_file_is_found(store):
    before, after = pair_with(lost=11, gained=0)
    written(store, record_with(before))
    verdict = store.judge(record_with(after), tolerance=Tolerance())[0]
    assert (verdict.outcome, verdict.is_failure, verdict.n_lost) == (Outcome.REGRESSED, True, 11)
    assert [(case_id, v[0].outcome) for case_id, v in store.diff([record_with(after), record_with()])] == [
        ("lenet5-ort-fp32", Outcome.REGRESSED)
    ]


def test_a_missing_baseline_is_a_verdict(store):
    (verdict,) = store.judge(record_with(accuracy_with()), tolerance=Tolerance())
    assert verdict.outcome is Outcome.NO_BASELINE
    assert not verdict.is_failure


def test_a_model_that_is_only_timed_has_a_baseline_too(store):
    record = record_with(latencies=(latency_with(),))
    written(store, record)
    assert [v.gate for v in store.judge(record, tolerance=Tolerance())] == ["latency"]


def damage(text, name):
    document = json.loads(text)
    if name == "truncated":
        return text[: len(text) // 2]
    if name == "empty":
        return ""
    if name == "list":
        return "[]"
    if name == "no schema":
        del document["schema"]
    if name == "missing key":
        del document["environment"]
    if name == "count":
        document["scores"]["n_right"] += 1
    if name == "bits":
        packed = document["scores"]["top1_hits"]
        packed["data"] = packed["data"][:-8] + "AAAAAAA="
    if name == "base64":
        document["scores"]["top1_hits"]["data"] = "!!!"
    if name == "wrong classes":
        document["scores"]["wrong_predictions"] = document["scores"]["top1_hits"]
    if name == "other case":
        document["case"]["backend"] = "openvino"
    return json.dumps(document)


@pytest.mark.parametrize(
    "name",
    [
        "truncated",
        "empty",
        "list",
        "no schema",
        "missing key",
        "count",
        "bits",
        "base64",
        "wrong classes",
        "other case",
    ],
)
def test_a_damaged_file_is_an_error_that_names_the_mending_command(store, name):
    record = record_with(accuracy_with(wrong=range(40)))
    path = written(store, record)
    path.write_text(damage(path.read_text(), name))
    with pytest.raises(BaselineError) as error:
        store.judge(record, tolerance=Tolerance())
    assert str(path) in str(error.value)
    assert MEND in str(error.value)


def test_a_newer_schema_is_refused(store):
    record = record_with(accuracy_with())
    path = written(store, record)
    document = {**json.loads(path.read_text()), "schema": BASELINE_SCHEMA + 1}
    path.write_text(json.dumps(document))
    with pytest.raises(BaselineError, match="newer than this harness knows"):
        store.load(record.case, record.environment)


def test_an_older_schema_is_upgraded(store):
    record = record_with(accuracy_with(wrong=[3]), latencies=(latency_with(),))
    path = written(store, record)
    document = json.loads(path.read_text())
    document["schema"] = 0
    del document["scores"]["outputs"]
    path.write_text(json.dumps(document))
    loaded = store.load(record.case, record.environment)
    assert (loaded.schema, loaded.scores.outputs) == (1, None)
    assert store.judge(record, tolerance=Tolerance())[0].code == "identical"
    del document["scores"]
    path.write_text(json.dumps(document))
    with pytest.raises(BaselineError, match="damaged"):
        store.load(record.case, record.environment)


def test_only_a_clean_run_writes(store):
    record = record_with(accuracy_with())
    store.queue(record, **BY)
    assert store.flush(is_clean=False) == ()
    assert store.paths() == ()
    assert store.flush(is_clean=True) == (), "what a red run queued must not come back later"


@pytest.mark.parametrize("status", [Status.FAILED, Status.ERROR, Status.UNSUPPORTED])
def test_only_a_passed_case_is_queued(store, status):
    with pytest.raises(BaselineError, match="only a passed case"):
        store.queue(record_with(accuracy_with(), status=status), **BY)


def test_nothing_measured_is_no_baseline(store):
    with pytest.raises(BaselineError, match="nothing was measured"):
        store.queue(record_with(), **BY)


def failed_record(gate):
    verdict = Verdict(gate=gate, outcome=Outcome.REGRESSED, code="x", message="worse", is_failure=True)
    return record_with(accuracy_with(wrong=range(50)), status=Status.FAILED, verdicts=(verdict,))


def test_accept_takes_what_failed_only_against_its_baseline(store):
    written(store, record_with(accuracy_with()))
    (path,) = store.accept([failed_record("baseline")], **BY)
    assert store.judge(failed_record("baseline"), tolerance=Tolerance())[0].code == "identical"
    assert path in store.paths()


@pytest.mark.parametrize(
    ("record", "match"),
    [
        (failed_record("fp32"), "failed gate fp32"),
        (record_with(accuracy_with(), status=Status.FAILED, reason="precision"), "failed \\(precision\\)"),
        (record_with(status=Status.ERROR, reason="died"), "died"),
    ],
)
def test_accept_refuses_other_failures_and_then_writes_nothing(store, record, match):
    good = record_with(accuracy_with(), backend="openvino")
    with pytest.raises(BaselineError, match=match):
        store.accept([good, record], case_ids=[good.case.id, record.case.id], **BY)
    assert store.paths() == ()


def test_accept_knows_the_cases_of_the_run(store):
    with pytest.raises(ConfigError, match="it has: lenet5-ort-fp32"):
        store.accept([record_with(accuracy_with())], case_ids=["lenet5-trt-fp32"], **BY)
    with pytest.raises(BaselineError, match="nothing to accept"):
        store.accept([record_with(status=Status.UNSUPPORTED)], **BY)


def test_unused_baselines_are_listed_and_pruned(store):
    used, unused = record_with(accuracy_with()), record_with(accuracy_with(), backend="openvino")
    gpu = replace(
        used, case=replace(used.case, device="cuda:0"), environment=replace(ENVIRONMENT, device_name="NVIDIA H200")
    )
    # A precision that this run left out, as a run by default leaves out BF16.
    left_out = replace(used, case=replace(used.case, precision=Precision.BF16, recipe="cast"))
    for record in (used, unused, gpu, left_out):
        written(store, record)
    assert [path.stem for path in store.unused([used])] == ["lenet5-openvino-fp32"]
    assert [path.stem for path in store.prune([used])] == ["lenet5-openvino-fp32"]
    assert [path.parent.name for path in store.paths()] == ["cpu", "cpu", "nvidia-h200"]
    assert len(store.load_all()) == 3
    other = replace(left_out, case=replace(left_out.case, backend="openvino"))
    assert [path.stem for path in store.unused([used, other])] == ["lenet5-ort-bf16"]


def test_devices_have_readable_folders():
    case = record_with().case
    assert device_slug(case, ENVIRONMENT) == "cpu"
    gpu = replace(case, device="cuda:1")
    assert device_slug(gpu, replace(ENVIRONMENT, device_name="NVIDIA GeForce RTX 4090")) == "nvidia-geforce-rtx-4090"
    with pytest.raises(BaselineError, match="unknown"):
        device_slug(gpu, replace(ENVIRONMENT, device_name=""))


def test_an_interrupted_write_leaves_the_old_file(store, monkeypatch):
    path = written(store, record_with(accuracy_with()))
    before = path.read_bytes()

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    store.queue(record_with(accuracy_with(wrong=[1])), **BY)
    with pytest.raises(ConfigError, match="No space left"):
        store.flush(is_clean=True)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_baseline_is_told_in_words():
    record = record_with(accuracy_with(wrong=range(70)), precision=Precision.INT8, latencies=(latency_with(),))
    text = text_from_baseline(baseline_from_record(record, **BY))
    line = line_from_baseline(baseline_from_record(record, **BY))
    assert line == "cpu/lenet5-ort-int8: top-1 99.30 %, 2026-11-21 by A. Reviewer"
    assert "lenet5-ort-int8: accepted by A. Reviewer at 2026-11-21T02:00:00Z" in text
    assert "top-1 9930 of 10000 (99.30 %)" in text
    assert "batch 1: 0.1 us" in text
    assert "onnxruntime 1.31.1" in text


def test_text_of_another_place_is_damaged():
    with pytest.raises(BaselineError, match=r"here.json is damaged"):
        baseline_from_json(b'{"schema": true}', where="here.json", case_id="lenet5-ort-fp32")
