"""The parts of a baseline as files: predictions or metrics of samples, and times with the precision that ran."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, TypeVar

import msgspec
import numpy as np

from harness.errors import BaselineError, HarnessError
from harness.gates import Costs, RoundMedians, ScoredImages, Subject, digests_from_packed, subject_from_record
from harness.records import EffectivePrecision, Environment, PackedArray, Record, SampleScores
from harness.specs import Case, ImageRange
from harness.store.ratchet import TOP1, Accepted, history_lines, history_of, levels_of_metric, name_of_times
from harness.store.sealed import Damaged, check_digest, decoded, sealed, values_of

BASELINE_SCHEMA = 3
PREDICTIONS, SAMPLES, TIMES = "predictions", "samples", "times"
MAX_BUILDS = 20  # kept of one setting: their scatter is known to 16 %
MARGIN_QUANTILES = (0.01, 0.1, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputStatistics:
    """The outputs in a few numbers: the first to move when arithmetic changes."""

    sha256: str  # of float32[N, K] little-endian
    n_ties_top1: int
    margin_p1: float
    margin_p10: float
    margin_p50: float
    rmse: float | None = None  # against FP32, where it was measured
    low_margin_agreement: float | None = None  # against FP32 [fraction]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineScores:
    """Predictions of every image: right ones as bits, wrong ones as classes."""

    images: ImageRange
    fingerprint: str
    num_classes: int
    n_right: int
    n_right_top5: int
    top1_hits: PackedArray
    top5_hits: PackedArray
    wrong_predictions: PackedArray  # int[N - n_right]: the class predicted for each image missed, in order
    predictions_sha256: str
    block_digests: PackedArray | None
    outputs: OutputStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """Who accepted what was recorded when, and on which machine."""

    by: str
    at: str  # UTC, ISO 8601
    recorded_at: str
    environment: Environment


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineState:
    """What stood behind the numbers: files, versions, options and kernels."""

    source_sha256: str
    artifact_sha256: str
    weight_bits: int
    digest: str  # of the layers that ran
    versions: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    preparation: dict[str, str] = field(default_factory=dict)  # of images, labels and calibration
    engine_sha256: str = ""  # of the engine's bytes: what tonight's is timed against


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionsBaseline:
    """What later runs of one case compare their predictions with."""

    schema: int
    case: Case
    accepted: Acceptance
    engine: EngineState
    scores: BaselineScores
    is_of_models_folder: bool = False  # a run without --model takes its model
    history: tuple[Accepted, ...] = ()  # all acceptances since the budget began, this one last


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplesBaseline:
    """What later runs of one case compare the metrics of their samples with: every sample's value is kept."""

    schema: int
    case: Case
    accepted: Acceptance
    engine: EngineState
    samples: SampleScores
    is_of_models_folder: bool = False  # a run without --model takes its model
    history: tuple[Accepted, ...] = ()  # all acceptances since the budget began, this one last


@dataclass(frozen=True, slots=True, kw_only=True)
class TimesBaseline:
    """What later runs of one case on one type of device compare their times and their precision with."""

    schema: int
    case: Case
    accepted: Acceptance
    engine: EngineState
    effective_precision: EffectivePrecision | None
    latencies: tuple[RoundMedians, ...]
    costs: Costs | None = None  # None in one that was accepted before costs were
    is_of_models_folder: bool = False  # a run without --model takes its model
    history: tuple[Accepted, ...] = ()  # all acceptances since the budget began, this one last


Baseline = PredictionsBaseline | SamplesBaseline | TimesBaseline
T = TypeVar("T", PredictionsBaseline, SamplesBaseline, TimesBaseline)


def subject_from_files(parts: Sequence[Baseline]) -> Subject:
    """Return what a case is compared with, from one part of each kind at most. Raises: BaselineError for no part."""
    predictions = next((part for part in parts if isinstance(part, PredictionsBaseline)), None)
    samples = next((part for part in parts if isinstance(part, SamplesBaseline)), None)
    times = next((part for part in parts if isinstance(part, TimesBaseline)), None)
    first = predictions or samples or times
    if first is None:
        raise BaselineError("a baseline of neither predictions, metrics nor times is none")
    engine, accepted = first.engine, first.accepted
    return Subject(
        name=f"the baseline of {accepted.at[: len(date.min.isoformat())]}",
        case=first.case,
        environment=accepted.environment,
        source_sha256=engine.source_sha256,
        artifact_sha256=engine.artifact_sha256,
        weight_bits=engine.weight_bits,
        engine_digest=engine.digest,
        versions={**accepted.environment.versions, **engine.versions},
        engine_sha256=(times or first).engine.engine_sha256,
        options=engine.options,
        preparation=engine.preparation,
        scores=_scored_images(predictions.scores) if predictions else None,
        samples=samples.samples if samples else None,
        latencies=times.latencies if times else (),
        effective_precision=times.effective_precision if times else None,
        costs=times.costs if times else None,
        timed_on=times.accepted.environment if times else None,
        is_baseline=True,
    )


