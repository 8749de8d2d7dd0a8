"""Verdicts of one run: outcome, code, numbers stated, and what fails."""

import math
from dataclasses import replace

import numpy as np
import pytest

from harness.errors import MeasurementError
from harness.gates._accuracy import (
    judge_against_fp32,
    judge_against_reference_backend,
    judge_floor,
    judge_kernel_loss,
    loss_split,
)
from harness.gates._family import apply_rules, holm, smallest_p_of
from harness.records import Outcome, PackedArray, Verdict
from harness.specs import Tolerance
from tests.comparison_records import accuracy_from, accuracy_with, pair_with

TOLERANCE = Tolerance(max_drop=0.005, alpha=0.001)


def against_fp32(lost, gained, *, n=10_000, tolerance=TOLERANCE, **options):
    reference, ours = pair_with(lost=lost, gained=gained, n=n)
    return judge_against_fp32(ours, reference, tolerance=tolerance, **options)


@pytest.mark.parametrize(
    ("lost", "gained", "outcome", "code"),
    [
        (0, 0, Outcome.SAME, "identical"),
        (12, 10, Outcome.SAME, "within_margin"),
        (20, 0, Outcome.SAME, "real_loss_within_margin"),
        (45, 5, Outcome.INCONCLUSIVE, "too_few_images"),
        (90, 5, Outcome.REGRESSED, "loss_beyond_margin"),
        (5, 60, Outcome.IMPROVED, "gained_images"),
    ],
)
def test_loss_against_fp32_is_judged_by_its_interval(lost, gained, outcome, code):
    verdict = against_fp32(lost, gained)
    assert (verdict.gate, verdict.outcome, verdict.code) == ("fp32", outcome, code)
    assert verdict.is_failure is (outcome is Outcome.REGRESSED)
    assert (verdict.n_lost, verdict.n_gained) == (lost, gained)
    assert verdict.change_low < verdict.change_high
    assert verdict.value - verdict.baseline_value == pytest.approx((gained - lost) / 10_000)
    assert "0.50 points" in verdict.message
    if verdict.outcome is Outcome.SAME:
        assert "would have failed" in verdict.message


def test_outcome_and_interval_never_disagree():
    for lost in range(0, 140, 4):
        for gained in (0, 7, 40):
            verdict = against_fp32(lost, gained)
            loss_low, loss_high = -verdict.change_high, -verdict.change_low
            if verdict.outcome is Outcome.REGRESSED:
                assert loss_low >= 0.005
            elif verdict.outcome is Outcome.SAME:
                assert loss_high <= 0.005
            elif verdict.outcome is Outcome.INCONCLUSIVE:
                assert loss_low < 0.005 < loss_high


def test_the_stated_detectable_loss_is_where_failing_begins():
    verdict = against_fp32(10, 10)
    net = round(verdict.detectable * 10_000)
    assert against_fp32(10 + net, 10).outcome is Outcome.REGRESSED
    assert against_fp32(10 + net - 1, 10).outcome is not Outcome.REGRESSED


def test_few_images_are_inconclusive_and_say_how_many_are_needed():
    verdict = against_fp32(0, 0, n=200)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.detectable is not None
    assert "--score-images 1901" in verdict.advice
    assert not verdict.is_failure
    assert apply_rules([verdict], strict=True)[0].is_failure
    tiny = against_fp32(0, 0, n=8)
    assert tiny.detectable is None
    assert "no loss could have failed" in tiny.message


def test_false_alarms_of_the_margin_rule_stay_at_or_under_alpha():
    """At a true loss equal to the margin, REGRESSED and SAME are each wrong at most at about alpha."""
    tolerance = Tolerance(max_drop=0.01, alpha=0.05)
    generator = np.random.default_rng(12)
    counts = generator.multinomial(2_000, [0.02, 0.01, 0.97], size=1_500)
    seen = {}
    wrong = {Outcome.REGRESSED: 0, Outcome.SAME: 0}
    for lost, gained, _ in counts.tolist():
        if (lost, gained) not in seen:
            seen[lost, gained] = against_fp32(lost, gained, n=2_000, tolerance=tolerance).outcome
        if seen[lost, gained] in wrong:
            wrong[seen[lost, gained]] += 1
    assert all(count / 1_500 <= 0.05 + 0.012 for count in wrong.values())


def test_regressions_name_the_confusions_that_grew():
    reference = accuracy_with()
    sevens = [i for i in range(10_000) if i % 10 == 7][:120]
    ours = accuracy_with(wrong=sevens)
    verdict = judge_against_fp32(ours, reference, tolerance=TOLERANCE)
    assert "7 read as 8: 0 -> 120" in verdict.advice


def with_repeats(accuracy, pairs):
    return replace(accuracy, repeats=PackedArray.of(np.asarray(pairs, np.int64)))


