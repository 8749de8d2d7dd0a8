"""Gate: FP32 agrees with the labels better than chance; a set-up that cannot be right is named before a loss is."""

from __future__ import annotations

import numpy as np

from harness.errors import MeasurementError
from harness.gates._accuracy import check_accuracy
from harness.gates._gate import Evidence, Gate
from harness.gates._paired import level
from harness.records import Accuracy, Outcome, Verdict, percent
from harness.stats import confusion_matrix, kappa_interval

MIN_KAPPA = 0.05  # an agreement below it is none, however many images say so
MIN_IMAGES = 100  # of fewer, chance is told and not failed
CAUSES = (
    "check in this order: the label offset (a background class before the others), the scale, mean and std of the "
    "input, the number of classes, the layout (NCHW, NHWC), the label file; --allow-chance where this is meant"
)


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge whether the predictions have anything to do with the labels, by Cohen's kappa."""
    record = evidence.record
    if record.accuracy is None:
        return ()
    return (judge_chance(record.accuracy, alpha=record.tolerance.alpha, allows=record.allows_chance),)


def judge_chance(accuracy: Accuracy, *, alpha: float, allows: bool = False) -> Verdict:
    """Judge predictions against labels: no better than chance when kappa is below 0.05, or its interval reaches 0.

    Raises: MeasurementError for NaN or no images.
    """
    check_accuracy(accuracy)
    labels, predictions = (packed.array().astype(np.int64) for packed in (accuracy.labels, accuracy.predictions))
    table = confusion_matrix(labels, predictions, accuracy.num_classes)
    rate = f"top-1 {percent(accuracy.top1)} of {accuracy.n_images} images"
    try:
        kappa, low, high = kappa_interval(table, 1 - 2 * alpha)
    except MeasurementError as error:
        if accuracy.top1 == 1:
            return _verdict(Outcome.SAME, "all_right", f"{rate}: every one is right")
        kappa, low, told = 0.0, 0.0, str(error)
    else:
        told = f"Cohen's kappa {kappa:.3f}, {level(alpha)} interval {low:.3f} to {high:.3f}"
    if low > 0 and kappa >= MIN_KAPPA:
        return _verdict(Outcome.SAME, "better_than_chance", f"{rate} ({told}) is better than chance")
    message = f"{rate} ({told}) is no better than chance"
    if allows:
        return _verdict(Outcome.INCONCLUSIVE, "chance_allowed", message)
    if accuracy.n_images < MIN_IMAGES:
        return _verdict(Outcome.INCONCLUSIVE, "few_images", message)
    # Not a loss, so not REGRESSED: these scores say nothing of the model at all.
    return _verdict(Outcome.INCOMPARABLE, "no_better_than_chance", message)


def _verdict(outcome: Outcome, code: str, message: str) -> Verdict:
    failed = outcome is Outcome.INCOMPARABLE
    return Verdict(
        gate=GATE.name, outcome=outcome, code=code, message=message, advice=CAUSES if failed else "", is_failure=failed
    )


GATE = Gate(
    name="chance",
    summary="FP32 agrees with the labels better than chance",
    needs=("accuracy",),
    applies=lambda candidate: candidate.is_source and not candidate.timing_only,
    judge=judge,
    order=5,
    judges_outputs=True,
)