def _scored_images(scores: BaselineScores) -> ScoredImages:
    hits = scores.top1_hits.bits(scores.images.n_images)
    wrong = np.full(hits.size, -1, np.int64)
    wrong[~hits] = scores.wrong_predictions.array()
    return ScoredImages(
        images=scores.images,
        fingerprint=scores.fingerprint,
        num_classes=scores.num_classes,
        hits=hits,
        wrong_predictions=wrong,
        outputs_sha256=scores.outputs.sha256,
        block_digests=digests_from_packed(scores.block_digests),
    )


def with_history(
    baseline: Baseline,
    before: Baseline | None,
    *,
    reason: str = "",
    starts_budget: bool = False,
) -> Baseline:
    """Return a baseline with the acceptances of the one `before`, which it replaces, and its own.

    One of before there were histories counts as the first.
    """
    steps: tuple[Accepted, ...] = ()
    if before is not None:
        steps = before.history or history_of((), _step(before), reason="", starts_budget=True)
    history = history_of(steps, _step(baseline), reason=reason, starts_budget=starts_budget)
    return replace(baseline, history=history)


def _step(baseline: Baseline) -> Accepted:
    accepted = baseline.accepted
    if isinstance(baseline, PredictionsBaseline):
        scores = baseline.scores
        rates = {TOP1: scores.n_right / scores.images.n_images}
        return Accepted(at=accepted.at, by=accepted.by, rates=rates, images=scores.fingerprint)
    if isinstance(baseline, SamplesBaseline):
        leading = baseline.samples.leading
        rates, costs = ({}, {}) if leading is None else levels_of_metric(leading)
        return Accepted(at=accepted.at, by=accepted.by, rates=rates, costs=costs, images=baseline.samples.fingerprint)
    costs = {name_of_times(latency): float(np.median(latency.medians_ns)) for latency in baseline.latencies}
    return Accepted(at=accepted.at, by=accepted.by, costs=costs)


def predictions_from_record(record: Record, *, accepted_by: str, accepted_at: str) -> PredictionsBaseline:
    """Return the baseline of predictions that a scored record becomes. Raises: BaselineError without scores."""
    if record.accuracy is None:
        raise BaselineError(f"{record.case.id}: nothing was scored; a baseline of predictions needs scores")
    return PredictionsBaseline(
        schema=BASELINE_SCHEMA,
        case=record.case,
        accepted=_acceptance(record, accepted_by, accepted_at),
        engine=_engine_state(record),
        scores=_scores_from_record(record),
        is_of_models_folder=record.is_of_models_folder,
    )


def samples_from_record(record: Record, *, accepted_by: str, accepted_at: str) -> SamplesBaseline:
    """Return the baseline of metrics that a record of scored samples becomes. Raises: BaselineError without them."""
    if record.samples is None or record.samples.leading is None:
        raise BaselineError(f"{record.case.id}: no metric was scored; a baseline of metrics needs one")
    return SamplesBaseline(
        schema=BASELINE_SCHEMA,
        case=record.case,
        accepted=_acceptance(record, accepted_by, accepted_at),
        engine=_engine_state(record),
        samples=replace(record.samples, score_ns=0, batch_size=0),  # differ from run to run and say nothing
        is_of_models_folder=record.is_of_models_folder,
    )


def times_from_record(
    record: Record, *, accepted_by: str, accepted_at: str, before: TimesBaseline | None = None
) -> TimesBaseline:
    """Return the baseline of times that a timed record becomes.

    `before`: the one that it replaces. Its builds stay, beside this record's, where the same was built.
    """
    return TimesBaseline(
        schema=BASELINE_SCHEMA,
        case=record.case,
        accepted=_acceptance(record, accepted_by, accepted_at),
        engine=_engine_state(record),
        effective_precision=record.effective_precision,
        latencies=tuple(_rounded(latency) for latency in subject_from_record(record, "this run").latencies),
        costs=_costs(record, before),
        is_of_models_folder=record.is_of_models_folder,
    )


