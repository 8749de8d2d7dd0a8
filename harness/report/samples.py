"""What a record's metrics of samples say, in words: made once here, printed everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.gates.metric_baseline import GATE as BASELINE
from harness.records import MetricScore, Record, SampleScores
from harness.report.format import (
    NO_BREAK,
    format_fraction,
    format_fraction_interval,
    format_number,
    format_points,
)

MAX_CHANGED = 20  # samples that are named, those that changed most first


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricChange:
    """A metric on one side against another on the same samples; `why_not` instead of numbers otherwise."""

    change: float | None = None  # in the metric's own unit; positive is better
    text: str = ""  # "−1.20 points"
    n_worse: int | None = None  # samples
    n_better: int | None = None
    why_not: str = ""

    @property
    def counts(self) -> str:
        """Return "14 worse, 3 better", "" where samples were not compared one by one."""
        if self.n_worse is None or self.n_better is None:
            return ""
        return f"{self.n_worse:,} worse, {self.n_better:,} better"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricView:
    """One metric of a case."""

    name: str
    summary: str
    value: float
    text: str
    interval: str  # at 95 %; MISSING of one sample
    against_fp32: MetricChange | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedSample:
    """One sample that scores otherwise than with FP32."""

    id: str
    before: str
    now: str
    is_worse: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplesView:
    """All metrics of a case, the leading one first, and what changed against FP32."""

    metrics: tuple[MetricView, ...]
    against_baseline: MetricChange | None
    against_previous: MetricChange | None
    worst_slice: str
    changed: tuple[ChangedSample, ...]
    n_changed: int
    scored: str  # "200 samples of mine/test, task detection"

    @property
    def leading(self) -> MetricView:
        """Return the metric that is shown first and gated."""
        return self.metrics[0]


def samples_view(record: Record, reference: Record | None, previous: Record | None) -> SamplesView | None:
    """Return what is to be told of a record's samples, None where no metric was scored.

    `reference`: FP32 of the same model and backend; `previous`: the case in the run before.
    """
    scores = record.samples
    if scores is None or scores.leading is None:
        return None
    theirs = reference.samples if reference is not None else None
    changed, n_changed = _changed(scores, theirs)
    return SamplesView(
        metrics=tuple(_view(metric, scores, theirs) for metric in scores.metrics),
        against_baseline=_told(record, scores.leading),
        against_previous=_against(scores.leading, scores, previous.samples if previous is not None else None),
        worst_slice=next((verdict.worst_slice for verdict in record.verdicts if verdict.worst_slice), ""),
        changed=changed,
        n_changed=n_changed,
        scored=f"{scores.n_samples:,} samples of {scores.source}, task {scores.task}",
    )


def metric_text(value: float, metric: MetricScore) -> str:
    """Return a metric's value: per cent of a fraction, else with its unit."""
    if metric.is_fraction:
        return format_fraction(value, n=metric.n_samples)
    return _with_unit(format_number(value, half_width=_half_width(metric)), metric)


def _view(metric: MetricScore, scores: SampleScores, theirs: SampleScores | None) -> MetricView:
    if metric.is_fraction:
        interval = format_fraction_interval(metric.low, metric.high, n=metric.n_samples)
    elif metric.low is None or metric.high is None:
        interval = format_fraction_interval(None, None)
    else:
        ends = [format_number(end, half_width=_half_width(metric)) for end in (metric.low, metric.high)]
        interval = _with_unit(" to ".join(ends), metric)
    return MetricView(
        name=metric.name,
        summary=metric.summary,
        value=metric.value,
        text=metric_text(metric.value, metric),
        interval=interval,
        against_fp32=_against(metric, scores, theirs),
    )


def _against(metric: MetricScore, scores: SampleScores, theirs: SampleScores | None) -> MetricChange | None:
    if theirs is None:
        return None
    if not _is_same(scores, theirs):
        return MetricChange(why_not="scored on other samples")
    other = next((one for one in theirs.metrics if one.name == metric.name), None)
    if other is None:
        return MetricChange(why_not="scored by another metric")
    gains = _gains(metric, other)
    return MetricChange(
        change=_signed(metric.value - other.value, metric),
        text=_change_text(metric.value - other.value, metric),
        n_worse=int((gains < 0).sum()),
        n_better=int((gains > 0).sum()),
    )


def _told(record: Record, metric: MetricScore) -> MetricChange | None:
    """Repeat what the gate of the baseline found."""
    for verdict in record.verdicts:
        if verdict.gate == BASELINE.name and verdict.was_compared and verdict.value is not None:
            change = verdict.value - (verdict.baseline_value or 0.0)
            return MetricChange(change=_signed(change, metric), text=_change_text(change, metric))
    return None


def _changed(scores: SampleScores, theirs: SampleScores | None) -> tuple[tuple[ChangedSample, ...], int]:
    """Return the samples whose own value moved most, and how many moved."""
    leading = scores.leading
    if theirs is None or leading is None or not _is_same(scores, theirs):
        return (), 0
    other = next((one for one in theirs.metrics if one.name == leading.name), None)
    if other is None:
        return (), 0
    gains = _gains(leading, other)
    order = np.argsort(-np.abs(gains), kind="stable")[: min(MAX_CHANGED, int(np.count_nonzero(gains)))]
    ours, before = (side.values.array().astype(np.float64) for side in (leading, other))
    named = tuple(
        ChangedSample(
            id=scores.ids[place],
            before=metric_text(float(before[place]), leading),
            now=metric_text(float(ours[place]), leading),
            is_worse=bool(gains[place] < 0),
        )
        for place in order.tolist()
    )
    return named, int(np.count_nonzero(gains))


def _gains(ours: MetricScore, theirs: MetricScore) -> NDArray[np.float64]:
    """Return float64[N]: how much better each sample scores alone; 0 where there is nothing to score."""
    difference = ours.values.array().astype(np.float64) - theirs.values.array().astype(np.float64)
    return np.nan_to_num(difference if ours.higher_is_better else -difference)


def _is_same(ours: SampleScores, theirs: SampleScores) -> bool:
    names = ("task", "source", "fingerprint", "ids", "settings")
    return all(getattr(ours, name) == getattr(theirs, name) for name in names)


def _signed(change: float, metric: MetricScore) -> float:
    return change if metric.higher_is_better else -change


def _change_text(change: float, metric: MetricScore) -> str:
    if metric.is_fraction:
        return format_points(change, n=metric.n_samples)
    return _with_unit(format_number(change, signed=True), metric)


def _half_width(metric: MetricScore) -> float:
    return 0.0 if metric.low is None or metric.high is None else (metric.high - metric.low) / 2


def _with_unit(text: str, metric: MetricScore) -> str:
    return f"{text}{NO_BREAK}{metric.unit}" if metric.unit else text


def worst_slices(records: Sequence[Record]) -> list[str]:
    """Return a line of every case in which a class lost significantly."""
    found = []
    for record in records:
        told = dict.fromkeys(verdict.worst_slice for verdict in record.verdicts if verdict.worst_slice)
        found += [f"worst class of {record.case.id}: {text}" for text in list(told)[:1]]
    return found
