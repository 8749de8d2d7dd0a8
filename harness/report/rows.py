"""Records -> rows: every number that the reports show of a case, derived once; no markup and no text forms."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.options.commands import selection_of
from harness.records import Accuracy, Latency, PackedArray, Record, Run
from harness.report.standing import Standing, standing_of
from harness.specs import Precision
from harness.stats import LatencySummary, Ratio, mcnemar_p, ratio_of_rounds, summarize_latency, wilson_interval

PYTEST_SELECTORS = ("-k", "-m", "--deselect")
ANCHOR_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What changed hands between two engines on the same images; `why_not` instead of numbers otherwise."""

    against: str  # case id, or the run of the baseline
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
    """One batch size of a case: its latency in short, and its speed-up over FP32 and the baseline."""

    latency: Latency
    summary: LatencySummary | None  # None when the stored samples are no times; `problem` says why
    speed_up: Ratio | None = None  # FP32 reference / this, round by round; None if they were timed in unlike ways
    baseline: LatencySummary | None = None
    problem: str = ""

    @property
    def is_slower(self) -> bool:
        """Tell whether FP32 is surely faster: the whole interval of the speed-up lies below 1."""
        return self.speed_up is not None and self.speed_up.high is not None and self.speed_up.high < 1

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
    top1: float | None = None
    top1_low: float | None = None
    top1_high: float | None = None
    against_fp32: Change | None = None
    against_baseline: Change | None = None
    timings: tuple[Timing, ...] = ()
    baseline: Record | None = None
    reference: Record | None = None

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

    def timing(self, batch_size: int) -> Timing | None:
        """Return the timing at one batch size."""
        return next((timing for timing in self.timings if timing.latency.batch_size == batch_size), None)


def rows_from_records(
    records: Sequence[Record], *, baseline: tuple[Run, Sequence[Record]] | None = None
) -> tuple[Row, ...]:
    """Return one row a record, in the records' order; a case that ran twice gets two rows."""
    by_id = {record.case.id: record for record in records}
    earlier = {record.case.id: record for record in baseline[1]} if baseline else {}
    name = baseline[0].id if baseline else ""
    taken: dict[str, int] = {}
    return tuple(
        _row(
            record,
            anchor=_anchor(record.case.id, taken),
            reference=_reference_of(record, by_id),
            baseline=earlier.get(record.case.id),
            baseline_name=name,
        )
        for record in records
    )


def missing_cases(run: Run, records: Sequence[Record], baseline: tuple[Run, Sequence[Record]] | None) -> list[str]:
    """Return the ids of the baseline's cases that this run lacks, in the baseline's order.

    None when the two were started with another selection: what nobody asked for is not missing.
    """
    if baseline is None or _selection(run) != _selection(baseline[0]):
        return []
    here = {record.case.id for record in records}
    return [record.case.id for record in baseline[1] if record.case.id not in here]


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
    """Return lost and won images of two engines; only the same images may be compared."""
    if accuracy.fingerprint != reference.fingerprint or accuracy.n_images != reference.n_images:
        return Change(against=against, why_not="scored on other images")
    ours = top1_hits(accuracy.top1_hits, accuracy.n_images)
    theirs = top1_hits(reference.top1_hits, reference.n_images)
    n_lost, n_gained = int(np.count_nonzero(theirs & ~ours)), int(np.count_nonzero(ours & ~theirs))
    return Change(
        against=against,
        n_images=accuracy.n_images,
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


def _row(record: Record, *, anchor: str, reference: Record | None, baseline: Record | None, baseline_name: str) -> Row:
    accuracy = record.accuracy
    top1 = low = high = None
    if accuracy is not None and accuracy.n_images:
        n_hits = int(np.count_nonzero(top1_hits(accuracy.top1_hits, accuracy.n_images)))
        top1 = n_hits / accuracy.n_images
        low, high = _top1_interval(n_hits, accuracy.n_images)
    return Row(
        record=record,
        anchor=anchor,
        standing=standing_of(record),
        top1=top1,
        top1_low=low,
        top1_high=high,
        against_fp32=_change(record, reference, gate="fp32", against=reference.case.id if reference else "FP32"),
        against_baseline=_change(record, baseline, gate="baseline", against=baseline_name or "baseline"),
        timings=tuple(_timing(latency, baseline) for latency in record.latencies),
        baseline=baseline,
        reference=reference,
    )


def _change(record: Record, other: Record | None, *, gate: str, against: str) -> Change | None:
    """Compare with a record where there is one, otherwise repeat what the gate's verdict counted."""
    if record.accuracy is not None and other is not None and other.accuracy is not None:
        return compare_hits(record.accuracy, other.accuracy, against=against)
    gates = ("baseline", "run") if gate == "baseline" else (gate,)
    verdict = next(
        (verdict for verdict in record.verdicts if verdict.gate in gates and verdict.n_lost is not None), None
    )
    if verdict is None or record.accuracy is None:
        return None
    return Change(
        against=against,
        n_images=record.accuracy.n_images,
        n_lost=verdict.n_lost,
        n_gained=verdict.n_gained,
        p_value=verdict.p_value,
    )


def _reference_of(record: Record, by_id: dict[str, Record]) -> Record | None:
    """Return the FP32 record that this one was compared with: the one it names, or its own backend's."""
    if record.case.precision is Precision.FP32:
        return None
    named = [record.drift.reference_case] if record.drift else []
    named += [latency.reference_case for latency in record.latencies]
    case = record.case
    plain = f"{case.model}-{case.backend}-fp32"
    suffix = "" if case.device in ("cpu", "cuda:0") else f"-{case.device.replace(':', '')}"
    return next((by_id[name] for name in (*named, plain + suffix) if name in by_id), None)


def _timing(latency: Latency, baseline: Record | None) -> Timing:
    earlier = next((x for x in baseline.latencies if _same_protocol(x, latency)), None) if baseline else None
    try:
        rounds = latency.rounds_ns.array()
        summary = summarize_latency(rounds)
        speed_up = (
            ratio_of_rounds(latency.paired_rounds_ns.array(), rounds) if latency.paired_rounds_ns is not None else None
        )
        before = summarize_latency(earlier.rounds_ns.array()) if earlier else None
    except MeasurementError as error:
        return Timing(latency=latency, summary=None, problem=str(error))
    return Timing(latency=latency, summary=summary, speed_up=speed_up, baseline=before)


def _same_protocol(one: Latency, other: Latency) -> bool:
    fields = ("batch_size", "clock", "launch", "gated", "window")
    return all(getattr(one, name) == getattr(other, name) for name in fields)


def _anchor(case_id: str, taken: dict[str, int]) -> str:
    safe = "case-" + ANCHOR_UNSAFE.sub("_", case_id)[:120]
    taken[safe] = taken.get(safe, 0) + 1
    return safe if taken[safe] == 1 else f"{safe}--{taken[safe]}"
