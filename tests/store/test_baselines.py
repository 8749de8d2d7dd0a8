"""Baseline files: round trip, damage, schemas, who may write them, and what is given up."""

import json
import os
from dataclasses import replace

import msgspec
import pytest

from harness.errors import BaselineError, ConfigError
from harness.gates import JudgeOptions, judge_records
from harness.records import EngineFacts, Outcome, Status, Verdict
from harness.specs import Precision
from harness.store.baseline_files import (
    BASELINE_SCHEMA,
    MAX_BUILDS,
    TimesBaseline,
    json_from_baseline,
    line_from_baseline,
    predictions_from_json,
    predictions_from_record,
    samples_from_record,
    text_from_baseline,
    times_from_record,
    with_history,
)
from harness.store.baselines import (
    BaselineStore,
    device_class,
    failed_against_baseline,
    replaced_lines,
    write_file,
)
from harness.store.sealed import sealed
from harness.store.selecting import prune_baselines
from tests.comparison_records import ENVIRONMENT, accuracy_with, latency_with, pair_with, record_with
from tests.sample_records import class_scores, number_scores, sample_record

BY = {"accepted_by": "A. Reviewer", "accepted_at": "2026-11-21T02:00:00Z"}
MEND = "harness baseline accept latest --case lenet5-ort-fp32"


@pytest.fixture
def store(tmp_path):
    return BaselineStore(tmp_path / "baselines")


def written(store, record):
    """The path of the first part of the record's baseline: predictions where it has scores, else times."""
    store.queue(record, **BY)
    return store.flush(is_clean=True)[0]


def judge(store, record):
    """The verdicts of a record against what is stored."""
    found, errors = store.load_for([record])
    for error in errors.values():
        raise error
    options = JudgeOptions(gates=frozenset({"baseline", "latency"}), stored_in=str(store.root))
    return judge_records([record], found, options)[0].verdicts


def test_a_baseline_survives_the_disk(store):
    record = record_with(accuracy_with(wrong=range(70), other=range(70, 75)), latencies=(latency_with(),))
    path = written(store, record)
    assert path.relative_to(store.root).parts == ("predictions", "strokes-test", "cpu", "lenet5-ort-fp32.json")
    times = store.times_path(record).relative_to(store.root)
    assert times.parts == ("times", "test-cpu-avx512_vnni-2-cpus", "lenet5-ort-fp32.json")
    made = (predictions_from_record(record, **BY), times_from_record(record, **BY))
    assert store.load_all() == tuple(with_history(baseline, None) for baseline in made)
    subject = store.load(record)
    assert (subject.scores.hits == record.accuracy.hits()).all()
    assert (subject.scores.wrong_predictions[:75] == record.accuracy.predictions.array()[:75]).all()
    assert subject.timed_on == record.environment
    verdicts = judge(store, record)
    assert [(v.gate, v.code) for v in verdicts] == [("baseline", "identical"), ("latency", "same_speed")]
    assert "the baseline of 2026-11-21" in verdicts[0].message


def test_options_are_kept(store):
    accuracy = accuracy_with(wrong=[3])
    plain, other = (
        record_with(accuracy, engine=EngineFacts(build_ns=1, options={"tf32": tf32})) for tf32 in ("off", "on")
    )
    written(store, plain)
    assert "engine options differ: tf32 off -> on" in judge(store, other)[0].message


def test_predictions_serve_every_cpu_and_times_one_type_of_device(store):
    record = record_with(accuracy_with(wrong=[3]), latencies=(latency_with(),))
    written(store, record)
    stranger = replace(record, environment=replace(ENVIRONMENT, cpu_model="Other CPU", cpu_isa="amx", n_cpus=64))
    scores, times = judge(store, stranger)
    assert (scores.outcome, scores.code) == (Outcome.SAME, "identical")
    assert times.outcome is Outcome.NO_BASELINE
    assert "Other CPU, amx, 64 CPUs" in times.message


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.BF16])
def test_predictions_of_other_instructions_or_weights_are_not_judged(store, precision):
    record = record_with(accuracy_with(wrong=[3]), precision=precision, weight_bits=8)
    written(store, record)
    assert judge(store, record)[0].code == "identical"
    for other in (
        replace(record, environment=replace(ENVIRONMENT, cpu_isa="amx")),
        replace(record, artifact=replace(record.artifact, weight_bits=7)),
    ):
        assert judge(store, other)[0].outcome is Outcome.NO_BASELINE


