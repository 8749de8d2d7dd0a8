"""Verdicts between runs: baselines, latency, and two whole runs."""

import math
from dataclasses import replace

import numpy as np
import pytest

from harness.errors import MeasurementError
from harness.gates import JudgeOptions, compare_runs, engine_digest, judge_records, subject_from_record
from harness.gates._stored import no_baseline
from harness.records import Calibration, EngineFacts, Outcome, PackedArray, Status
from harness.specs import ImageRange, Precision, Tolerance
from tests.comparison_records import ENVIRONMENT, accuracy_from, accuracy_with, latency_with, pair_with, record_with

TOLERANCE = Tolerance(max_drop=0.005, alpha=0.001)


def judge(ours, theirs, tolerance=TOLERANCE):
    """The verdicts of the gates that read a baseline, as `judge_records` gives them of one case alone."""
    ours = replace(ours, tolerance=tolerance)
    stored = replace(subject_from_record(theirs, "the baseline"), is_baseline=True)
    options = JudgeOptions(gates=frozenset({"baseline", "latency"}))
    (judged,) = judge_records([ours], {ours.key: stored}, options)
    if judged.status is Status.ERROR:
        raise MeasurementError(judged.reason)
    return judged.verdicts


def judge_scores(lost, gained, *, n=10_000, tolerance=TOLERANCE):
    before, after = pair_with(lost=lost, gained=gained, n=n)
    return judge(record_with(after), record_with(before), tolerance)[0]


@pytest.mark.parametrize(
    ("lost", "gained", "outcome", "code"),
    [
        (0, 0, Outcome.SAME, "identical"),
        (10, 0, Outcome.SAME, "changed_predictions"),
        (11, 0, Outcome.REGRESSED, "lost_images"),
        (31, 10, Outcome.SAME, "changed_predictions"),
        (32, 10, Outcome.REGRESSED, "lost_images"),
        (47, 20, Outcome.INCONCLUSIVE, "too_few_images"),
        (48, 20, Outcome.REGRESSED, "lost_images"),
        (0, 11, Outcome.IMPROVED, "gained_images"),
    ],
)
def test_a_baseline_is_held_to_the_exact_test(lost, gained, outcome, code):
    verdict = judge_scores(lost, gained)
    assert (verdict.gate, verdict.outcome, verdict.code) == ("baseline", outcome, code)
    assert verdict.is_failure is (outcome is Outcome.REGRESSED)
    if lost:
        assert f"{lost} lost, {gained} gained" in verdict.message
        assert "harness baseline accept latest --case lenet5-ort-fp32" in verdict.advice


def test_identical_predictions_are_same_at_any_size_and_state_what_would_fail():
    verdict = judge_scores(0, 0, n=20)
    assert (verdict.outcome, verdict.code) == (Outcome.SAME, "identical")
    assert "identical predictions" in verdict.message
    assert "a net loss of 11 images" in verdict.message
    assert judge_scores(0, 0).detectable == pytest.approx(0.0011)


def test_a_few_changes_on_few_images_are_inconclusive():
    assert judge_scores(2, 0, n=300).outcome is Outcome.INCONCLUSIVE


def test_an_image_wrong_in_another_way_is_told():
    before, after = accuracy_with(wrong=[5]), accuracy_with(other=[5])
    verdict = judge(record_with(after), record_with(before))[0]
    assert verdict.outcome is Outcome.SAME
    assert "0 lost, 0 gained, 1 wrong in another way" in verdict.message


def test_accepted_loss_against_a_baseline_moves_the_line():
    tolerance = replace(TOLERANCE, max_drop_baseline=0.002)
    assert judge_scores(11, 0, tolerance=tolerance).outcome is Outcome.SAME
    assert judge_scores(60, 0, tolerance=tolerance).outcome is Outcome.REGRESSED


def test_versions_that_changed_are_named_only_when_something_moved():
    newer = replace(ENVIRONMENT, versions={"onnxruntime": "1.32.0"})
    before, after = pair_with(lost=3, gained=1)
    moved = judge(record_with(after, environment=newer), record_with(before))[0]
    assert "changed since: onnxruntime 1.31.1 -> 1.32.0" in moved.message
    still = judge(record_with(before, environment=newer), record_with(before))[0]
    assert "changed since" not in still.message
    bits = judge(record_with(replace(before, outputs_sha256="1" * 64), environment=newer), record_with(before))[0]
    assert "the outputs differ in their bits" in bits.message
    assert "onnxruntime" in bits.message


