"""The one decision rule of all paired gates, and the words it is told in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.records import Outcome, Verdict, percent, points
from harness.stats import (
    images_needed,
    loss_beyond_margin_p,
    loss_interval,
    loss_within_margin_p,
    mcnemar_p,
    smallest_flagged_loss,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What changed between a reference and an engine on the same images [images]."""

    n: int
    n_right: int  # of this engine
    n_right_reference: int
    n_lost: int
    n_gained: int
    n_changed: int  # predictions that differ, right or wrong
    n_repeats: int = 0  # left out of all counts: images whose pixels are among those counted

    @property
    def loss(self) -> float:
        """Return the observed loss of top-1 [fraction]; a gain is negative."""
        return (self.n_lost - self.n_gained) / self.n

    @property
    def counts(self) -> tuple[int, int, int]:
        """Return (n_lost, n_gained, n), as the statistics take them."""
        return self.n_lost, self.n_gained, self.n


def changes_between(
    reference_hits: NDArray[np.bool_],
    hits: NDArray[np.bool_],
    changed: NDArray[np.bool_] | None = None,
    *,
    kinds: NDArray[np.int64] | None = None,
) -> Changes:
    """Count what changed; `changed`: bool[N], predictions that differ (default: hits that differ).

    `kinds`: int64[N], the same for images with the same pixels: of each the first counts, because paired tests take
    images for independent.
    Raises: MeasurementError for arrays of different lengths or without images.
    """
    if reference_hits.shape != hits.shape or hits.ndim != 1 or hits.size == 0:
        raise MeasurementError(f"hits of {reference_hits.shape} and {hits.shape} images do not pair up")
    differ = reference_hits != hits if changed is None else changed
    n_all = hits.size
    if kinds is not None:
        once = np.unique(kinds, return_index=True)[1]
        reference_hits, hits, differ = reference_hits[once], hits[once], differ[once]
    return Changes(
        n=int(hits.size),
        n_right=int(hits.sum()),
        n_right_reference=int(reference_hits.sum()),
        n_lost=int((reference_hits & ~hits).sum()),
        n_gained=int((~reference_hits & hits).sum()),
        n_changed=int(differ.sum()),
        n_repeats=int(n_all - hits.size),
    )


def judge_margin(gate: str, changes: Changes, *, margin: float, alpha: float, against: str) -> Verdict:
    """Judge a loss against an accepted one: paired, with the interval of the loss.

    REGRESSED when the loss is beyond the margin (Tango's score test) and is a loss at all (exact McNemar test);
    IMPROVED when the gain is real; SAME when the loss is within the margin; otherwise INCONCLUSIVE. Each statement is
    wrong at most at the rate alpha; the interval shown is the matching one, of 1 - 2 alpha.
    Raises: MeasurementError for a margin or alpha that is no fraction.
    """
    check_tolerance(margin, alpha)
    p_beyond = loss_beyond_margin_p(*changes.counts, margin)
    p_any = mcnemar_p(changes.n_lost, changes.n_gained)
    is_real = p_any <= alpha
    code, advice = "", ""
    if is_real and changes.loss > 0 and p_beyond <= alpha:
        outcome, code = Outcome.REGRESSED, "loss_beyond_margin"
        advice = "look at the flipped images and the confusions that moved; raise max_drop only if this loss is wanted"
    elif is_real and changes.loss < 0:
        outcome, code = Outcome.IMPROVED, "gained_images"
    elif loss_within_margin_p(*changes.counts, margin) <= alpha:
        outcome = Outcome.SAME
        code = "real_loss_within_margin" if is_real else "within_margin"
    else:
        outcome, code = Outcome.INCONCLUSIVE, "too_few_images"
        advice = _advice_for_more(changes, margin=margin, alpha=alpha)
    tail = f"accepted is a loss of {points(margin)}"
    if code == "real_loss_within_margin":
        tail = f"significant loss of {points(changes.loss)}, within the accepted {points(margin)}"
    return _paired_verdict(
        gate,
        changes,
        outcome=outcome,
        code="identical" if changes.n_changed == 0 and outcome is Outcome.SAME else code,
        tail=tail,
        advice=advice,
        alpha=alpha,
        p_value=p_beyond,
        p_test=f"Tango's score test of a loss beyond {points(margin)}",
        detectable=smallest_loss_beyond(changes, margin=margin, alpha=alpha),
        against=against,
    )