def _costs(record: Record, before: TimesBaseline | None) -> Costs | None:
    now, engine = subject_from_record(record, "this run").costs, _engine_state(record)
    if now is None or before is None or before.costs is None:
        return now
    names = ("artifact_sha256", "versions", "options")
    is_same = all(getattr(engine, name) == getattr(before.engine, name) for name in names)
    is_same = is_same and now.batch_sizes == before.costs.batch_sizes
    if not is_same or before.accepted.environment.driver != record.environment.driver:
        return now
    # A run that is accepted twice built once: the same number of nanoseconds is the same build.
    builds = dict.fromkeys((*before.costs.builds_ns, *now.builds_ns))
    return replace(now, builds_ns=tuple(builds)[-MAX_BUILDS:])


def _acceptance(record: Record, by: str, at: str) -> Acceptance:
    return Acceptance(by=by, at=at, recorded_at=record.recorded_at, environment=record.environment)


def _engine_state(record: Record) -> EngineState:
    subject = subject_from_record(record, "this run")
    return EngineState(
        source_sha256=subject.source_sha256,
        artifact_sha256=subject.artifact_sha256,
        weight_bits=subject.weight_bits,
        digest=subject.engine_digest,
        versions=record.engine.versions if record.engine else {},
        options=subject.options,
        preparation=subject.preparation,
        engine_sha256=subject.engine_sha256,
    )


def _scores_from_record(record: Record) -> BaselineScores:
    accuracy, drift = record.accuracy, record.drift
    if accuracy is None:
        raise BaselineError(f"{record.case.id}: nothing was scored")
    hits, predictions = accuracy.hits(), accuracy.predictions.array()
    p1, p10, p50 = (float(q) for q in np.quantile(accuracy.margins.array().astype(np.float64), MARGIN_QUANTILES))
    return BaselineScores(
        images=accuracy.images,
        fingerprint=accuracy.fingerprint,
        num_classes=accuracy.num_classes,
        n_right=int(hits.sum()),
        n_right_top5=int(accuracy.hits(5).sum()),
        top1_hits=accuracy.top1_hits,
        top5_hits=accuracy.top5_hits,
        wrong_predictions=PackedArray.of(predictions[~hits]),
        predictions_sha256=predictions_sha256(predictions),
        block_digests=accuracy.block_digests,
        outputs=OutputStatistics(
            sha256=accuracy.outputs_sha256,
            n_ties_top1=accuracy.n_ties_top1,
            margin_p1=p1,
            margin_p10=p10,
            margin_p50=p50,
            rmse=drift.rmse if drift else None,
            low_margin_agreement=drift.low_margin_agreement if drift else None,
        ),
    )


def predictions_sha256(predictions: Any) -> str:
    """Return the sha256 of predictions as int64 little-endian, whatever their packed type."""
    return hashlib.sha256(np.ascontiguousarray(predictions, "<i8").tobytes()).hexdigest()


def json_from_baseline(baseline: Baseline) -> bytes:
    """Return the file's text: indented, keys in the order of the class, lists of numbers on one line."""
    text = msgspec.json.format(sealed(msgspec.json.encode(baseline)), indent=1).decode()
    return re.sub(r"\[\n([-0-9.,eE+\s]+)\]", lambda m: f"[{' '.join(m[1].split())}]", text).encode() + b"\n"


def predictions_from_json(data: bytes, *, where: str, case_id: str) -> PredictionsBaseline:
    """Decode and check a file of predictions. Raises: BaselineError for a damaged or foreign one, with the remedy."""
    return _from_json(data, PredictionsBaseline, where=where, case_id=case_id, check=_check_scores)


def samples_from_json(data: bytes, *, where: str, case_id: str) -> SamplesBaseline:
    """Decode and check a file of metrics. Raises: BaselineError for a damaged or foreign one, with the remedy."""
    return _from_json(
        data, SamplesBaseline, where=where, case_id=case_id, check=lambda baseline: baseline.samples.check()
    )


def times_from_json(data: bytes, *, where: str, case_id: str) -> TimesBaseline:
    """Decode and check a file of times. Raises: BaselineError for a damaged or foreign one, with the remedy."""
    return _from_json(data, TimesBaseline, where=where, case_id=case_id, check=lambda baseline: None)