CARD = {"scale": "0.00392156863", "mean": "0", "label offset": "0"}


@pytest.mark.parametrize("lost", [0, 3, 30])
def test_another_preprocessing_is_named_whatever_came_of_it(lost):
    before, after = pair_with(lost=lost, gained=0)
    now = record_with(after, preprocessing={**CARD, "scale": "0.0078125"})
    (verdict,) = judge(now, record_with(before, preprocessing=CARD))
    assert "preprocessing, export or calibration changed: scale 0.00392156863 -> 0.0078125" in verdict.message
    assert verdict.is_failure is (lost == 30)


def test_another_resize_is_named_though_the_pixels_cannot_be_compared():
    before = {**CARD, "geometry": "resize shorter side 256 bilinear, crop 224x224"}
    now = {**CARD, "geometry": "resize shorter side 232 bilinear, crop 224x224"}
    after = replace(accuracy_with(), fingerprint="e" * 64)
    (verdict,) = judge(record_with(after, preprocessing=now), record_with(accuracy_with(), preprocessing=before))
    assert verdict.outcome is Outcome.INCOMPARABLE
    assert f"geometry {before['geometry']} -> {now['geometry']}" in verdict.message
    assert "contents of" in verdict.message


@pytest.mark.parametrize(
    ("name", "before", "now"),
    [("exported by", "pytorch 2.2.0", "pytorch 2.3.0"), ("operator set", "13", "17"), ("IR version", "8", "10")],
)
def test_another_export_is_named_whatever_came_of_it(name, before, now):
    def exported(text):
        record = record_with(accuracy_with(), weight_bits=32)
        return replace(record, artifact=replace(record.artifact, exported={name: text}))

    (verdict,) = judge(exported(now), exported(before))
    assert f"preprocessing, export or calibration changed: {name} {before} -> {now}" in verdict.message
    assert not verdict.is_failure


def calibrated(accuracy, **changes):
    images = ImageRange(dataset="strokes", split="train", first=0, stop=changes.pop("stop", 1_000))
    known = {"images": images, "fingerprint": "a" * 64, "batch_size": 1, "method": "minmax", "ranges_sha256": "1" * 64}
    record = record_with(accuracy, precision=Precision.INT8, weight_bits=8)
    return replace(record, artifact=replace(record.artifact, calibration=Calibration(**{**known, **changes})))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"stop": 500, "fingerprint": "b" * 64},
            "calibration images strokes/train 0..999 [aaaaaaaa] -> strokes/train 0",
        ),
        ({"method": "entropy"}, "calibration method minmax -> entropy"),
        ({"ranges_sha256": "2" * 64}, "calibration ranges 11111111 -> 22222222"),
    ],
)
def test_another_calibration_is_named_whatever_came_of_it(changes, told):
    (verdict,) = judge(calibrated(accuracy_with(), **changes), calibrated(accuracy_with()))
    assert told in verdict.message
    (same,) = judge(calibrated(accuracy_with()), calibrated(accuracy_with()))
    assert "calibration" not in same.message


PLAIN = {"tf32": "off", "optimization_level": "3", "plugins": "none"}


def built_with(accuracy, **options):
    facts = EngineFacts(build_ns=1, options={**PLAIN, **options})
    return record_with(accuracy, engine=facts, latencies=(latency_with(),))


@pytest.mark.parametrize("lost", [0, 3, 30])
def test_options_that_differ_are_a_named_cause_whatever_came_of_them(lost):
    before, after = pair_with(lost=lost, gained=0)
    verdicts = judge(built_with(after, tf32="on", plugins="libown.so 0123"), built_with(before))
    for verdict in verdicts:
        assert "engine options differ: plugins none -> libown.so 0123, tf32 off -> on" in verdict.message
        assert "optimization_level" not in verdict.message
    assert [verdict.gate for verdict in verdicts] == ["baseline", "latency"]
    assert verdicts[0].is_failure is (lost == 30)  # a cause is no excuse
    assert ("a possible cause" in verdicts[0].advice) is (lost == 30)
    assert not any(word in v.advice + v.message for v in verdicts for word in ("you ", "on purpose", "same options"))


