"""Records -> rows: every number that the reports show of a case, derived once; no markup and no text forms."""

from __future__ import annotations

import itertools
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.gates.baseline import GATE as BASELINE
from harness.gates.fp32 import GATE as FP32
from harness.options.commands import selection_of
from harness.records import Accuracy, Latency, PackedArray, Record, RecordKey, Run, Status
from harness.report.drifts import drift_text
from harness.report.samples import SamplesView, samples_view
from harness.report.standing import Standing, deciding_gate, finding, leading_verdict, standing_of
from harness.stats import LatencySummary, Ratio, mcnemar_p, ratio_of_rounds, summarize_latency, wilson_interval

PYTEST_SELECTORS = ("-k", "-m", "--deselect")
ANCHOR_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What changed hands between two engines on the same images; `why_not` instead of numbers otherwise."""

    against: str  # case id, baseline or run
    n_images: int = 0
    n_lost: int | None = None
    n_gained: int | None = None
    p_value: float | None = None  # exact two-sided McNemar
    why_not: str = ""

    @property
    def change(self) -> float | None:
        """Return the change of top-1 [fraction]; negative is a loss."""
        if self.n_lost is None or self.n_gained is None or not self.n_images:
            return None
        return (self.n_gained - self.n_lost) / self.n_images


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One batch size of a case: its latency in short, and its speed-up over FP32, and its time in the previous run."""

    latency: Latency
    summary: LatencySummary | None  # None when the stored samples are no times; `problem` says why
    speed_up: Ratio | None = None  # FP32 reference / this, round by round; None if they were timed in unlike ways
    previous: LatencySummary | None = None
    problem: str = ""

    @property
    def is_slower(self) -> bool:
        """Tell whether FP32 is surely faster: the whole interval of the speed-up lies below 1."""
        return self.speed_up is not None and self.speed_up.high is not None and self.speed_up.high < 1

    @property
    def is_significant(self) -> bool:
        """Tell whether the speed-up is one at all: its interval does not hold 1."""
        ratio = self.speed_up
        return ratio is not None and ratio.low is not None and ratio.high is not None and not ratio.low < 1 < ratio.high

    @property
    def mode(self) -> str:
        """Return in words by what clock and how the times were taken."""
        taken = self.latency
        parts = (
            f"{taken.clock} clock",
            f"{taken.launch} launch",
            "gated" if taken.gated else "",
            f"{taken.window} window",
        )
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Everything the matrix shows of one case."""

    record: Record
    anchor: str  # of the case's own section, unique in the run
    standing: Standing
    gate: str = ""  # that decided it
    finding: str = ""  # why it stands there, in a few words
    advice: str = ""
    top1: float | None = None
    top1_low: float | None = None
    top1_high: float | None = None
    against_fp32: Change | None = None
    against_baseline: Change | None = None  # as its gate counted
    against_previous: Change | None = None
    samples: SamplesView | None = None  # of a model that is no classifier of single images
    timings: tuple[Timing, ...] = ()
    previous: Record | None = None
    reference: Record | None = None

    @property
    def drift(self) -> str:
        """Return how far the outputs of any graph are from FP32's, "" where that was not measured."""
        return drift_text(self.record)

    @property
    def has_baseline(self) -> bool:
        """Tell whether something of it was compared with its baseline."""
        return self.against_baseline is not None or bool(self.samples and self.samples.against_baseline)

    @property
    def word(self) -> str:
        """Return the word for the outcome, and the gate that decided it: "regressed (fp32)"."""
        return f"{self.standing.word} ({self.gate})" if self.gate else self.standing.word

    @property
    def ran_as(self) -> str:
        """Return the precision most of the work ran in; "" when nothing was read back."""
        effective = self.record.effective_precision
        return effective.main if effective else ""

    @property
    def ran_share(self) -> float | None:
        """Return the share of the work that ran in that precision [fraction of time, or of layers]."""
        effective = self.record.effective_precision
        return (effective.by_time or effective.by_layer).get(effective.main) if effective else None

    @property
    def is_as_asked(self) -> bool:
        """Tell whether the engine ran in the precision asked for, as far as is known."""
        return self.ran_as in ("", "unknown", self.record.case.precision.value)

    @property
    def why_not_as_asked(self) -> str:
        """Return why it ran in another precision than asked; what ran beside it is told elsewhere."""
        effective = self.record.effective_precision
        if effective is None or effective.main == self.record.case.precision.value:
            return ""
        return "; ".join(part for part in effective.note.split("; ") if not part.startswith("beside them"))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what the engine's adapter wants heard: a damaged plan that was built anew, ..."""
        return self.record.engine.warnings if self.record.engine else ()

    def timing(self, batch_size: int) -> Timing | None:
        """Return the timing at one batch size."""
        return next((timing for timing in self.timings if timing.latency.batch_size == batch_size), None)


