"""Gates within one run: floor, FP32 of the same backend, FP32 of the reference backend, kernels of a Q/DQ file."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from harness.errors import MeasurementError
from harness.gates._paired import Changes, changes_between, check_tolerance, judge_margin, level
from harness.gates._slices import worst_class
from harness.records import Accuracy, LossSplit, Outcome, Verdict, percent
from harness.specs import REFERENCE_BACKEND, Tolerance
from harness.stats import (
    below_floor_p,
    clopper_pearson_interval,
    confusion_matrix,
    largest_confusion_moves,
)

MAX_CONFUSIONS = 3


def judge_floor(accuracy: Accuracy, floor: float, *, alpha: float) -> Verdict:
    """Judge top-1 against an absolute floor [fraction].

    REGRESSED when the exact interval lies wholly below the floor, SAME when wholly at or above it, otherwise
    INCONCLUSIVE: so few images cannot tell. Each statement is wrong at most at the rate alpha.
    Raises: MeasurementError for NaN, no images or a floor outside [0, 1].
    """
    check_tolerance(0.0, alpha)
    check_accuracy(accuracy)
    n_right, n = int(accuracy.hits().sum()), accuracy.n_images
    p_below = below_floor_p(n_right, n, floor)
    low, high = clopper_pearson_interval(n_right, n, 1 - 2 * alpha)
    interval = f"{level(alpha)} interval {percent(low)} to {percent(high)}"
    advice = tail = ""
    if p_below <= alpha:
        outcome, code, relation = Outcome.REGRESSED, "below_floor", "is below"
        advice = (
            "check preprocessing, labels and the model file first: a floor is missed by a fault, seldom by rounding"
        )
    elif low >= floor:
        outcome, code, relation = Outcome.SAME, "above_floor", "is above"
    else:
        outcome, code = Outcome.INCONCLUSIVE, "near_floor"
        relation, tail = ("is below" if n_right / n < floor else "is above"), ", but not significantly"
        advice = "score more images (--score-images)"
    return Verdict(
        gate="floor",
        outcome=outcome,
        code=code,
        message=f"top-1 {percent(n_right / n)} of {n} images ({interval}) {relation} the floor {percent(floor)}{tail}",
        advice=advice,
        is_failure=outcome is Outcome.REGRESSED,
        value=n_right / n,
        baseline_value=floor,
        change_low=low - floor,
        change_high=high - floor,
        p_value=p_below,
        p_test="exact binomial test of a rate below the floor",
    )


def judge_against_fp32(
    accuracy: Accuracy,
    reference: Accuracy,
    *,
    tolerance: Tolerance,
    expects_loss: bool = False,
) -> Verdict:
    """Judge a lower precision against FP32 on the same backend and images: non-inferiority with a margin.

    `expects_loss`: the case is a planted victim; its loss is stated and not failed, and its absence fails.
    Raises: MeasurementError for NaN or no images.
    """
    verdict = _judge_pair("fp32", accuracy, reference, tolerance=tolerance, against="FP32")
    return with_expected_loss(verdict) if expects_loss else verdict


def with_expected_loss(verdict: Verdict) -> Verdict:
    """Return a verdict on a planted victim against FP32: a loss is excused, and its absence is told."""
    if verdict.outcome is Outcome.INCOMPARABLE:
        return verdict
    if verdict.outcome is Outcome.REGRESSED:
        return excused(verdict)
    return replace(
        verdict,
        code="expected_loss_absent",
        is_failure=verdict.outcome in (Outcome.SAME, Outcome.IMPROVED),  # INCONCLUSIVE: too few images to see it
        message=f"a loss was expected of this model and did not show: {verdict.message}",
        advice="see whether the model still ran in INT8, or whether its card should no longer expect a loss",
    )


def judge_against_reference_backend(
    accuracy: Accuracy, reference: Accuracy, *, tolerance: Tolerance, source: str = "FP32"
) -> Verdict:
    """Judge an engine against FP32 on the reference backend: a wrong build of FP32 itself cannot hide.

    `source`: what ran there, in words. Raises: MeasurementError for NaN or no images.
    """
    against = f"{source} on {REFERENCE_BACKEND}"
    return _judge_pair("reference", accuracy, reference, tolerance=tolerance, against=against)


def excused(verdict: Verdict) -> Verdict:
    """Return a verdict of a planted victim: a loss is expected of it, stated and not failed."""
    if not verdict.is_failure:
        return verdict
    return replace(
        verdict, is_failure=False, code="expected_loss", message=f"expected of this model: {verdict.message}", advice=""
    )


def judge_kernel_loss(accuracy: Accuracy, emulation: Accuracy, *, tolerance: Tolerance) -> Verdict:
    """Judge an INT8 engine against the float emulation of its own Q/DQ file: only the kernels differ.

    Raises: MeasurementError for NaN or no images.
    """
    verdict = _judge_pair(
        "kernel", accuracy, emulation, tolerance=tolerance, against="the float emulation of the same Q/DQ file"
    )
    if verdict.outcome is not Outcome.REGRESSED:
        return verdict
    return replace(
        verdict,
        code="kernel_loss",
        advice="the file is right and the kernels lose: 8-bit kernels without VNNI saturate; quantize with 7-bit "
        f"weights (reduced range). {verdict.advice}",
    )


def loss_split(fp32: Accuracy, emulation: Accuracy, engine: Accuracy) -> LossSplit:
    """Split an INT8 loss: FP32 -> float emulation is quantization, emulation -> engine is the kernels.

    Raises: MeasurementError when the three were not scored on the same images.
    """
    for other in (emulation, engine):
        different = image_differences(fp32, other)
        if different:
            raise MeasurementError(f"a loss cannot be split over different images: {'; '.join(different)}")
    quantization, kernel = accuracy_changes(fp32, emulation), accuracy_changes(emulation, engine)
    return LossSplit(
        n_images=fp32.n_images,
        quantization_lost=quantization.n_lost,
        quantization_gained=quantization.n_gained,
        kernel_lost=kernel.n_lost,
        kernel_gained=kernel.n_gained,
        n_kernel_changed=kernel.n_changed,
        emulation_top1=emulation.top1,
    )


@lru_cache(maxsize=16)  # several gates look at the same scores
def check_accuracy(accuracy: Accuracy) -> None:
    """Check that scores are whole and agree with themselves.

    Raises: MeasurementError for no images, NaN margins, arrays of other lengths, or hits that contradict predictions.
    """
    n = accuracy.n_images
    labels, predictions = accuracy.labels.array(), accuracy.predictions.array()
    margins = accuracy.margins.array()
    if n < 1 or labels.shape != (n,) or predictions.shape != (n,) or margins.shape != (n,):
        raise MeasurementError(f"scores of {n} images hold {labels.shape} labels, {predictions.shape} predictions")
    if np.isnan(margins.astype(np.float64)).any():
        raise MeasurementError("the margins of some scored images are NaN: the outputs were not finite")
    if (accuracy.hits() != (labels == predictions)).any():
        raise MeasurementError("the stored hits contradict the stored predictions: the record is damaged")


def image_differences(ours: Accuracy, theirs: Accuracy) -> tuple[str, ...]:
    """Return what says that two scores are not of the same images and classes; empty when they are."""
    found = []
    if ours.images != theirs.images:
        found.append(f"images {range_text(ours)} and {range_text(theirs)}")
    elif ours.fingerprint != theirs.fingerprint:
        found.append(f"contents of {range_text(ours)} ({ours.fingerprint[:8]} and {theirs.fingerprint[:8]})")
    if ours.num_classes != theirs.num_classes:
        found.append(f"classes {ours.num_classes} and {theirs.num_classes}")
    return tuple(found)


def range_text(accuracy: Accuracy) -> str:
    """Return a range of images in words."""
    images = accuracy.images
    return f"{images.dataset}/{images.split} {images.first}..{images.stop - 1}"


def accuracy_changes(reference: Accuracy, accuracy: Accuracy) -> Changes:
    """Count what changed from one score to another of the same images."""
    changed = reference.predictions.array() != accuracy.predictions.array()
    return changes_between(reference.hits(), accuracy.hits(), changed, kinds=accuracy.kinds())


def confusion_advice(reference: Accuracy, accuracy: Accuracy) -> str:
    """Say which confusions of classes grew most; "" when none did."""
    before, now = (
        confusion_matrix(
            a.labels.array().astype(np.int64), a.predictions.array().astype(np.int64), accuracy.num_classes
        )
        for a in (reference, accuracy)
    )
    grown = [move for move in largest_confusion_moves(before, now) if move.change > 0][:MAX_CONFUSIONS]
    told = ", ".join(f"{move.label} read as {move.prediction}: {move.before} -> {move.now}" for move in grown)
    return f"confusions that grew most: {told}" if told else ""


def incomparable(gate: str, different: tuple[str, ...], *, against: str, advice: str) -> Verdict:
    """Return the verdict that two measurements may not be compared, and why."""
    return Verdict(
        gate=gate,
        outcome=Outcome.INCOMPARABLE,
        code="incomparable",
        message=f"not comparable with {against}: different {'; '.join(different)}",
        advice=advice,
    )


def _judge_pair(gate: str, accuracy: Accuracy, reference: Accuracy, *, tolerance: Tolerance, against: str) -> Verdict:
    check_accuracy(accuracy)
    check_accuracy(reference)
    different = image_differences(accuracy, reference)
    if different:
        return incomparable(gate, different, against=against, advice="score both on the same images")
    verdict = judge_margin(
        gate,
        accuracy_changes(reference, accuracy),
        margin=tolerance.max_drop,
        alpha=tolerance.alpha,
        against=against,
    )
    verdict = _with_ties(verdict, accuracy, reference)
    worst = worst_class(accuracy, reference, alpha=tolerance.alpha)
    if worst:
        verdict = replace(verdict, message=f"{verdict.message}; {worst}", worst_slice=worst)
    if verdict.outcome is not Outcome.REGRESSED:
        return verdict
    found = confusion_advice(reference, accuracy)
    return replace(verdict, advice=f"{found}; {verdict.advice}" if found else verdict.advice)


def _with_ties(verdict: Verdict, accuracy: Accuracy, reference: Accuracy) -> Verdict:
    """Say what the comparison would be if ties went to the last class: with many, top-1 is a choice of order."""
    if not (accuracy.has_many_ties or reference.has_many_ties):
        return verdict
    changes = changes_between(reference.hits_last(), accuracy.hits_last(), kinds=accuracy.kinds())
    other = (
        f"{accuracy.n_ties_top1} and {reference.n_ties_top1} images tie at the top; with ties to the last class, "
        f"not the first, top-1 {percent(changes.n_right / changes.n)} against "
        f"{percent(changes.n_right_reference / changes.n)}, {changes.n_lost} lost, {changes.n_gained} gained"
    )
    advice = "" if verdict.code == "too_few_images" else verdict.advice
    remedy = "score the logits, or another output that does not saturate"
    return replace(
        verdict, message=f"{verdict.message}; {other}", advice="; ".join(part for part in (remedy, advice) if part)
    )