def test_a_repeated_image_counts_once():
    reference, ours = pair_with(lost=40, gained=0, n=2_000)
    pairs = [[place, 0] for place in range(1, 40)]  # the 40 lost images are one
    verdict = judge_against_fp32(with_repeats(ours, pairs), with_repeats(reference, pairs), tolerance=TOLERANCE)
    assert (verdict.outcome, verdict.n_lost) == (Outcome.INCONCLUSIVE, 1)
    assert "on 1961 images (39 repeats of them left out)" in verdict.message
    alone = judge_against_fp32(ours, reference, tolerance=TOLERANCE)
    assert (alone.outcome, alone.n_lost) == (Outcome.REGRESSED, 40)


def with_ties(accuracy, hits_last, n_ties):
    return replace(accuracy, n_ties_top1=n_ties, top1_hits_last=PackedArray.of(np.packbits(hits_last)))


def test_many_ties_are_told_with_the_comparison_in_the_other_order():
    reference, ours = pair_with(lost=30, gained=25, n=2_000)
    everything = np.ones(2_000, bool)
    tied = [with_ties(accuracy, everything, n) for accuracy, n in ((ours, 60), (reference, 55))]
    verdict = judge_against_fp32(*tied, tolerance=TOLERANCE)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "60 and 55 images tie at the top" in verdict.message
    assert "top-1 100.00 % against 100.00 %, 0 lost, 0 gained" in verdict.message
    assert verdict.advice == "score the logits, or another output that does not saturate"
    few = [with_ties(accuracy, everything, 5) for accuracy in (ours, reference)]
    assert "tie" not in judge_against_fp32(*few, tolerance=TOLERANCE).message


def test_an_expected_loss_is_told_and_not_failed():
    verdict = against_fp32(300, 0, expects_loss=True)
    assert (verdict.outcome, verdict.code, verdict.is_failure) == (Outcome.REGRESSED, "expected_loss", False)
    assert verdict.message.startswith("expected of this model")
    absent = against_fp32(3, 2, expects_loss=True)  # a victim that is none any more proves nothing
    assert (absent.outcome, absent.code, absent.is_failure) == (Outcome.SAME, "expected_loss_absent", True)


def test_other_images_are_incomparable():
    ours = accuracy_with()
    for other, word in (
        (accuracy_with(n=9_999), "0..9998"),
        (replace(ours, fingerprint="e" * 64), "contents"),
        (replace(ours, num_classes=11), "classes"),
    ):
        verdict = judge_against_reference_backend(ours, other, tolerance=TOLERANCE)
        assert verdict.outcome is Outcome.INCOMPARABLE
        assert word in verdict.message
        assert not verdict.is_failure
        assert apply_rules([verdict], strict=True)[0].is_failure


def test_reference_backend_and_kernel_gates_use_the_same_rule():
    reference, ours = pair_with(lost=120, gained=0)
    verdict = judge_against_reference_backend(ours, reference, tolerance=TOLERANCE)
    assert (verdict.gate, verdict.outcome) == ("reference", Outcome.REGRESSED)
    assert "FP32 on ort" in verdict.message
    kernel = judge_kernel_loss(ours, reference, tolerance=TOLERANCE)
    assert (kernel.gate, kernel.code, kernel.is_failure) == ("kernel", "kernel_loss", True)
    assert "7-bit" in kernel.advice


def test_loss_is_split_at_the_float_emulation():
    fp32, emulation = accuracy_with(wrong=[0]), accuracy_with(wrong=[1, 2, 3])
    engine = accuracy_with(wrong=[2, 4], other=[3])
    split = loss_split(fp32, emulation, engine)
    assert (split.quantization_lost, split.quantization_gained) == (3, 1)
    assert (split.kernel_lost, split.kernel_gained, split.n_kernel_changed) == (1, 1, 3)
    assert split.emulation_top1 == pytest.approx(0.9997)
    with pytest.raises(MeasurementError, match="different images"):
        loss_split(fp32, accuracy_with(n=100), engine)


@pytest.mark.parametrize(
    ("n_wrong", "outcome", "code"),
    [
        (50, Outcome.SAME, "above_floor"),
        (90, Outcome.INCONCLUSIVE, "near_floor"),
        (200, Outcome.REGRESSED, "below_floor"),
    ],
)
def test_floor_is_judged_by_the_exact_interval(n_wrong, outcome, code):
    verdict = judge_floor(accuracy_with(wrong=range(n_wrong)), 0.99, alpha=0.001)
    assert (verdict.outcome, verdict.code) == (outcome, code)
    assert verdict.is_failure is (outcome is Outcome.REGRESSED)
    assert "99.00 %" in verdict.message


def test_a_perfect_score_meets_a_floor_of_one():
    assert judge_floor(accuracy_with(n=50), 0.0, alpha=0.001).outcome is Outcome.SAME
    assert judge_floor(accuracy_with(n=50), 1.0, alpha=0.001).outcome is Outcome.INCONCLUSIVE
    assert judge_floor(accuracy_with(n=50, wrong=[3]), 1.0, alpha=0.001).outcome is Outcome.REGRESSED