def _from_json(data: bytes, kind: type[T], *, where: str, case_id: str, check: Callable[[T], None]) -> T:
    remedy = f"restore it from version control, or replace it: harness baseline accept latest --case {case_id}"
    try:
        values = values_of(data)
    except Damaged as error:
        raise BaselineError(f"{where} is damaged ({error}); {remedy}") from error
    schema = values.get("schema")
    if schema != BASELINE_SCHEMA:
        is_newer = isinstance(schema, int) and schema > BASELINE_SCHEMA
        advice = "upgrade the harness: pip install --upgrade nn-engine-harness" if is_newer else remedy
        raise BaselineError(f"{where} has schema {schema!r}; this harness reads {BASELINE_SCHEMA}; {advice}")
    try:
        check_digest(values)
        baseline = decoded(data, kind)
        _check_case(baseline.case, case_id)
        check(baseline)
    except (Damaged, ValueError, HarnessError) as error:
        raise BaselineError(f"{where} is damaged ({error}); {remedy}") from error
    return baseline


def _check_case(case: Case, case_id: str) -> None:
    if case.id != case_id:
        raise ValueError(f"it holds case {case.id}")


def _check_scores(baseline: PredictionsBaseline) -> None:
    if int(_scored_images(baseline.scores).hits.sum()) != baseline.scores.n_right:
        raise ValueError(f"its bits do not count {baseline.scores.n_right} right images")


def line_from_baseline(baseline: Baseline) -> str:
    """Return a baseline in one line: case, what it is of, who accepted it when."""
    accepted = baseline.accepted
    if isinstance(baseline, PredictionsBaseline):
        scores = baseline.scores
        rate = f"top-1 {100 * scores.n_right / scores.images.n_images:.2f} %"
        told = f"{rate} of {scores.images.dataset}/{scores.images.split}"
    elif isinstance(baseline, SamplesBaseline):
        told = f"{_metric_text(baseline.samples)} of {baseline.samples.source}"
    else:
        told = f"times on {accepted.environment.device_type}"
    return f"{baseline.case.id}: {told}, {accepted.at[:10]} by {accepted.by}"


def text_from_baseline(baseline: Baseline) -> str:
    """Return a baseline in a few lines for a reader."""
    accepted, engine = baseline.accepted, baseline.engine
    lines = [f"{baseline.case.id}: accepted by {accepted.by} at {accepted.at}"]
    if isinstance(baseline, PredictionsBaseline):
        scores, n = baseline.scores, baseline.scores.images.n_images
        images = scores.images
        lines.append(
            f"  top-1 {scores.n_right} of {n} ({100 * scores.n_right / n:.2f} %), top-5 {scores.n_right_top5}; "
            f"{images.dataset}/{images.split} {images.first}..{images.stop - 1} [{scores.fingerprint[:8]}]"
        )
    elif isinstance(baseline, SamplesBaseline):
        found = baseline.samples
        lines += [f"  {metric.name} {metric.in_words(metric.value)}" for metric in found.metrics]
        lines.append(f"  {found.n_samples} samples of {found.source} [{found.fingerprint[:8]}], task {found.task}")
    else:
        for latency in baseline.latencies:
            median_us = float(np.median(latency.medians_ns)) / 1e3
            timed = f"batch {latency.batch_size}: {median_us:.1f} us ({latency.window}, {latency.clock} clock)"
            lines.append(f"  {timed}, median of {len(latency.medians_ns)} rounds")
        lines += _cost_lines(baseline.costs)
        if baseline.effective_precision:
            lines.append(f"  ran in {baseline.effective_precision.main}")
    lines.append(f"  on {accepted.environment.machine}, {accepted.environment.cpu_isa}")
    lines.append(f"  {', '.join(f'{name} {version}' for name, version in sorted(engine.versions.items()))}")
    lines += history_lines(baseline.history)
    return "\n".join(line for line in lines if line.strip())


def _metric_text(samples: SampleScores) -> str:
    leading = samples.leading
    return "no metric" if leading is None else f"{leading.name} {leading.in_words(leading.value)}"


def _cost_lines(costs: Costs | None) -> list[str]:
    if costs is None:
        return []
    builds = ", ".join(f"{build_ns / 1e6:,.1f}" for build_ns in costs.builds_ns)
    sizes = (
        ("engine", costs.engine_bytes),
        ("device memory of a context", costs.device_memory_bytes),
        ("peak host memory", costs.host_peak_bytes),
    )
    told = [f"{name} {size:,} bytes" for name, size in sizes if size is not None]
    return [*([f"  builds {builds} ms"] if builds else []), *([f"  {', '.join(told)}"] if told else [])]


def _rounded(latency: RoundMedians) -> RoundMedians:
    """Round times to 0.1 ns: finer than any clock, and short in the file."""
    return replace(
        latency,
        medians_ns=tuple(round(t, 1) for t in latency.medians_ns),
        reference_medians_ns=tuple(round(t, 1) for t in latency.reference_medians_ns),
    )
