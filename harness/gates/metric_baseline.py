"""Gate: a task's metric is that of the accepted baseline, or no worse than chance explains."""

from __future__ import annotations

from dataclasses import replace

from harness.gates._accuracy import incomparable
from harness.gates._gate import Evidence, Gate
from harness.gates._samples import judge_same_samples, judge_samples, sample_differences
from harness.gates._stored import advice_for_incomparable, joined, no_baseline, with_options
from harness.gates._subjects import (
    Subject,
    changes_of_options,
    changes_of_preparation,
    changes_of_setting,
    is_other_int8_isa,
    model_change,
    subject_from_record,
)
from harness.records import Outcome, Record, SampleScores, Verdict


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Judge the leading metric against what was stored."""
    record, stored = evidence.record, evidence.stored
    if record.samples is None:
        return ()
    if stored is None:
        return (no_baseline(record.case, stored_in=evidence.stored_in, gate=GATE.name),)
    if stored.samples is None:
        return (_no_shared(stored),)
    return (_judge(record, record.samples, stored, stored.samples),)


def _no_shared(stored: Subject) -> Verdict:
    """Return the verdict that the other side holds no metric of the samples scored here."""
    accept = f"harness baseline accept latest --case {stored.case.id}"
    return Verdict(
        gate=GATE.name,
        outcome=Outcome.NO_BASELINE,
        code="no_shared_samples",
        message=f"{stored.name} holds no metrics of the samples scored here",
        advice=f"score its samples too, or: {accept}" if stored.is_baseline else "score the same samples in both runs",
    )


def _judge(record: Record, ours: SampleScores, stored: Subject, theirs: SampleScores) -> Verdict:
    """Judge as `_stored.judge_predictions` does: of one model file a metric should be the same."""
    us, tolerance = subject_from_record(record, "this run"), record.tolerance
    different = sample_differences(ours, theirs)
    if different:
        advice = advice_for_incomparable(us, stored)
        return replace(
            incomparable(GATE.name, different, against=stored.name, advice=advice), is_failure=stored.is_baseline
        )
    model, is_other_isa = model_change(us, stored), is_other_int8_isa(us, stored)
    if model:
        verdict = judge_samples(
            GATE.name,
            ours,
            theirs,
            accepted=tolerance.max_drop_baseline or tolerance.max_drop,
            alpha=tolerance.alpha,
            against=stored.name,
        )
    else:
        verdict = judge_same_samples(
            GATE.name,
            ours,
            theirs,
            accepted=tolerance.max_drop if is_other_isa else tolerance.max_drop_baseline,
            accepted_same=tolerance.max_drop,
            alpha=tolerance.alpha,
            against=stored.name,
        )
    return _with_circumstances(verdict, us, stored, has_other_bits=ours.outputs_sha256 != theirs.outputs_sha256)


def _with_circumstances(verdict: Verdict, ours: Subject, theirs: Subject, *, has_other_bits: bool) -> Verdict:
    """Say what else changed: model, preparation, versions, options."""
    model, is_identical = model_change(ours, theirs), verdict.code == "identical"
    notes = [f"model changed: {model}" if model else "", verdict.message]
    if is_identical and has_other_bits:
        notes.append("the outputs differ in their bits")
    if is_other_int8_isa(ours, theirs):
        notes.append("INT8 ran with other CPU instructions or weights: identical outputs are not expected")
    if prepared := changes_of_preparation(ours, theirs):
        notes.append(f"preprocessing, export or calibration changed: {', '.join(prepared)}")
    suspects = changes_of_setting(ours, theirs)
    if suspects and (has_other_bits or not is_identical):
        notes.append(f"changed since: {', '.join(suspects)}")
    advice = verdict.advice
    if theirs.is_baseline and not is_identical:
        accept = f"if the change is wanted: harness baseline accept latest --case {theirs.case.id}"
        found = "find the samples that lost most in the report" if verdict.outcome is Outcome.REGRESSED else ""
        advice = joined(advice, found, accept)
    told = replace(verdict, message=joined(*notes), advice=advice, model_change=model)
    return with_options(told, changes_of_options(ours, theirs))


GATE = Gate(
    name="metric_baseline",
    summary="a task's metric is no worse than that of the accepted baseline",
    needs=("samples",),
    applies=lambda candidate: candidate.has_metrics,
    judge=judge,
    order=62,
    in_family=True,
    family="baseline",
    reads_baseline=True,
    judges_outputs=True,
)