def damaged_scores():
    good = accuracy_with(n=100)
    margins = good.margins.array().copy()
    margins[5] = np.nan
    yield replace(good, margins=PackedArray.of(margins))
    yield replace(good, top1_hits=PackedArray.of(np.packbits(np.zeros(100, bool))))
    yield replace(good, predictions=PackedArray.of(np.zeros(99, np.uint8)))
    yield accuracy_from(np.empty(0, int))


@pytest.mark.parametrize("damaged", list(damaged_scores()), ids=["nan", "hits", "lengths", "empty"])
def test_damaged_scores_never_pass(damaged):
    good = accuracy_with(n=100)
    with pytest.raises(MeasurementError):
        judge_floor(damaged, 0.5, alpha=0.001)
    for ours, reference in ((damaged, good), (good, damaged)):
        with pytest.raises(MeasurementError):
            judge_against_fp32(ours, reference, tolerance=TOLERANCE)
        with pytest.raises(MeasurementError):
            judge_kernel_loss(ours, reference, tolerance=TOLERANCE)


@pytest.mark.parametrize("wrong", [{"max_drop": math.nan}, {"alpha": math.nan}, {"max_drop": -0.1}])
def test_tolerances_that_are_no_numbers_never_pass(wrong):
    with pytest.raises(MeasurementError):
        against_fp32(0, 0, tolerance=Tolerance(**wrong))


def test_nan_floor_never_passes():
    with pytest.raises(MeasurementError):
        judge_floor(accuracy_with(), math.nan, alpha=0.001)


def baseline_verdict(lost, gained=0):
    from harness.stats import mcnemar_p

    p = mcnemar_p(lost, gained)
    outcome = Outcome.REGRESSED if p <= 0.001 and lost > gained else Outcome.SAME
    return Verdict(
        gate="baseline",
        outcome=outcome,
        code="lost_images",
        message="m",
        is_failure=outcome is Outcome.REGRESSED,
        p_value=p,
        n_lost=lost,
        n_gained=gained,
    )


def joint(verdicts, alpha=0.001):
    smallest = [smallest_p_of(verdict) if verdict.gate == "baseline" else 0.0 for verdict in verdicts]
    return holm(verdicts, alpha=alpha, smallest=smallest)


def test_holm_spares_a_night_in_which_one_case_moved():
    verdicts = joint([baseline_verdict(0)] * 29 + [baseline_verdict(11)])
    assert verdicts[-1].is_failure
    assert not any(v.is_failure for v in verdicts[:-1])


def test_holm_asks_more_of_each_case_when_many_moved():
    restless = [baseline_verdict(12, 11)] * 29
    weak = joint([*restless, baseline_verdict(11)])[-1]
    assert (weak.outcome, weak.code, weak.is_failure) == (Outcome.INCONCLUSIVE, "not_among_many", False)
    assert "30 tests" in weak.message
    assert joint([*restless, baseline_verdict(20)])[-1].is_failure


def test_holm_knows_gates_of_one_family():
    together = replace(baseline_verdict(11), gate="joint")
    apart = holm([baseline_verdict(11), together], alpha=0.001)
    assert all(verdict.is_failure for verdict in apart)
    as_one = holm([baseline_verdict(11), together], alpha=0.001, families={"joint": "baseline"})
    assert not any(verdict.is_failure for verdict in as_one)


def test_holm_treats_each_gate_as_a_family_and_keeps_order():
    floor = replace(baseline_verdict(11), gate="fp32")
    untested = Verdict(gate="invariance", outcome=Outcome.SAME, code="slot", message="m")
    verdicts = joint([floor, untested, baseline_verdict(11)])
    assert [v.gate for v in verdicts] == ["fp32", "invariance", "baseline"]
    assert verdicts[0].is_failure
    assert verdicts[2].is_failure
    assert joint([]) == ()
    with pytest.raises(MeasurementError):
        joint([replace(floor, p_value=math.nan)])


@pytest.mark.parametrize(
    ("outcome", "gate", "strict", "require", "fails"),
    [
        (Outcome.SAME, "baseline", True, True, False),
        (Outcome.INCONCLUSIVE, "baseline", False, True, False),
        (Outcome.INCONCLUSIVE, "baseline", True, False, True),
        (Outcome.NO_BASELINE, "baseline", True, False, False),
        (Outcome.NO_BASELINE, "baseline", False, True, True),
        (Outcome.INCOMPARABLE, "baseline", False, True, True),
        (Outcome.INCOMPARABLE, "baseline", True, False, False),
        (Outcome.INCOMPARABLE, "fp32", True, False, True),
    ],
)
def test_options_say_what_fails(outcome, gate, strict, require, fails):
    verdict = Verdict(gate=gate, outcome=outcome, code="x", message="m")
    assert (
        apply_rules([verdict], strict=strict, require_baseline=require, baseline_gates=("baseline",))[0].is_failure
        is fails
    )
