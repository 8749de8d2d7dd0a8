"""Metrics of samples, two engines on the same ones: the decision, and the words it is told in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.gates._accuracy import incomparable
from harness.gates._paired import check_tolerance, level
from harness.gates._slices import worst_slice
from harness.records import MetricScore, MetricSlices, Outcome, SampleScores, Verdict, percent, points
from harness.stats import MeanChange, change_of_means, change_of_resamples

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePair:
    """The leading metric of an engine and the same metric of another one, on the same samples."""

    ours: MetricScore
    theirs: MetricScore
    against: str  # in words: whose the other one is

    def losses(self) -> Floats:
        """Return float64[N]: how much worse each sample alone does; NaN where there is nothing to score."""
        return self._sign * (_array(self.ours) - _array(self.theirs))

    def change(self, *, margin: float, alpha: float) -> MeanChange:
        """Test the loss against a margin in the metric's own unit. Raises: MeasurementError for damaged numbers."""
        ours, theirs, is_fraction = self.ours, self.theirs, self.ours.is_fraction
        if ours.resamples is None or theirs.resamples is None:
            losses = self.losses()
            if not np.isfinite(losses).all():
                raise MeasurementError(f"{ours.name} of a sample is not a number: the record is damaged")
            return change_of_means(losses, margin=margin, alpha=alpha, is_fraction=is_fraction)
        resampled = self._sign * (_resamples(ours) - _resamples(theirs))
        loss = self._sign * (ours.value - theirs.value)
        return change_of_resamples(
            loss, resampled, n=ours.n_samples, margin=margin, alpha=alpha, is_fraction=is_fraction
        )

    def margin(self, accepted: float) -> float:
        """Return an accepted loss in the metric's own unit: of what is no fraction, a share of the other's value."""
        return accepted if self.ours.is_fraction else accepted * abs(self.theirs.value)

    @property
    def is_identical(self) -> bool:
        """Tell whether every sample scores the same, and the metric with them."""
        losses = self.losses()
        is_same = not np.nan_to_num(losses).any() and self.ours.value == self.theirs.value
        if self.ours.resamples is None or self.theirs.resamples is None:
            return is_same
        return is_same and bool((_resamples(self.ours) == _resamples(self.theirs)).all())

    @property
    def _sign(self) -> float:
        return -1.0 if self.ours.higher_is_better else 1.0


def _array(metric: MetricScore) -> Floats:
    return metric.values.array().astype(np.float64)


def _resamples(metric: MetricScore) -> Floats:
    return metric.resamples.array().astype(np.float64) if metric.resamples is not None else np.empty(0)


def sample_differences(ours: SampleScores, theirs: SampleScores) -> tuple[str, ...]:
    """Return what says that two scores are not of the same samples and metric; empty when they are."""
    found = []
    for name, a, b in (("task", ours.task, theirs.task), ("samples", ours.source, theirs.source)):
        if a != b:
            found.append(f"{name} {a} and {b}")
    if not found and ours.ids != theirs.ids:
        found.append(f"samples of {ours.source} ({_ids_text(ours)} and {_ids_text(theirs)})")
    elif not found and ours.fingerprint != theirs.fingerprint:
        found.append(f"contents of {ours.source} ({ours.fingerprint[:8]} and {theirs.fingerprint[:8]})")
    names = sorted(ours.settings.keys() | theirs.settings.keys())
    pairs = ((name, ours.settings.get(name, "default"), theirs.settings.get(name, "default")) for name in names)
    found += [f"[task] {name} {a} and {b}" for name, a, b in pairs if a != b]
    leading = ours.leading
    if leading is not None and _metric_of(theirs, leading) is None:
        known = ", ".join(metric.name for metric in theirs.metrics)
        found.append(f"metrics {leading.name} and {known or 'none'}")
    return tuple(found)


def _ids_text(scores: SampleScores) -> str:
    return f"{scores.n_samples} from {scores.ids[0]}" if scores.ids else "none"


def _metric_of(scores: SampleScores, wanted: MetricScore) -> MetricScore | None:
    """Return the metric that may be compared with a wanted one: of its name, direction and resamples."""
    kind = _kind(wanted)
    return next((metric for metric in scores.metrics if _kind(metric) == kind), None)


def _kind(metric: MetricScore) -> tuple[object, ...]:
    shape = metric.resamples.shape if metric.resamples is not None else ()
    return metric.name, metric.higher_is_better, metric.is_fraction, shape


def pair_of(ours: SampleScores, theirs: SampleScores, *, against: str) -> SamplePair:
    """Return the leading metric on both sides. Raises: MeasurementError for scores that `sample_differences` parts."""
    leading = ours.leading
    other = None if leading is None else _metric_of(theirs, leading)
    if leading is None or other is None:
        raise MeasurementError(f"{against} has no such metric")
    for metric in (leading, other):
        if not np.isfinite(metric.value):
            raise MeasurementError(f"{metric.name} is not a number: the record is damaged")
    return SamplePair(ours=leading, theirs=other, against=against)