@pytest.mark.parametrize("field", ["driver", "cuda_version"])
def test_a_driver_that_one_side_does_not_know_is_not_said_to_have_changed(field):
    before, after = pair_with(lost=3, gained=1)

    def changed(now, then):
        ours, theirs = (replace(ENVIRONMENT, **{field: value}) for value in (now, then))
        return (
            "changed since"
            in judge(record_with(after, environment=ours), record_with(before, environment=theirs))[0].message
        )

    assert changed("13.0", "12.9")
    assert not changed("13.0", "")
    assert not changed("", "13.0")


def test_options_that_one_side_does_not_know_are_not_said_to_differ():
    before, after = pair_with(lost=3, gained=0)
    older = replace(built_with(before), engine=EngineFacts(build_ns=1, options={"tf32": "off"}))
    assert not [v for v in judge(built_with(after), older) if "options" in v.message]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda r: replace(r, accuracy=replace(r.accuracy, fingerprint="e" * 64)), "contents"),
        (lambda r: replace(r, accuracy=replace(r.accuracy, num_classes=12)), "classes"),
        (lambda r: replace(r, case=replace(r.case, precision=Precision.FP16)), "precision"),
        (lambda r: replace(r, case=replace(r.case, recipe="nncf")), "recipe"),
    ],
)
def test_a_foreign_baseline_is_never_compared(change, word):
    theirs = change(record_with(accuracy_with(wrong=range(9_000))))
    verdict = judge(record_with(accuracy_with()), theirs)[0]
    assert verdict.outcome is Outcome.INCOMPARABLE
    assert word in verdict.message
    assert verdict.value is None
    assert verdict.is_failure, "the baseline of this case could not be compared, so nothing says that it holds"


def judge_changed(lost, gained, *, tolerance=TOLERANCE, n=10_000):
    """Judge a case whose model file is another than the baseline's."""
    before, after = pair_with(lost=lost, gained=gained, n=n)
    theirs = record_with(before)
    theirs = replace(theirs, artifact=replace(theirs.artifact, source_sha256="6ee4" + "0" * 60))
    ours = record_with(after)
    ours = replace(ours, artifact=replace(ours.artifact, source_sha256="a026" + "0" * 60))
    return judge(ours, theirs, tolerance)[0]


@pytest.mark.parametrize(
    ("lost", "gained", "outcome", "code"),
    [
        (0, 0, Outcome.SAME, "identical"),
        (12, 3, Outcome.SAME, "within_margin"),
        (25, 3, Outcome.SAME, "real_loss_within_margin"),
        (60, 10, Outcome.INCONCLUSIVE, "too_few_images"),
        (1_500, 10, Outcome.REGRESSED, "loss_beyond_margin"),
        (3, 40, Outcome.IMPROVED, "gained_images"),
    ],
)
def test_a_changed_model_is_judged_by_the_accepted_loss_on_the_same_images(lost, gained, outcome, code):
    verdict = judge_changed(lost, gained)
    assert (verdict.outcome, verdict.code) == (outcome, code)
    assert verdict.is_failure is (outcome is Outcome.REGRESSED)
    assert verdict.message.startswith("model changed: 6ee4 -> a026; top-1 ")
    assert verdict.model_change == "6ee4 -> a026"
    assert (verdict.n_lost, verdict.n_gained) == (lost, gained)
    assert ("significant loss of 0.22 points, within the accepted 0.50 points" in verdict.message) is (lost == 25)


def test_the_margin_of_a_changed_model_is_that_of_the_baseline_where_one_is_set():
    strict = replace(TOLERANCE, max_drop_baseline=0.0005)
    assert judge_changed(25, 3, tolerance=strict).outcome is Outcome.REGRESSED
    loose = replace(TOLERANCE, max_drop_baseline=0.02)
    assert judge_changed(60, 10, tolerance=loose).outcome is Outcome.SAME


def test_the_same_model_is_held_to_identity_whatever_a_changed_one_may_lose():
    assert judge_scores(25, 3).outcome is Outcome.REGRESSED


