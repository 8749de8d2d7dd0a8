"""Gates between runs: a case against its baseline, or against the same case of another run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from harness.errors import MeasurementError
from harness.gates.accuracy import incomparable
from harness.gates.paired import changes_between, judge_identity, percent
from harness.gates.subjects import (
    RoundMedians,
    Subject,
    accuracy_differences,
    changes_of_options,
    changes_of_setting,
    is_other_int8_isa,
    machine_differences,
    subject_from_record,
)
from harness.records import Outcome, Record, Status, Verdict
from harness.specs import Case, Tolerance
from harness.stats import Ratio, ratio_of_runs


def no_baseline(case: Case, *, folder: str, gate: str = "baseline") -> Verdict:
    """Return the verdict that a case has nothing to be compared with yet."""
    return Verdict(
        gate=gate,
        outcome=Outcome.NO_BASELINE,
        code="no_baseline",
        message=f"{folder} holds no baseline of {case.id}",
        advice=f"add --update-baselines to the run, or: harness baseline accept latest --case {case.id}",
    )


def judge_subject(
    ours: Subject, theirs: Subject, *, tolerance: Tolerance, gate: str = "baseline"
) -> tuple[Verdict, ...]:
    """Judge predictions, then latency at every batch size that both sides timed, against an earlier measurement.

    Raises: MeasurementError for scores or times that are not numbers.
    """
    verdicts = []
    if ours.hits is not None or theirs.hits is not None:
        verdicts.append(_judge_predictions(ours, theirs, tolerance=tolerance, gate=gate))
    different = machine_differences(ours, theirs)
    changed = changes_of_options(ours, theirs)
    for latency in ours.latencies:
        same_batch = [other for other in theirs.latencies if other.batch_size == latency.batch_size]
        if same_batch:
            verdict = judge_latency(
                latency, same_batch[0], tolerance=tolerance, against=theirs.name, different=different
            )
            verdicts.append(_with_options(verdict, changed))
        else:
            verdicts.append(_no_times(latency.batch_size, theirs.name, ours.case))
    return tuple(verdicts)


def compare_runs(
    records_a: Sequence[Record],
    records_b: Sequence[Record],
    *,
    tolerance_for: Callable[[Case], Tolerance] = lambda case: Tolerance(),
    name_a: str = "run A",
    name_b: str = "run B",
) -> list[tuple[str, tuple[Verdict, ...]]]:
    """Judge every case of run B against the same case of run A, in B's order; cases of one run only come last.

    The runs may be of different machines or library versions; what differs is told with each verdict.
    Raises: MeasurementError when the runs share no case, or for scores that are not numbers.
    """
    before = {record.case.id: record for record in records_a}
    after = {record.case.id: record for record in records_b}
    shared = [case_id for case_id in after if case_id in before]
    if not shared:
        raise MeasurementError(f"{name_a} ({len(before)} cases) and {name_b} ({len(after)} cases) share no case")
    verdicts = [
        (i, _compare_records(before[i], after[i], tolerance=tolerance_for(after[i].case), names=(name_a, name_b)))
        for i in shared
    ]
    for only, inside, outside in ((after, name_b, name_a), (before, name_a, name_b)):
        for case_id in only:
            if case_id not in shared:
                # A case that the later run lost may be the one that broke; one that it added is news.
                verdicts.append((case_id, (_missing(inside, outside, is_failure=outside == name_b),)))
    return verdicts


def records_with_verdicts(records: Sequence[Record], found: Sequence[tuple[str, tuple[Verdict, ...]]]) -> list[Record]:
    """Return records that carry the verdicts of a comparison instead of their own, for its page."""
    verdicts = dict(found)
    return [replace(record, verdicts=verdicts.get(record.case.id, ())) for record in records]


def judge_latency(
    ours: RoundMedians,
    theirs: RoundMedians,
    *,
    tolerance: Tolerance,
    against: str,
    different: tuple[str, ...] = (),
) -> Verdict:
    """Judge a latency against an earlier run's, as a ratio with an interval over whole rounds.

    REGRESSED only with `tolerance.max_slowdown` and an interval wholly beyond it. `different`: what of the machines
    forbids the comparison. The interval does not know how nights or processes differ.
    Raises: MeasurementError for times that are not positive numbers, or a max_slowdown that is not a number.
    """
    different += _clock_differences(ours, theirs)
    if different:
        advice = "times are compared only on the same device, with the same clock, window and launch"
        return incomparable("latency", different, against=against, advice=advice)
    ratio = ratio_of_runs(np.asarray(ours.medians_ns), np.asarray(theirs.medians_ns), 1 - 2 * tolerance.alpha)
    outcome, code, advice = _latency_outcome(ratio, tolerance.max_slowdown)
    interval = f"{ratio.low:.3f} to {ratio.high:.3f}" if ratio.has_interval else "no interval from so few rounds"
    limit = "" if tolerance.max_slowdown is None else f"; accepted is {1 + tolerance.max_slowdown:.3f}"
    return Verdict(
        gate="latency",
        outcome=outcome,
        code=code,
        message=f"batch {ours.batch_size}: {ratio.value:.3f} times {against} "
        f"({interval}, {ratio.n_rounds} rounds){limit}",
        advice=advice,
        is_failure=outcome is Outcome.REGRESSED,
        value=float(np.median(ours.medians_ns)),
        baseline_value=float(np.median(theirs.medians_ns)),
        change_low=None if ratio.low is None else ratio.low - 1,
        change_high=None if ratio.high is None else ratio.high - 1,
    )


def _judge_predictions(ours: Subject, theirs: Subject, *, tolerance: Tolerance, gate: str) -> Verdict:
    different = accuracy_differences(ours, theirs)
    if different:
        advice = (
            f"run with the images and model of the baseline, or replace it: harness baseline accept latest "
            f"--case {ours.case.id}"
            if gate == "baseline"
            else "compare runs of the same model on the same images"
        )
        return incomparable(gate, different, against=theirs.name, advice=advice)
    if ours.hits is None or theirs.hits is None or ours.wrong_predictions is None:
        raise MeasurementError(f"{ours.case.id}: scores are missing on one side only, though the images are the same")
    changes = changes_between(theirs.hits, ours.hits, ours.wrong_predictions != theirs.wrong_predictions)
    is_other_isa = is_other_int8_isa(ours, theirs)
    verdict = judge_identity(
        gate,
        changes,
        margin=tolerance.max_drop if is_other_isa else tolerance.max_drop_baseline,
        margin_same=tolerance.max_drop,
        alpha=tolerance.alpha,
        against=theirs.name,
    )
    notes = [verdict.message]
    if changes.n_changed == 0 and ours.outputs_sha256 != theirs.outputs_sha256:
        notes.append("the outputs differ in their bits")
    if is_other_isa:
        notes.append("INT8 ran with other CPU instructions or weights: identical predictions are not expected")
    suspects = changes_of_setting(ours, theirs)
    if suspects and (changes.n_changed or ours.outputs_sha256 != theirs.outputs_sha256):
        notes.append(f"changed since: {', '.join(suspects)}")
    judged = replace(verdict, message="; ".join(notes), advice=_joined(verdict.advice, _advice(verdict, ours, gate)))
    return _with_options(judged, changes_of_options(ours, theirs))


def _with_options(verdict: Verdict, changed: tuple[str, ...]) -> Verdict:
    """Name the engine's options that differ: what they did to a result is not told from what kernels did."""
    if not changed:
        return verdict
    message = f"{verdict.message}; engine options differ: {', '.join(changed)}"
    advice = "the engine options that differ are a possible cause, be they asked for or the runtime's own choice"
    return replace(verdict, message=message, advice=_joined(verdict.advice, advice if verdict.is_failure else ""))