def test_another_data_set_or_split_has_a_baseline_of_its_own(store):
    record = record_with(accuracy_with(wrong=[3]))
    written(store, record)
    images = replace(record.accuracy.images, dataset="mnist")
    other = replace(record, accuracy=replace(record.accuracy, images=images))
    assert judge(store, other)[0].outcome is Outcome.NO_BASELINE
    written(store, other)
    assert judge(store, record)[0].code == judge(store, other)[0].code == "identical"


def test_what_a_run_was_compared_with_is_copied_beside_it(store, tmp_path):
    record = record_with(accuracy_with(wrong=[3]), latencies=(latency_with(),))
    written(store, record)
    written(store, record_with(accuracy_with(), backend="openvino"))
    store.copy_to(tmp_path / "run" / "baselines", [record])
    copied = BaselineStore(tmp_path / "run" / "baselines")
    assert len(copied.paths()) == 2
    assert judge(copied, record) == judge(store, record)


def test_the_file_is_small_and_its_numbers_stand_on_one_line(store):
    record = record_with(accuracy_with(wrong=range(0, 10_000, 100)), latencies=(latency_with(),))
    text, times = written(store, record).read_text(), store.times_path(record).read_text()
    assert len(text) + len(times) < 8_000
    assert text.endswith("}\n")
    assert any(line.count("100.0") == 20 for line in times.splitlines())
    assert json.loads(text)["scores"]["n_right"] == 9_900
    assert list(json.loads(text))[:3] == ["schema", "case", "accepted"]


def test_the_same_record_gives_the_same_bytes():
    record = record_with(accuracy_with(wrong=[1, 2]), latencies=(latency_with(),))
    assert json_from_baseline(predictions_from_record(record, **BY)) == json_from_baseline(
        predictions_from_record(record, **BY)
    )


def test_a_regression_against_the_file_is_found(store):
    before, after = pair_with(lost=11, gained=0)
    written(store, record_with(before))
    verdict = judge(store, record_with(after))[0]
    assert (verdict.outcome, verdict.is_failure, verdict.n_lost) == (Outcome.REGRESSED, True, 11)


def test_a_missing_baseline_is_a_verdict(store):
    (verdict,) = judge(store, record_with(accuracy_with()))
    assert verdict.outcome is Outcome.NO_BASELINE
    assert not verdict.is_failure


def test_a_model_that_is_only_timed_has_a_baseline_too(store):
    record = record_with(latencies=(latency_with(),))
    written(store, record)
    assert [v.gate for v in judge(store, record)] == ["latency"]


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
        del document["accepted"]
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
        judge(store, record)
    assert str(path) in str(error.value)
    assert MEND in str(error.value)


def test_a_newer_schema_is_refused(store):
    record = record_with(accuracy_with())
    path = written(store, record)
    document = {**json.loads(path.read_text()), "schema": BASELINE_SCHEMA + 1}
    path.write_text(json.dumps(document))
    with pytest.raises(BaselineError, match=f"this harness reads {BASELINE_SCHEMA}; upgrade the harness"):
        store.load(record)


def test_an_older_schema_is_refused_with_its_remedy(store):
    record = record_with(accuracy_with(wrong=[3]))
    path = written(store, record)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 1}))
    with pytest.raises(BaselineError, match=MEND):
        store.load(record)


def test_only_a_clean_run_writes(store):
    record = record_with(accuracy_with())
    store.queue(record, **BY)
    assert store.flush(is_clean=False) == ()
    assert store.paths() == ()
    assert store.flush(is_clean=True) == (), "what a red run queued must not come back later"


@pytest.mark.parametrize("status", [Status.FAILED, Status.ERROR, Status.UNSUPPORTED])
def test_what_neither_passed_nor_failed_against_its_baseline_alone_is_not_queued(store, status):
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
    worse = failed_record("baseline")
    with pytest.raises(BaselineError, match=f"to accept that, name it: --case {worse.case.id}"):
        store.accept([worse], **BY)
    (path,) = store.accept([worse], case_ids=[worse.case.id], **BY)
    assert judge(store, failed_record("baseline"))[0].code == "identical"
    assert path in store.paths()