def judge_samples(
    gate: str, ours: SampleScores, theirs: SampleScores, *, accepted: float, alpha: float, against: str
) -> Verdict:
    """Judge the loss of the leading metric against an accepted one, as `_paired.judge_margin` judges images.

    `accepted`: in points of a metric of 0 to 1, of others as a share of the other side's value.
    Raises: MeasurementError for NaN, or a tolerance that is no fraction.
    """
    check_tolerance(accepted, alpha)
    different = sample_differences(ours, theirs)
    if different:
        return incomparable(gate, different, against=against, advice="score both on the same samples")
    pair = pair_of(ours, theirs, against=against)
    margin = pair.margin(accepted)
    change = pair.change(margin=margin, alpha=alpha)
    is_real = change.p_any <= alpha
    code, advice = "", ""
    if is_real and change.loss > 0 and change.p_beyond <= alpha:
        outcome, code = Outcome.REGRESSED, "loss_beyond_margin"
        advice = "look at the samples that lost most; raise max_drop only if this loss is wanted"
    elif is_real and change.loss < 0:
        outcome, code = Outcome.IMPROVED, "gained"
    elif change.p_within <= alpha:
        outcome, code = Outcome.SAME, "real_loss_within_margin" if is_real else "within_margin"
    else:
        outcome, code, advice = Outcome.INCONCLUSIVE, "too_few_samples", "score more samples"
    tail = f"accepted is a loss of {_accepted_text(pair, accepted)}"
    return _verdict(gate, ours, theirs, pair, change, outcome=outcome, code=code, tail=tail, advice=advice, alpha=alpha)


def judge_same_samples(
    gate: str,
    ours: SampleScores,
    theirs: SampleScores,
    *,
    accepted: float,
    accepted_same: float,
    alpha: float,
    against: str,
) -> Verdict:
    """Judge a metric that should be the same: any loss that chance does not explain is a regression.

    As `_paired.judge_identity` judges predictions; `accepted_same`: a loss known to be smaller is SAME.
    Raises: MeasurementError for NaN, or a tolerance that is no fraction.
    """
    for tolerance in (accepted, accepted_same):
        check_tolerance(tolerance, alpha)
    pair = pair_of(ours, theirs, against=against)

    def change_at(share: float) -> MeanChange:
        return pair.change(margin=pair.margin(share), alpha=alpha)

    change = change_at(accepted)
    is_real, is_beyond = change.p_any <= alpha, accepted == 0 or change.p_beyond <= alpha
    advice = ""
    if is_real and change.loss > 0 and is_beyond:
        outcome, code = Outcome.REGRESSED, "lost"
    elif is_real and change.loss < 0:
        outcome, code = Outcome.IMPROVED, "gained"
    elif pair.is_identical:
        outcome, code = Outcome.SAME, "identical"
    elif change_at(max(accepted, accepted_same)).p_within <= alpha:
        outcome, code = Outcome.SAME, "changed_samples"
    else:
        outcome, code, advice = Outcome.INCONCLUSIVE, "too_few_samples", "score more samples"
    tail = f"accepted is a loss of {_accepted_text(pair, accepted)}" if accepted else ""
    verdict = _verdict(
        gate, ours, theirs, pair, change, outcome=outcome, code=code, tail=tail, advice=advice, alpha=alpha
    )
    test = "sign-flip test" if pair.ours.resamples is None else "paired bootstrap"
    return verdict if accepted else replace(verdict, p_value=change.p_any, p_test=test)


def _difference(value: float, metric: MetricScore) -> str:
    """Return a difference of two values in words."""
    return points(value) if metric.is_fraction else f"{value:.3g} {metric.unit}".rstrip()


def _accepted_text(pair: SamplePair, accepted: float) -> str:
    if pair.ours.is_fraction:
        return points(accepted)
    return f"{percent(accepted)} of {pair.against}'s value ({_difference(pair.margin(accepted), pair.ours)})"


def _verdict(
    gate: str,
    ours: SampleScores,
    theirs: SampleScores,
    pair: SamplePair,
    change: MeanChange,
    *,
    outcome: Outcome,
    code: str,
    tail: str,
    advice: str,
    alpha: float,
) -> Verdict:
    metric = pair.ours
    low, high = (f"{'+' if value > 0 else ''}{_difference(value, metric)}" for value in (change.low, change.high))
    values = f"{metric.in_words(metric.value)} against {metric.in_words(pair.theirs.value)} of {pair.against}"
    span = f"{level(alpha)} interval of the loss {low} to {high}"
    told = f"{metric.name} {values} on {change.n} samples: {_moved(pair)} (p = {change.p_any:.2g}, {span})"
    if outcome is Outcome.INCONCLUSIVE and pair.is_identical and np.isfinite(change.high):
        told = (
            f"{metric.name} {metric.in_words(metric.value)} on {change.n} samples, the same on each as {pair.against}: "
            f"so few cannot rule out a loss of up to {_difference(change.high, metric)} on others ({level(alpha)} "
            "interval)"
        )
    parts = [told, tail]
    if outcome is not Outcome.REGRESSED:
        seen = change.detectable
        parts.append(
            "no loss could have failed on so few samples"
            if seen is None
            else f"a loss of {_difference(seen, metric)} would have failed"
        )
    worst = worst_slice(_slices_of(ours), _slices_of(theirs), alpha=alpha)
    parts.append(worst)
    return Verdict(
        gate=gate,
        outcome=outcome,
        code="identical" if outcome is Outcome.SAME and pair.is_identical else code,
        message="; ".join(part for part in parts if part),
        advice=advice,
        is_failure=outcome is Outcome.REGRESSED,
        value=metric.value,
        baseline_value=pair.theirs.value,
        change_low=-change.high if np.isfinite(change.high) else None,
        change_high=-change.low if np.isfinite(change.low) else None,
        p_value=change.p_beyond,
        p_test=change.test,
        detectable=change.detectable,
        metric=metric.name,
        worst_slice=worst,
    )


def _slices_of(scores: SampleScores) -> MetricSlices | None:
    return next((metric.slices for metric in scores.metrics if metric.slices is not None), None)


def _moved(pair: SamplePair) -> str:
    if pair.is_identical:
        return "all the same"
    losses = np.nan_to_num(pair.losses())
    n_worse, n_better = int((losses > 0).sum()), int((losses < 0).sum())
    return f"{n_worse} worse, {n_better} better"