def rows_from_records(
    records: Sequence[Record], *, previous: tuple[Run, Sequence[Record]] | None = None
) -> tuple[Row, ...]:
    """Return one row a record, in the records' order; a case that ran twice gets two rows."""
    by_key = {record.key: record for record in records}
    earlier = {record.key: record for record in previous[1]} if previous else {}
    name = previous[0].id if previous else ""
    taken: dict[str, int] = {}
    return tuple(
        _row(
            record,
            anchor=_anchor(record.case.id, taken),
            reference=_reference_of(record, by_key),
            previous=earlier.get(record.key),
            previous_name=name,
        )
        for record in records
    )


def rows_by_reason(
    rows: Iterable[Row], told: Callable[[Row], tuple[str, ...]]
) -> list[tuple[tuple[str, ...], tuple[Row, ...]]]:
    """Return (what is told, rows) of those that are told the same, in the rows' order; ID stands for a case's name."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(text.replace(row.record.case.id, "ID") for text in told(row)), []).append(row)
    return [(key, tuple(group)) for key, group in groups.items()]


def missing_cases(run: Run, records: Sequence[Record], previous: tuple[Run, Sequence[Record]] | None) -> list[str]:
    """Return the ids of the previous run's cases that this run lacks, in its order.

    None when the two were started with another selection: what nobody asked for is not missing.
    """
    if previous is None or _selection(run) != _selection(previous[0]):
        return []
    here = {record.key for record in records}
    return [record.case.id for record in previous[1] if not record.is_reference and record.key not in here]


def _selection(run: Run) -> tuple[object, ...]:
    """Return what chose the cases of a run: our options, and pytest's -k, -m and test ids."""
    try:
        words = shlex.split(run.command)
    except ValueError:  # an open quote: not a command line that ran
        words = [run.command]
    chosen = [
        word
        for before, word in itertools.pairwise(["", *words])
        if before in PYTEST_SELECTORS or word.startswith(("-k", "-m", "--deselect")) or "::" in word
    ]
    return selection_of(run.options), tuple(chosen)


def timing_modes(rows: Iterable[Row]) -> list[tuple[str, int]]:
    """Return by what clock and how times were taken, and in how many cases, the most usual first."""
    return Counter(mode for row in rows for mode in {timing.mode for timing in row.timings}).most_common()


def batch_sizes(rows: Sequence[Row]) -> list[int]:
    """Return every timed batch size, ascending [images]."""
    return sorted({timing.latency.batch_size for row in rows for timing in row.timings})


@lru_cache(maxsize=256)
def top1_hits(accuracy_hits: PackedArray, n_images: int) -> NDArray[np.bool_]:
    """Return bool[N] of packed hits; a reference is unpacked once for all the cases compared with it."""
    return np.unpackbits(accuracy_hits.array().astype(np.uint8), count=n_images).astype(bool)


@lru_cache(maxsize=256)
def unpacked(packed: PackedArray) -> NDArray[np.generic]:
    """Return a stored array; labels and references are shared by many cases."""
    return packed.array()


def compare_hits(accuracy: Accuracy, reference: Accuracy, *, against: str) -> Change:
    """Return lost and gained images of two engines; only the same images may be compared."""
    if accuracy.fingerprint != reference.fingerprint or accuracy.n_images != reference.n_images:
        return Change(against=against, why_not="scored on other images")
    ours = top1_hits(accuracy.top1_hits, accuracy.n_images)
    theirs = top1_hits(reference.top1_hits, reference.n_images)
    if accuracy.repeats is not None:  # the same image twice says no more than once
        once = accuracy.are_first()
        ours, theirs = ours[once], theirs[once]
    n_lost, n_gained = int(np.count_nonzero(theirs & ~ours)), int(np.count_nonzero(ours & ~theirs))
    return Change(
        against=against,
        n_images=len(ours),
        n_lost=n_lost,
        n_gained=n_gained,
        p_value=_paired_p(n_lost, n_gained),
    )


@lru_cache(maxsize=4096)
def _paired_p(n_lost: int, n_gained: int) -> float:
    return mcnemar_p(n_lost, n_gained)


@lru_cache(maxsize=4096)
def _top1_interval(n_hits: int, n_images: int) -> tuple[float, float]:
    return wilson_interval(n_hits, n_images)