def test_what_broke_beside_its_regression_failed_by_more_than_its_baseline():
    assert failed_against_baseline(failed_record("baseline"))
    assert not failed_against_baseline(replace(failed_record("baseline"), error="the clock is broken"))


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


def test_what_is_given_up_is_pruned_by_name(store):
    used, openvino = record_with(accuracy_with()), record_with(accuracy_with(), backend="openvino")
    trt = replace(used, case=replace(used.case, backend="trt"))
    for record in (used, openvino, trt):
        written(store, record)
    with pytest.raises(ConfigError, match="holds no baseline of lenet5-tvm-fp32, tvm"):
        prune_baselines(store, case_ids=["lenet5-tvm-fp32"], backends=["tvm"])
    assert len(store.paths()) == 3
    assert [path.stem for path in prune_baselines(store, case_ids=["lenet5-openvino-fp32"])] == ["lenet5-openvino-fp32"]
    assert [path.stem for path in prune_baselines(store, backends=["trt"])] == ["lenet5-trt-fp32"]
    assert [path.stem for path in store.paths()] == ["lenet5-ort-fp32"]


def test_devices_have_readable_folders():
    record = record_with(accuracy_with())
    assert device_class(record) == "cpu"
    assert device_class(replace(record, case=replace(record.case, precision=Precision.INT8))) == "cpu-avx512_vnni-w32"
    gpu = replace(record, case=replace(record.case, device="cuda:1"))
    named = replace(gpu, environment=replace(ENVIRONMENT, device="cuda:1", device_name="NVIDIA GeForce RTX 4090"))
    assert device_class(named) == "nvidia-geforce-rtx-4090"
    with pytest.raises(BaselineError, match="unknown"):
        device_class(replace(gpu, environment=replace(ENVIRONMENT, device_name="")))


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
    scores, times = predictions_from_record(record, **BY), times_from_record(record, **BY)
    assert line_from_baseline(scores) == "lenet5-ort-int8: top-1 99.30 % of strokes/test, 2026-11-21 by A. Reviewer"
    assert line_from_baseline(times).startswith("lenet5-ort-int8: times on Test CPU, avx512_vnni, 2 CPUs")
    assert "lenet5-ort-int8: accepted by A. Reviewer at 2026-11-21T02:00:00Z" in text_from_baseline(scores)
    assert "top-1 9930 of 10000 (99.30 %)" in text_from_baseline(scores)
    assert "batch 1: 0.1 us" in text_from_baseline(times)
    assert "onnxruntime 1.31.1" in text_from_baseline(times)


def test_text_of_another_place_is_damaged():
    with pytest.raises(BaselineError, match=r"here.json has schema True"):
        predictions_from_json(b'{"schema": true}', where="here.json", case_id="lenet5-ort-fp32")


# -- metrics of samples


def test_metrics_are_a_part_of_their_own_and_keep_every_sample(store):
    scores = class_scores(200, wrong=[3, 7])
    record = replace(sample_record(scores), status=Status.PASSED)
    path = written(store, record)
    assert path.relative_to(store.root).parts == ("samples", "mine-test", "cpu-avx512_vnni-w8", "lenet5-ort-int8.json")
    (baseline,) = store.load_all()
    assert baseline == with_history(samples_from_record(record, **BY), None)
    assert store.load(record).samples.metrics == scores.metrics
    assert "top-1 99.00 % of mine/test" in line_from_baseline(baseline)
    assert "200 samples of mine/test [ffffffff], task classification" in text_from_baseline(baseline)
    again = replace(record, samples=class_scores(200, wrong=[3, 9]), status=Status.NOT_JUDGED)
    found, _ = store.load_for([again])
    (verdict,) = judge_records([again], found, JudgeOptions(gates=frozenset({"metric_baseline"})))[0].verdicts
    assert "1 worse, 1 better" in verdict.message
    assert "the baseline of 2026-11-21" in verdict.message


def test_a_damaged_file_of_metrics_is_refused_with_the_remedy(store):
    path = written(store, replace(sample_record(class_scores(20)), status=Status.PASSED))
    values = json.loads(path.read_text())
    values["samples"]["ids"] = values["samples"]["ids"][1:]
    path.write_bytes(sealed(json.dumps({k: v for k, v in values.items() if k != "digest"}).encode()))
    with pytest.raises(BaselineError, match=r"is damaged \(metric top-1 is of 20 samples; expected 19\); restore it"):
        store.load_all()