def _advice(verdict: Verdict, ours: Subject, gate: str) -> str:
    if gate != "baseline" or verdict.code == "identical":
        return ""
    accept = f"harness baseline accept latest --case {ours.case.id}"
    if verdict.outcome is Outcome.REGRESSED:
        return f"find the {verdict.n_lost} lost images in the report; if the change is wanted: {accept}"
    return f"if the change is wanted: {accept}"


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _compare_records(
    before: Record, after: Record, *, tolerance: Tolerance, names: tuple[str, str]
) -> tuple[Verdict, ...]:
    broken = [
        f"{name} ended in {record.status} ({record.reason})"
        for record, name in ((before, names[0]), (after, names[1]))
        if record.status in (Status.ERROR, Status.UNSUPPORTED)
    ]
    ours, theirs = subject_from_record(after, names[1]), subject_from_record(before, names[0])
    verdicts = () if broken else judge_subject(ours, theirs, tolerance=tolerance, gate="run")
    if verdicts:
        return verdicts
    return (
        Verdict(
            gate="run",
            outcome=Outcome.INCOMPARABLE,
            code="nothing_to_compare",
            is_failure=after.status is Status.ERROR,
            message="; ".join(broken) or "neither scores nor times of the same batch size on both sides",
            advice="repeat the case in the run that lacks it",
        ),
    )


def _no_times(batch_size: int, name: str, case: Case) -> Verdict:
    return Verdict(
        gate="latency",
        outcome=Outcome.NO_BASELINE,
        code="no_times",
        message=f"batch {batch_size}: {name} holds no times of it",
        advice=f"time the batch sizes that it holds, or: harness baseline accept latest --case {case.id}",
    )


def _missing(inside: str, outside: str, *, is_failure: bool) -> Verdict:
    return Verdict(
        gate="run",
        outcome=Outcome.INCOMPARABLE,
        code="only_in_one_run",
        message=f"in {inside} only; {outside} has no such case",
        is_failure=is_failure,
        advice=f"run {outside} with the same models, backends and precisions",
    )


def _clock_differences(ours: RoundMedians, theirs: RoundMedians) -> tuple[str, ...]:
    pairs = [
        (name, getattr(ours, name), getattr(theirs, name))
        for name in ("batch_size", "clock", "launch", "gated", "window")
    ]
    return tuple(f"{name.replace('_', ' ')} {a} and {b}" for name, a, b in pairs if a != b)


def _latency_outcome(ratio: Ratio, max_slowdown: float | None) -> tuple[Outcome, str, str]:
    if max_slowdown is not None and not max_slowdown >= 0:
        raise MeasurementError(f"max_slowdown {max_slowdown} is not a ratio less one of at least 0")
    if ratio.low is None or ratio.high is None:
        return Outcome.INCONCLUSIVE, "too_few_rounds", "time more rounds"
    limit = 1 + (max_slowdown or 0.0)
    if ratio.high < 1:
        return Outcome.IMPROVED, "faster", ""
    if ratio.low > limit:
        if max_slowdown is None:
            return Outcome.INCONCLUSIVE, "slower_not_gated", f"give --max-slowdown {percent(0.05)} to fail on this"
        return Outcome.REGRESSED, "slower", "repeat in a fresh process before believing it: speeds of machines wander"
    if ratio.high <= limit or max_slowdown is None:
        return Outcome.SAME, "same_speed", ""
    return Outcome.INCONCLUSIVE, "speed_unclear", "time more rounds, or a quieter machine"