def judge_identity(
    gate: str, changes: Changes, *, margin: float, margin_same: float, alpha: float, against: str
) -> Verdict:
    """Judge predictions that should be identical: any loss that chance does not explain is a regression.

    REGRESSED when the exact two-sided McNemar test says that more images were lost than gained (and, with a margin
    above 0, the loss is beyond it); IMPROVED the other way round; SAME when the predictions are identical or the loss
    lies within `margin_same`; otherwise INCONCLUSIVE. Every changed image is stated.
    Raises: MeasurementError for a margin or alpha that is no fraction.
    """
    check_tolerance(margin, alpha)
    check_tolerance(margin_same, alpha)
    p_any = mcnemar_p(changes.n_lost, changes.n_gained)
    is_beyond = margin == 0 or loss_beyond_margin_p(*changes.counts, margin) <= alpha
    advice = ""
    if p_any <= alpha and changes.loss > 0 and is_beyond:
        outcome, code = Outcome.REGRESSED, "lost_images"
    elif p_any <= alpha and changes.loss < 0:
        outcome, code = Outcome.IMPROVED, "gained_images"
    elif changes.n_changed == 0:
        outcome, code = Outcome.SAME, "identical"
    elif loss_within_margin_p(*changes.counts, max(margin, margin_same)) <= alpha:
        outcome, code = Outcome.SAME, "changed_predictions"
    else:
        outcome, code = Outcome.INCONCLUSIVE, "too_few_images"
        advice = _advice_for_more(changes, margin=max(margin, margin_same), alpha=alpha)
    detectable = smallest_loss_beyond(changes, margin=margin, alpha=alpha)
    return _paired_verdict(
        gate,
        changes,
        outcome=outcome,
        code=code,
        tail=f"accepted is a loss of {points(margin)}" if margin else "",
        advice=advice,
        alpha=alpha,
        p_value=p_any,
        p_test="McNemar's exact test",
        detectable=detectable,
        against=against,
    )


def smallest_loss_beyond(changes: Changes, *, margin: float, alpha: float) -> float | None:
    """Return the smallest net loss on these images, with as many gained, that is called REGRESSED [fraction].

    None when these images cannot show a loss beyond the margin at all.
    """
    n_gained, n = changes.n_gained, changes.n
    low, high = smallest_flagged_loss(n_gained, alpha), n - 2 * n_gained
    if low > high:
        return None
    if margin > 0:
        while low < high:  # the p-value falls as the loss grows
            middle = (low + high) // 2
            if loss_beyond_margin_p(middle + n_gained, n_gained, n, margin) <= alpha:
                high = middle
            else:
                low = middle + 1
        if loss_beyond_margin_p(low + n_gained, n_gained, n, margin) > alpha:
            return None
    return low / n


def check_tolerance(margin: float, alpha: float) -> None:
    """Check that a tolerance can judge anything. Raises: MeasurementError for NaN or values out of range."""
    if not 0 <= margin < 1:
        raise MeasurementError(f"an accepted loss of {margin} is not a fraction of images from 0 to 1")
    if not 0 < alpha < 0.5:
        raise MeasurementError(f"alpha {alpha} is not a false-alarm rate between 0 and 0.5")


def level(alpha: float) -> str:
    """Return the level of a two-sided interval whose ends are each wrong at a rate of alpha: "99.8 %"."""
    return f"{100 * (1 - 2 * alpha):.12g} %"


def _paired_verdict(
    gate: str,
    changes: Changes,
    *,
    outcome: Outcome,
    code: str,
    tail: str,
    advice: str,
    alpha: float,
    p_value: float,
    p_test: str,
    detectable: float | None,
    against: str,
) -> Verdict:
    low, high = loss_interval(*changes.counts, 1 - 2 * alpha)
    value, reference = changes.n_right / changes.n, changes.n_right_reference / changes.n
    p_any = mcnemar_p(changes.n_lost, changes.n_gained)
    told = (
        f"top-1 {percent(value)} against {percent(reference)} of {against} on {_images(changes)}: {_moved(changes)}"
        f" (McNemar p = {p_any:.2g}, {level(alpha)} interval of the loss {100 * low:+.2f} to "
        f"{100 * high:+.2f} points)"
    )
    if outcome is Outcome.INCONCLUSIVE and not changes.n_changed:
        told = (
            f"top-1 {percent(value)} on {_images(changes)}, the predictions identical to those of {against}: so few "
            f"cannot rule out a loss of up to {points(high)} on others ({level(alpha)} interval)"
        )
    parts = [told, tail]
    if outcome is not Outcome.REGRESSED:
        parts.append(
            f"a net loss of {round(detectable * changes.n)} images ({points(detectable)}) would have failed"
            if detectable is not None
            else "no loss could have failed on so few images"
        )
    return Verdict(
        gate=gate,
        outcome=outcome,
        code=code,
        message="; ".join(part for part in parts if part),
        advice=advice,
        is_failure=outcome is Outcome.REGRESSED,
        value=value,
        baseline_value=reference,
        change_low=-high,
        change_high=-low,
        p_value=p_value,
        p_test=p_test,
        n_lost=changes.n_lost,
        n_gained=changes.n_gained,
        detectable=detectable,
    )


def _images(changes: Changes) -> str:
    if not changes.n_repeats:
        return f"{changes.n} images"
    repeats = "1 repeat of them" if changes.n_repeats == 1 else f"{changes.n_repeats} repeats of them"
    return f"{changes.n} images ({repeats} left out)"


def _moved(changes: Changes) -> str:
    if changes.n_changed == 0:
        return "identical predictions"
    both_wrong = changes.n_changed - changes.n_lost - changes.n_gained
    told = f"{changes.n_lost} lost, {changes.n_gained} gained"
    return f"{told}, {both_wrong} wrong in another way" if both_wrong else told


def _advice_for_more(changes: Changes, *, margin: float, alpha: float) -> str:
    if changes.loss >= margin:
        return f"the observed loss of {points(changes.loss)} is not below the accepted one; score more images"
    needed = images_needed(margin - max(changes.loss, 0.0), alpha=alpha, change_rate=changes.n_changed / changes.n)
    return f"score at least {needed} images (--score-images {needed}) to tell a loss of {points(margin)} from none"