def test_times_of_a_changed_model_are_compared_and_say_so():
    theirs = record_with(latencies=(latency_with(),))
    ours = replace(theirs, artifact=replace(theirs.artifact, source_sha256="a026" + "0" * 60))
    (verdict,) = [found for found in judge(ours, theirs) if found.gate == "latency"]
    assert verdict.outcome is Outcome.SAME
    assert "model changed: bbbb -> a026" in verdict.message


def test_int8_of_other_cpu_instructions_is_paired_with_the_models_margin():
    before, after = pair_with(lost=14, gained=1)
    avx2 = replace(ENVIRONMENT, cpu_isa="avx2")
    ours = record_with(after, precision=Precision.INT8, weight_bits=8)
    assert judge(ours, record_with(before, precision=Precision.INT8, weight_bits=8))[0].is_failure
    foreign = record_with(before, precision=Precision.INT8, weight_bits=7, environment=avx2)
    verdict = judge(ours, foreign)[0]
    assert verdict.outcome is Outcome.SAME
    assert "identical predictions are not expected" in verdict.message
    assert "CPU instructions avx2 -> avx512_vnni" in verdict.message
    worse = pair_with(lost=120, gained=1)
    foreign = record_with(worse[0], precision=Precision.INT8, environment=avx2)
    assert judge(record_with(worse[1], precision=Precision.INT8), foreign)[0].is_failure
    fp32 = judge(record_with(after), record_with(before, environment=avx2))[0]
    assert fp32.is_failure, "FP32 agrees between CPUs, so nothing is forgiven"


def judge_times(ours, theirs, max_slowdown=None, **changes):
    verdicts = judge(
        record_with(latencies=(ours,), **changes),
        record_with(latencies=(theirs,)),
        Tolerance(max_slowdown=max_slowdown),
    )
    return verdicts[0]


@pytest.mark.parametrize(
    "change", [{"clock": "cuda_event"}, {"window": "end_to_end"}, {"launch": "graph"}, {"gated": True}]
)
def test_latency_of_another_clock_or_window_is_incomparable(change):
    verdict = judge_times(latency_with(**change), latency_with(), 0.05)
    assert verdict.outcome is Outcome.INCOMPARABLE
    assert next(iter(change)) in verdict.message


def test_latency_of_another_machine_is_incomparable():
    for change in ({"cpu_model": "Other CPU"}, {"n_cpus": 64}, {"cpu_isa": "amx"}):
        verdict = judge_times(latency_with(), latency_with(), 0.05, environment=replace(ENVIRONMENT, **change))
        assert verdict.outcome is Outcome.INCOMPARABLE