def _row(record: Record, *, anchor: str, reference: Record | None, previous: Record | None, previous_name: str) -> Row:
    accuracy, verdict = record.accuracy, leading_verdict(record)
    top1 = low = high = None
    if accuracy is not None and accuracy.n_images:
        n_hits = int(np.count_nonzero(top1_hits(accuracy.top1_hits, accuracy.n_images)))
        top1 = n_hits / accuracy.n_images
        low, high = _top1_interval(n_hits, accuracy.n_images)
    return Row(
        record=record,
        anchor=anchor,
        standing=standing_of(record),
        gate=deciding_gate(record),
        finding=finding(record),
        advice=verdict.advice if verdict is not None else "",
        top1=top1,
        top1_low=low,
        top1_high=high,
        against_fp32=_change_to(record, reference, against=reference.case.id if reference else "")
        or _change_told(record, FP32.name, against="FP32"),
        against_baseline=_change_told(record, BASELINE.name, against="the baseline"),
        against_previous=_change_since(record, previous, against=previous_name),
        samples=samples_view(record, reference, previous),
        timings=tuple(_timing(latency, record, previous) for latency in record.latencies),
        previous=previous,
        reference=reference,
    )


def _change_since(record: Record, previous: Record | None, *, against: str) -> Change | None:
    """Compare with the same case of an earlier run; after a bad night, a good case has gained nothing."""
    if previous is not None and previous.status in (Status.FAILED, Status.ERROR) and record.accuracy is not None:
        return Change(against=against, why_not=f"it ended in {previous.status} there")
    return _change_to(record, previous, against=against)


def _change_to(record: Record, other: Record | None, *, against: str) -> Change | None:
    """Compare with another record where both have scores."""
    if record.accuracy is None or other is None or other.accuracy is None:
        return None
    return compare_hits(record.accuracy, other.accuracy, against=against)


def _change_told(record: Record, gate: str, *, against: str) -> Change | None:
    """Repeat what a gate's verdict counted."""
    verdict = next((v for v in record.verdicts if v.gate == gate and v.n_lost is not None), None)
    if verdict is None or verdict.n_lost is None or verdict.n_gained is None or record.accuracy is None:
        return None
    return Change(
        against=against,
        n_images=record.accuracy.n_images,
        n_lost=verdict.n_lost,
        n_gained=verdict.n_gained,
        p_value=_paired_p(verdict.n_lost, verdict.n_gained),
    )


def _reference_of(record: Record, by_key: dict[RecordKey, Record]) -> Record | None:
    """Return the FP32 record that this one was compared with: the one it names, or its own backend's."""
    if record.case.is_source:
        return None
    named = [record.drift.reference_case] if record.drift else []
    named += [latency.reference_case for latency in record.latencies]
    plain = record.case.source_on(record.case.backend, record.case.device).id
    keys = (RecordKey(record.environment.device_type, name) for name in (*named, plain))
    return next((by_key[key] for key in keys if key in by_key), None)


def _timing(latency: Latency, record: Record, previous: Record | None) -> Timing:
    earlier = next((x for x in previous.valid_latencies if _same_protocol(x, latency)), None) if previous else None
    return timing_of(latency, void=record.void_of(latency), earlier=earlier)


def timing_of(latency: Latency, *, void: str = "", earlier: Latency | None = None) -> Timing:
    """Return what is derived of one latency; `void`: why it does not count; `earlier`: of the previous run."""
    if void := void or latency.void:
        return Timing(latency=latency, summary=None, problem=f"void: {void}")
    try:
        rounds = latency.rounds_ns.array()
        summary = summarize_latency(rounds)
        speed_up = (
            ratio_of_rounds(latency.paired_rounds_ns.array(), rounds) if latency.paired_rounds_ns is not None else None
        )
        before = summarize_latency(earlier.rounds_ns.array()) if earlier else None
    except MeasurementError as error:
        return Timing(latency=latency, summary=None, problem=str(error))
    return Timing(latency=latency, summary=summary, speed_up=speed_up, previous=before)


def _same_protocol(one: Latency, other: Latency) -> bool:
    fields = ("batch_size", "clock", "launch", "gated", "window")
    return all(getattr(one, name) == getattr(other, name) for name in fields)


def _anchor(case_id: str, taken: dict[str, int]) -> str:
    safe = "case-" + ANCHOR_UNSAFE.sub("_", case_id)[:120]
    taken[safe] = taken.get(safe, 0) + 1
    return safe if taken[safe] == 1 else f"{safe}--{taken[safe]}"
