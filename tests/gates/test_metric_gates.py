"""Metrics of samples against FP32, the reference backend and the baseline: verdicts, numbers, worst class."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from comparison_records import accuracy_from, accuracy_with, record_with
from sample_records import class_scores, number_scores, sample_record, scored, source_record, text_scores

from harness.gates import JudgeOptions, compare_runs, judge_records, list_gates, subject_from_record
from harness.records import Outcome, PackedArray, Record, Status
from harness.specs import Precision

GATES = frozenset({"metric", "metric_baseline"})
SUBJECT = "the baseline of 2026-11-21"


def judged(records, *, stored=None, gates=GATES, **options):
    baselines = {} if stored is None else {stored.key: replace(subject_from_record(stored, SUBJECT), is_baseline=True)}
    return judge_records(records, baselines, JudgeOptions(gates=frozenset(gates), **options))


def against_fp32(ours, theirs, **changes):
    record = judged([source_record(theirs), sample_record(ours, **changes)], gates={"metric"})[1]
    (verdict,) = record.verdicts
    return verdict


def against_baseline(ours, theirs, **changes):
    stored = sample_record(theirs)
    (record,) = judged([sample_record(ours, **changes)], stored=stored, gates={"metric_baseline"})
    (verdict,) = record.verdicts
    return verdict


# -- against FP32


@pytest.mark.parametrize(
    ("lost", "gained", "outcome", "code"),
    [
        (100, 0, Outcome.REGRESSED, "loss_beyond_margin"),
        (0, 100, Outcome.IMPROVED, "gained"),
        (2, 2, Outcome.SAME, "within_margin"),
        (12, 0, Outcome.INCONCLUSIVE, "too_few_samples"),
    ],
)
def test_lost_samples_are_judged_like_images(lost, gained, outcome, code):
    theirs, ours = class_scores(wrong=range(gained)), class_scores(wrong=range(gained, gained + lost))
    verdict = against_fp32(ours, theirs)
    assert (verdict.outcome, verdict.code, verdict.is_failure) == (outcome, code, outcome is Outcome.REGRESSED)
    assert f"{lost} worse, {gained} better" in verdict.message
    assert verdict.metric == "top-1"
    assert verdict.value == pytest.approx(1 - lost / 3000)
    assert verdict.change_low <= (gained - lost) / 3000 <= verdict.change_high
    assert ("would have failed" in verdict.message) == (outcome is not Outcome.REGRESSED)


def test_lower_is_better_where_it_is_and_the_accepted_loss_is_a_share_of_fp32():
    generator = np.random.default_rng(0)
    errors = generator.normal(0, 1, 400)
    worse = against_fp32(number_scores(errors * 1.2), number_scores(errors))
    assert (worse.outcome, worse.is_failure) == (Outcome.REGRESSED, True)
    assert "accepted is a loss of 0.50 % of FP32's value (0.00" in worse.message
    assert " cm against " in worse.message
    assert worse.change_high < 0, "a change is positive where it is better"
    assert against_fp32(number_scores(errors * 0.8), number_scores(errors)).outcome is Outcome.IMPROVED
    assert against_fp32(number_scores(errors * 1.0001), number_scores(errors)).outcome is Outcome.SAME
    accepted = against_fp32(number_scores(errors * 1.2), number_scores(errors), max_drop=0.5)
    assert (accepted.outcome, accepted.code) == (Outcome.SAME, "real_loss_within_margin")


def test_a_metric_of_the_whole_set_is_judged_by_its_resamples():
    generator = np.random.default_rng(1)
    before = generator.binomial(10, 0.05, 300)
    now = np.minimum(before + generator.binomial(3, 0.3, 300), 10)
    verdict = against_fp32(text_scores(now, metric="CER"), text_scores(before, metric="CER"))
    assert (verdict.outcome, verdict.metric) == (Outcome.REGRESSED, "CER")
    assert verdict.p_test.startswith("paired bootstrap (1000 resamples)")
    assert verdict.value == pytest.approx(now.sum() / 3000)
    assert -verdict.change_high <= (now - before).sum() / 3000 <= -verdict.change_low
    assert against_fp32(text_scores(before, metric="CER"), text_scores(now, metric="CER")).outcome is Outcome.IMPROVED


def test_few_samples_cannot_tell_and_say_so():
    verdict = against_fp32(class_scores(50, wrong=[1]), class_scores(50))
    assert (verdict.outcome, verdict.code) == (Outcome.INCONCLUSIVE, "too_few_samples")
    assert not verdict.is_failure
    strict = judged([source_record(class_scores(50)), sample_record(class_scores(50, wrong=[1]))], strict=True)[1]
    assert strict.status is Status.FAILED


def test_few_samples_that_all_agree_are_told_without_a_test_that_compares_nothing():
    verdict = against_fp32(class_scores(40, wrong=[1]), class_scores(40, wrong=[1]))
    assert (verdict.outcome, verdict.code) == (Outcome.INCONCLUSIVE, "too_few_samples")
    told = "top-1 97.50 % on 40 samples, the same on each as FP32: so few cannot rule out a loss of up to 19.27 points"
    assert verdict.message.startswith(told)
    assert "p = 1" not in verdict.message
    enough = against_fp32(class_scores(3000, wrong=[1]), class_scores(3000, wrong=[1]))
    assert (enough.outcome, enough.code) == (Outcome.SAME, "identical")
    assert "all the same" in enough.message


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"source": "other/test"}, "different samples mine/test and other/test"),
        ({"fingerprint": "e" * 64}, "contents of mine/test (ffffffff and eeeeeeee)"),
        ({"task": "regression"}, "task classification and regression"),
        ({"settings": {"threshold": "0.3"}}, "[task] threshold default and 0.3"),
        ({"metrics": ()}, "metrics top-1 and none"),
    ],
)
def test_other_samples_are_never_compared(change, told):
    theirs = replace(class_scores(100), **change)
    verdict = against_fp32(class_scores(100, wrong=range(50)), theirs)
    assert (verdict.outcome, verdict.is_failure) == (Outcome.INCOMPARABLE, False)
    assert told in verdict.message


def test_samples_of_another_order_or_number_are_never_compared():
    verdict = against_fp32(class_scores(100), class_scores(90))
    assert "samples of mine/test (100 from s0 and 90 from s0)" in verdict.message


def test_every_engine_is_compared_with_fp32_of_its_backend_and_of_the_reference():
    good, bad = class_scores(), class_scores(wrong=range(300))
    records = [
        source_record(good),
        source_record(bad, backend="openvino"),
        sample_record(bad, backend="openvino"),
        sample_record(good),
    ]
    reference, fp32, int8, own = judged(records, gates={"metric"})
    assert reference.verdicts == ()
    assert [v.outcome for v in fp32.verdicts] == [Outcome.REGRESSED]
    assert "FP32 on ort" in fp32.verdicts[0].message, "a wrong build of FP32 itself does not hide"
    assert [(v.outcome, v.code) for v in int8.verdicts] == [
        (Outcome.SAME, "identical"),
        (Outcome.REGRESSED, "loss_beyond_margin"),
    ]
    assert len(own.verdicts) == 1


def test_a_planted_victim_is_excused_and_its_absence_told():
    victim = against_fp32(class_scores(wrong=range(300)), class_scores(), expects_loss=True)
    assert (victim.code, victim.is_failure) == ("expected_loss", False)
    assert against_fp32(class_scores(), class_scores(), expects_loss=True).code == "expected_loss_absent"


def test_scores_that_are_not_numbers_are_the_cases_error():
    good = class_scores(20)
    leading = replace(good.metrics[0], values=PackedArray.of(np.full(20, np.nan)))
    record = judged([source_record(good), sample_record(replace(good, metrics=(leading,)))])[1]
    assert record.status is Status.ERROR
    assert "metric: top-1 of a sample is not a number: the record is damaged" in record.reason


def test_a_case_without_metrics_is_asked_nothing():
    record = judged([sample_record(scored("raw", [([1.0], None)]))])[0]
    assert (record.status, record.verdicts) == (Status.PASSED, ())
    assert judged([record_with(accuracy_with(n=100))])[0].verdicts == ()


def test_cases_of_one_run_share_one_false_alarm_rate():
    lost = class_scores(wrong=range(25))  # p of about 0.005 of a loss beyond the margin, alone
    alone = judged([source_record(class_scores()), sample_record(lost, alpha=0.01)], gates={"metric"})[1]
    assert alone.verdicts[0].outcome is Outcome.REGRESSED
    many = [sample_record(lost, alpha=0.01)] + [
        replace(sample_record(class_scores(), alpha=0.01), case=replace(alone.case, recipe=f"r{i}")) for i in range(30)
    ]
    among = judged([source_record(class_scores()), *many], gates={"metric"})[1]
    assert (among.verdicts[0].outcome, among.verdicts[0].code) == (Outcome.INCONCLUSIVE, "not_among_many")


# -- against the baseline


def test_a_case_without_a_baseline_says_how_to_get_one():
    (record,) = judged([sample_record(class_scores(20))], gates={"metric_baseline"}, stored_in="suites/baselines")
    (verdict,) = record.verdicts
    assert verdict.outcome is Outcome.NO_BASELINE
    assert "suites/baselines holds no baseline of lenet5-ort-int8" in verdict.message
    verdict = against_baseline(class_scores(20), None)
    assert (verdict.outcome, verdict.code) == (Outcome.NO_BASELINE, "no_shared_samples")
    assert f"{SUBJECT} holds no metrics of the samples scored here" in verdict.message


def test_two_runs_are_compared_by_their_metrics():
    earlier, later = sample_record(class_scores()), sample_record(class_scores(wrong=range(100)))
    earlier, later = (replace(record, status=Status.PASSED) for record in (earlier, later))
    compared = compare_runs([earlier], [later], names=("monday", "tuesday"))
    verdicts = {verdict.gate: verdict for _, given in compared.verdicts for verdict in given}
    assert compared.is_failure
    assert verdicts["metric_baseline"].outcome is Outcome.REGRESSED
    assert "of monday on 3000 samples: 100 worse, 0 better" in verdicts["metric_baseline"].message
    assert "accept" not in verdicts["metric_baseline"].advice


@pytest.mark.parametrize(
    ("lost", "gained", "outcome", "code"),
    [
        (0, 0, Outcome.SAME, "identical"),
        (1, 1, Outcome.SAME, "changed_samples"),
        (11, 0, Outcome.REGRESSED, "lost"),
        (0, 11, Outcome.IMPROVED, "gained"),
        (10, 0, Outcome.INCONCLUSIVE, "too_few_samples"),
    ],
)
def test_a_metric_should_be_that_of_the_baseline(lost, gained, outcome, code):
    theirs, ours = class_scores(wrong=range(gained)), class_scores(wrong=range(gained, gained + lost))
    verdict = against_baseline(ours, theirs)
    assert (verdict.outcome, verdict.code) == (outcome, code)
    if outcome is Outcome.REGRESSED:
        assert "harness baseline accept latest --case lenet5-ort-int8" in verdict.advice
        assert verdict.p_value == pytest.approx(2**-10)


def test_a_changed_model_may_lose_what_is_accepted_and_is_named():
    ours = sample_record(class_scores(wrong=range(11)), max_drop=0.02)
    ours = replace(ours, artifact=replace(ours.artifact, source_sha256="c" * 64))
    (record,) = judged([ours], stored=sample_record(class_scores()), gates={"metric_baseline"})
    (verdict,) = record.verdicts
    assert (verdict.outcome, verdict.model_change) == (Outcome.SAME, "bbbb -> cccc")
    assert verdict.message.startswith("model changed: bbbb -> cccc; top-1 ")


def test_other_samples_under_the_name_of_the_baseline_fail():
    verdict = against_baseline(class_scores(100), replace(class_scores(100), fingerprint="e" * 64))
    assert (verdict.outcome, verdict.is_failure) == (Outcome.INCOMPARABLE, True)
    assert "replace it: harness baseline accept latest --case lenet5-ort-int8" in verdict.advice


def test_records_read_back_from_disk_get_the_same_verdicts():
    records = [source_record(class_scores(500)), sample_record(class_scores(500, wrong=range(40)))]
    first = judged(records)
    read_back = [msgspec.json.decode(msgspec.json.encode(record), type=Record) for record in first]
    assert judged(read_back) == first


# -- the worst class


def test_a_class_that_breaks_is_named_though_the_whole_hardly_moves():
    n, n_classes = 10_000, 200
    broken = [i for i in range(n) if i % n_classes == 7][:47]  # of 50
    verdict = against_fp32(class_scores(n, wrong=broken, n_classes=n_classes), class_scores(n, n_classes=n_classes))
    assert verdict.outcome is not Outcome.REGRESSED
    assert "class 7 lost 94.00 points of recall (100.00 -> 6.00 %) on 50 samples" in verdict.message
    assert verdict.worst_slice
    assert verdict.worst_slice in verdict.message


def test_a_class_of_images_that_breaks_is_named_too():
    labels = np.arange(10_000) % 200
    predictions = labels.copy()
    predictions[np.flatnonzero(labels == 7)[:47]] = 8
    fp32 = record_with(accuracy_from(labels, labels), status=Status.NOT_JUDGED)
    ours = replace(record_with(accuracy_from(predictions, labels), precision=Precision.INT8), status=Status.NOT_JUDGED)
    fp32, ours = (replace(r, accuracy=replace(r.accuracy, num_classes=200)) for r in (fp32, ours))
    (verdict,) = judged([fp32, ours], gates={"fp32"})[1].verdicts
    assert "class 7 lost 94.00 points of recall (100.00 -> 6.00 %) on 50 samples" in verdict.worst_slice
    assert verdict.message.endswith(verdict.worst_slice)


def test_losses_spread_over_the_classes_name_none():
    generator = np.random.default_rng(0)
    wrong = generator.choice(10_000, 60, replace=False)
    assert (
        against_fp32(class_scores(10_000, wrong=wrong, n_classes=200), class_scores(10_000, n_classes=200)).worst_slice
        == ""
    )


def test_the_family_of_the_baseline_gates_is_one():
    gates = {gate.name: gate for gate in list_gates()}
    assert gates["metric_baseline"].family == "baseline"
    assert gates["metric"].judges_outputs
    assert gates["metric_baseline"].judges_outputs
