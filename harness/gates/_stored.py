"""A case against what was stored of it: its accepted baseline, or the same case of another run."""

from __future__ import annotations

from dataclasses import replace

from harness.gates._accuracy import incomparable
from harness.gates._images import shared_images
from harness.gates._paired import changes_between, judge_identity, judge_margin
from harness.gates._subjects import (
    Subject,
    accuracy_differences,
    changes_of_machine,
    changes_of_options,
    changes_of_preparation,
    changes_of_setting,
    is_other_int8_isa,
    machine_differences,
    model_change,
    subject_from_record,
)
from harness.gates._times import TimesContext, accepted_slowdown, judge_times
from harness.records import Outcome, Record, Verdict
from harness.specs import Case


def no_baseline(case: Case, *, stored_in: str, gate: str, what: str = "baseline") -> Verdict:
    """Return the verdict that a case has nothing to be compared with yet."""
    return Verdict(
        gate=gate,
        outcome=Outcome.NO_BASELINE,
        code="no_baseline",
        message=f"{stored_in or 'the baseline folder'} holds no {what} of {case.id}",
        advice=f"add --update-baselines to the run, or: harness baseline accept latest --case {case.id}",
    )


def judge_predictions(record: Record, theirs: Subject, *, gate: str) -> Verdict:
    """Judge predictions image by image against stored ones: of one model file they should be identical.

    A changed model may lose what is accepted: `max_drop_baseline` where it is set, else `max_drop`. Scores of other
    images, labels or classes under the same name are never compared; of a baseline that is a failure, because nothing
    then says that the case holds.
    Raises: MeasurementError for scores that are not numbers.
    """
    ours, tolerance = subject_from_record(record, "this run"), record.tolerance
    if ours.scores is None or theirs.scores is None:
        return _no_shared(ours, theirs, gate=gate)
    different = accuracy_differences(ours, theirs)
    shared = shared_images(ours.scores, theirs.scores)
    if shared.has_none and not different:
        return _no_shared(ours, theirs, gate=gate)
    if shared.different:  # another resize makes other pixels of the same files: it is named
        different += (shared.different, *changes_of_preparation(ours, theirs))
    if different:
        found = incomparable(gate, different, against=theirs.name, advice=advice_for_incomparable(ours, theirs))
        return replace(found, is_failure=theirs.is_baseline)
    wrong, wrong_theirs = ours.scores.wrong_predictions[shared.ours], theirs.scores.wrong_predictions[shared.theirs]
    hits, hits_theirs = ours.scores.hits[shared.ours], theirs.scores.hits[shared.theirs]
    kinds = None if ours.scores.kinds is None else ours.scores.kinds[shared.ours]
    changes = changes_between(hits_theirs, hits, wrong != wrong_theirs, kinds=kinds)
    is_other_isa, model = is_other_int8_isa(ours, theirs), model_change(ours, theirs)
    if model:
        margin = tolerance.max_drop_baseline or tolerance.max_drop
        verdict = judge_margin(gate, changes, margin=margin, alpha=tolerance.alpha, against=theirs.name)
    else:
        verdict = judge_identity(
            gate,
            changes,
            margin=tolerance.max_drop if is_other_isa else tolerance.max_drop_baseline,
            margin_same=tolerance.max_drop,
            alpha=tolerance.alpha,
            against=theirs.name,
        )
    is_same_range = not shared.note
    has_other_bits = is_same_range and ours.scores.outputs_sha256 != theirs.scores.outputs_sha256
    notes = [f"model changed: {model}" if model else "", verdict.message, shared.note]
    if changes.n_changed == 0 and has_other_bits:
        notes.append("the outputs differ in their bits")
    if is_other_isa:
        notes.append("INT8 ran with other CPU instructions or weights: identical predictions are not expected")
    if prepared := changes_of_preparation(ours, theirs):
        notes.append(f"preprocessing, export or calibration changed: {', '.join(prepared)}")
    suspects = changes_of_setting(ours, theirs)
    if suspects and (changes.n_changed or has_other_bits):
        notes.append(f"changed since: {', '.join(suspects)}")
    judged = replace(
        verdict,
        message="; ".join(note for note in notes if note),
        advice=joined(verdict.advice, _advice(verdict, theirs)),
        model_change=model,
    )
    return with_options(judged, changes_of_options(ours, theirs))