def test_replaced_metrics_are_told_in_their_own_words(store):
    before = sample_record(number_scores([0.1] * 50))
    now = sample_record(number_scores([0.3] * 50))
    paths = store.accept([replace(before, status=Status.PASSED)], **BY)
    found, _ = store.load_for([now])
    judged = judge_records([now], found, JudgeOptions(gates=frozenset({"metric_baseline"})))
    assert failed_against_baseline(judged[0])
    assert replaced_lines(judged, paths) == ["lenet5-ort-int8: MAE 0.1 cm -> 0.3 cm"]


# -- what a case costs once

BUILT = EngineFacts(
    build_ns=100, batch_sizes=(1,), engine_bytes=4_096, host_peak_bytes=8_192, options={"threads": "1"}, cache="miss"
)


def timed_with(**facts):
    recorded_at = facts.pop("recorded_at", "2026-11-21T01:00:00Z")
    changes = {"engine": replace(BUILT, **facts), "recorded_at": recorded_at}
    return record_with(accuracy_with(), latencies=(latency_with(),), **changes)


def builds_after(store, *records):
    """The builds that a baseline holds when these records were accepted one after the other."""
    for record in records:
        written(store, record)
    return store.load(records[-1]).costs.builds_ns


def test_costs_survive_the_disk_and_are_shown(store):
    record = timed_with()
    written(store, record)
    costs = store.load(record).costs
    assert (costs.builds_ns, costs.engine_bytes, costs.host_peak_bytes) == ((100,), 4_096, 8_192)
    work = ("converted the model", "built the engine", "scored 10000 images in batches of 0", "timed batch 1", "layers")
    assert costs.peak_over == work
    (times,) = (read for path in store.paths() if isinstance(read := store.read(path), TimesBaseline))
    assert "engine 4,096 bytes, peak host memory 8,192 bytes" in text_from_baseline(times)


def test_builds_that_are_accepted_one_after_the_other_gather(store):
    assert builds_after(store, *(timed_with(build_ns=ns) for ns in (100, 110, 90))) == (100, 110, 90)
    assert builds_after(store, timed_with(build_ns=90)) == (100, 110, 90), "a run accepted twice built once"
    assert builds_after(store, timed_with(build_ns=5, cache="hit")) == (100, 110, 90), "nothing was built"
    assert len(builds_after(store, *(timed_with(build_ns=ns) for ns in range(200, 240)))) == MAX_BUILDS


@pytest.mark.parametrize(
    "changes",
    [{"options": {"threads": "2"}}, {"versions": {"onnxruntime": "2.0"}}, {"batch_sizes": (1, 8)}],
    ids=lambda changes: next(iter(changes)),
)
def test_builds_of_something_else_are_dropped(store, changes):
    assert builds_after(store, timed_with(), timed_with(build_ns=300, **changes)) == (300,)


def test_builds_of_another_file_or_driver_are_dropped(store):
    first, other = timed_with(), timed_with(build_ns=300)
    assert builds_after(store, first, replace(other, artifact=replace(other.artifact, sha256="c" * 64))) == (300,)
    driver = replace(other, environment=replace(ENVIRONMENT, driver="600.1"))
    assert builds_after(store, first, driver) == (300,)


def test_a_baseline_of_before_costs_is_read_and_one_that_is_damaged_is_replaced(store):
    record = timed_with()
    written(store, record)
    path = store.times_path(record)
    older = times_from_record(record, **BY)
    write_file(path, json_from_baseline(replace(older, costs=None)))
    assert b'"costs": null' in path.read_bytes()
    values = json.loads(path.read_bytes())
    del values["costs"], values["digest"]
    path.write_bytes(msgspec.json.format(sealed(json.dumps(values).encode()), indent=1))
    assert store.load(record).costs is None, "files that were accepted before costs were recorded stay good"
    assert builds_after(store, timed_with(build_ns=110)) == (110,)
    path.write_bytes(b"{")
    assert builds_after(store, timed_with(build_ns=120)) == (120,)