def test_a_batch_size_timed_on_one_side_only_is_named():
    ours = record_with(latencies=(latency_with(), latency_with(batch_size=100)))
    found = judge(ours, record_with(latencies=(latency_with(),)))
    assert [verdict.code for verdict in found] == ["same_speed", "no_times"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_broken_times_never_pass(bad):
    with pytest.raises(MeasurementError):
        judge_times(latency_with([100.0, bad, 100.0]), latency_with(), 0.05)
    with pytest.raises(MeasurementError):
        judge_times(latency_with(), latency_with(), math.nan)


def test_a_missing_baseline_names_the_command_that_makes_it():
    verdict = no_baseline(record_with().case, stored_in="suites/baselines", gate="baseline")
    assert verdict.outcome is Outcome.NO_BASELINE
    assert "harness baseline accept latest --case lenet5-ort-fp32" in verdict.advice
    assert "suites/baselines" in verdict.message


def test_engine_digest_follows_kernels_not_times():
    record = record_with()
    timed = replace(record, layers=tuple(replace(layer, time_ns=5.0) for layer in record.layers))
    other = replace(record, layers=tuple(replace(layer, kernel="gemm") for layer in record.layers))
    assert engine_digest(record) == engine_digest(timed) != engine_digest(other)
    assert engine_digest(replace(record, layers=())) == ""


def test_two_runs_are_compared_case_by_case():
    before, after = pair_with(lost=15, gained=0)
    a = [record_with(before, latencies=(latency_with(),)), record_with(before, backend="openvino")]
    b = [record_with(after, latencies=(latency_with(),)), record_with(after, precision=Precision.INT8)]
    compared = compare_runs(a, b, names=("monday", "tuesday"))
    found = dict(compared.verdicts)
    assert list(found) == ["lenet5-ort-fp32", "lenet5-ort-int8", "lenet5-openvino-fp32"]
    scores, times = found["lenet5-ort-fp32"]
    assert scores.is_failure
    assert "of monday" in scores.message
    assert "accept" not in scores.advice, "a run is no baseline that could be replaced"
    assert (times.code, times.outcome) == ("void", Outcome.INCOMPARABLE), "a time counts only if the outputs are right"
    assert "in tuesday only" in found["lenet5-ort-int8"][0].message
    assert "in monday only" in found["lenet5-openvino-fp32"][0].message
    assert [record.verdicts for record in compared.records] == [found["lenet5-ort-fp32"]]
    assert compared.is_failure


def test_a_case_that_broke_in_one_run_is_said_to_have_broken():
    good = record_with(accuracy_with())
    broken = record_with(status=Status.ERROR, reason="the worker died of SIGSEGV")
    for a, b in ((good, broken), (broken, good)):
        (verdict,) = compare_runs([a], [b], names=("a", "b")).verdicts[0][1]
        assert verdict.outcome is Outcome.INCOMPARABLE
        assert "SIGSEGV" in verdict.message


def test_runs_that_share_no_case_are_an_error():
    with pytest.raises(MeasurementError, match="share no case"):
        compare_runs(
            [record_with(accuracy_with())], [record_with(accuracy_with(), backend="openvino")], names=("a", "b")
        )


def test_unlike_types_of_device_are_compared_only_when_asked():
    before, after = pair_with(lost=15, gained=0)
    other = replace(ENVIRONMENT, n_cpus=64)
    here = record_with(after, latencies=(latency_with(),))
    there = record_with(before, environment=other, latencies=(latency_with(),))
    with pytest.raises(MeasurementError, match=r"64 CPUs.*--across-devices"):
        compare_runs([there], [here], names=("a", "b"))
    (_, (scores, times)), *rest = compare_runs([there], [here], names=("a", "b"), across_devices=True).verdicts
    assert (scores.outcome, rest) == (Outcome.REGRESSED, [])
    assert times.outcome is Outcome.INCOMPARABLE
    mixed = compare_runs(
        [there, record_with(before, backend="openvino")],
        [here, record_with(after, backend="openvino")],
        names=("a", "b"),
    )
    assert "in a on Test CPU, avx512_vnni, 64 CPUs" in dict(mixed.verdicts)["lenet5-ort-fp32"][0].message


def blocks_of(accuracy):
    """Digests of the whole blocks of these scores' range, by the index of the block."""
    first, stop = -(-accuracy.images.first // 100), accuracy.images.stop // 100
    return replace(accuracy, block_digests=PackedArray.of(np.arange(first, stop, dtype=np.uint64)))


def test_a_run_on_other_images_of_the_set_is_compared_on_those_both_share():
    stored = blocks_of(accuracy_with(wrong=range(700, 730)))
    ours = blocks_of(
        accuracy_from(np.arange(450, 1_450) % 10, np.arange(450, 1_450) % 10, first=450, fingerprint="e" * 64)
    )
    (verdict,) = judge(record_with(ours), record_with(stored))
    assert (verdict.n_lost, verdict.n_gained) == (0, 30)
    assert "on the 900 images that strokes/test 450..1449 shares with strokes/test 0..9999" in verdict.message


def test_shared_images_with_other_contents_forbid_the_comparison():
    stored = blocks_of(accuracy_with())
    ours = blocks_of(accuracy_with(n=500))
    digests = ours.block_digests.array().copy()
    digests[3] += 1
    (verdict,) = judge(record_with(replace(ours, block_digests=PackedArray.of(digests))), record_with(stored))
    assert verdict.outcome is Outcome.INCOMPARABLE
    assert "images 300..399" in verdict.message


@pytest.mark.parametrize("other", [{"first": 20_000, "stop": 20_500}, {"split": "train"}, {"dataset": "mnist"}])
def test_a_set_of_which_nothing_is_stored_is_not_judged(other):
    ours = accuracy_with(n=500)
    ours = replace(ours, images=replace(ours.images, **other))
    (verdict,) = judge(record_with(ours), record_with(accuracy_with()))
    assert (verdict.outcome, verdict.is_failure) == (Outcome.NO_BASELINE, False)