def judge_latencies(record: Record, theirs: Subject, *, gate: str) -> tuple[Verdict, ...]:
    """Judge the time of every batch size against stored ones; one verdict each.

    Raises: MeasurementError for times that are not numbers.
    """
    ours = subject_from_record(record, "this run")
    different, options = machine_differences(ours, theirs), changes_of_options(ours, theirs)
    model = model_change(ours, theirs)
    changed = (*((f"the model {model}",) if model else ()), *changes_of_setting(ours, theirs), *options)
    stored = {latency.batch_size: latency for latency in theirs.latencies}
    replays = {replay.batch_size: replay for replay in record.replays}
    verdicts = []
    for latency in ours.latencies:
        before = stored.get(latency.batch_size)
        if before is None:
            verdicts.append(_no_times(latency.batch_size, theirs, gate=gate))
            continue
        context = TimesContext(
            against=theirs.name,
            margin=accepted_slowdown(record, latency.batch_size),
            alpha=record.tolerance.alpha,
            basis=record.timing_basis,
            replay=replays.get(latency.batch_size),
            changed=changed,
            changed_machine=changes_of_machine(ours, theirs),
            is_same_engine=bool(ours.engine_sha256) and ours.engine_sha256 == theirs.engine_sha256,
            different=different,
            is_beside=theirs.is_beside,
            gate=gate,
        )
        verdict = judge_times(latency, before, context)
        if model:
            told = "" if "changed since: " in verdict.message else f"; model changed: {model}"
            verdict = replace(verdict, message=f"{verdict.message}{told}", model_change=model)
        verdicts.append(with_options(verdict, options))
    return tuple(verdicts)


def with_options(verdict: Verdict, changed: tuple[str, ...]) -> Verdict:
    """Name the engine's options that differ: what they did to a result is not told from what kernels did."""
    if not changed:
        return verdict
    message = f"{verdict.message}; engine options differ: {', '.join(changed)}"
    advice = "the engine options that differ are a possible cause, be they asked for or the runtime's own choice"
    return replace(verdict, message=message, advice=joined(verdict.advice, advice if verdict.is_failure else ""))


def _advice(verdict: Verdict, theirs: Subject) -> str:
    if not theirs.is_baseline or verdict.code == "identical":
        return ""
    accept = f"harness baseline accept latest --case {theirs.case.id}"
    if verdict.outcome is Outcome.REGRESSED:
        return f"find the {verdict.n_lost} lost images in the report; if the change is wanted: {accept}"
    return f"if the change is wanted: {accept}"


def advice_for_incomparable(ours: Subject, theirs: Subject) -> str:
    """Say how two sides become comparable."""
    if not theirs.is_baseline:
        return "compare runs of the same model on the same images"
    accept = f"harness baseline accept latest --case {ours.case.id}"
    return f"run with the images and model of the baseline, or replace it: {accept}"


def joined(*parts: str) -> str:
    """Return the parts that are not empty, in one line."""
    return "; ".join(part for part in parts if part)


def _no_shared(ours: Subject, theirs: Subject, *, gate: str) -> Verdict:
    """Return the verdict that the other side holds none of the images scored here."""
    accept = f"harness baseline accept latest --case {ours.case.id}"
    return Verdict(
        gate=gate,
        outcome=Outcome.NO_BASELINE,
        code="no_shared_images",
        message=f"{theirs.name} holds no score of the images scored here",
        advice=f"score its images too, or: {accept}" if theirs.is_baseline else "score the same images in both runs",
    )


def _no_times(batch_size: int, theirs: Subject, *, gate: str) -> Verdict:
    accept = f"harness baseline accept latest --case {theirs.case.id}"
    return Verdict(
        gate=gate,
        outcome=Outcome.NO_BASELINE,
        code="no_times",
        batch_size=batch_size,
        message=f"batch {batch_size}: {theirs.name} holds no times of it",
        advice=f"time the batch sizes that it holds, or: {accept}" if theirs.is_baseline else "",
    )
