"""Baseline files: what a case gave when somebody accepted it, kept in version control.

`<root>/<device slug>/<case id>.json`, one file a case, small and in a fixed key order, so that a changed baseline is a
readable diff. A damaged file is an error with the command that mends it, never a missing baseline.
"""

from __future__ import annotations

import binascii
import hashlib
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from harness.errors import BaselineError, ConfigError
from harness.gates import RoundMedians, Subject, judge_subject, no_baseline, subject_from_record
from harness.records import Environment, PackedArray, Record, Status, Verdict
from harness.specs import Case, ImageRange, Precision, Tolerance
from harness.store.runs import write_atomically

BASELINE_SCHEMA = 1
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
    outputs: OutputStatistics | None  # None in a file that began as schema 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What later runs of one case on one device are compared with."""

    schema: int
    case: Case
    accepted_by: str
    accepted_at: str  # UTC, ISO 8601
    recorded_at: str
    source_sha256: str
    artifact_sha256: str
    weight_bits: int
    engine_digest: str
    effective_precision: str
    scores: BaselineScores | None
    latencies: tuple[RoundMedians, ...]
    environment: Environment
    engine_versions: dict[str, str]
    engine_options: dict[str, str] = field(default_factory=dict)  # {}: not known, in older files

    def subject(self) -> Subject:
        """Return what a case is compared with. Raises: BaselineError when the scores deny themselves."""
        day = self.accepted_at[: len(date.min.isoformat())]
        common: dict[str, Any] = {
            "name": f"the baseline of {day}",
            "case": self.case,
            "environment": self.environment,
            "source_sha256": self.source_sha256,
            "artifact_sha256": self.artifact_sha256,
            "weight_bits": self.weight_bits,
            "engine_digest": self.engine_digest,
            "versions": {**self.environment.versions, **self.engine_versions},
            "options": self.engine_options,
            "latencies": self.latencies,
        }
        scores = self.scores
        if scores is None:
            return Subject(**common)
        hits = np.unpackbits(scores.top1_hits.array().astype(np.uint8), count=scores.images.n_images).astype(bool)
        wrong = np.full(hits.size, -1, np.int64)
        wrong[~hits] = scores.wrong_predictions.array()
        return Subject(
            **common,
            num_classes=scores.num_classes,
            images=scores.images,
            fingerprint=scores.fingerprint,
            hits=hits,
            wrong_predictions=wrong,
            outputs_sha256=scores.outputs.sha256 if scores.outputs else "",
        )


def baseline_from_record(record: Record, *, accepted_by: str, accepted_at: str) -> Baseline:
    """Return the baseline that a passed record becomes.

    accepted_at: UTC, ISO 8601. Raises: BaselineError for a record that did not pass or measured nothing.
    """
    if record.artifact is None or (record.accuracy is None and not record.latencies):
        raise BaselineError(
            f"{record.case.id}: nothing was measured ({record.status}); a baseline needs scores or times"
        )
    subject = subject_from_record(record, "this run")
    return Baseline(
        schema=BASELINE_SCHEMA,
        case=record.case,
        accepted_by=accepted_by,
        accepted_at=accepted_at,
        recorded_at=record.recorded_at,
        source_sha256=subject.source_sha256,
        artifact_sha256=subject.artifact_sha256,
        weight_bits=subject.weight_bits,
        engine_digest=subject.engine_digest,
        effective_precision=record.effective_precision.main if record.effective_precision else "unknown",
        scores=_scores_from_record(record),
        latencies=tuple(_rounded(latency) for latency in subject.latencies),
        environment=record.environment,
        engine_versions=record.engine.versions if record.engine else {},
        engine_options=record.engine.options if record.engine else {},
    )


def _scores_from_record(record: Record) -> BaselineScores | None:
    accuracy = record.accuracy
    if accuracy is None:
        return None
    hits, predictions = accuracy.hits(), accuracy.predictions.array()
    p1, p10, p50 = (float(q) for q in np.quantile(accuracy.margins.array().astype(np.float64), MARGIN_QUANTILES))
    drift = record.drift
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


def device_slug(case: Case, environment: Environment) -> str:
    """Return the folder of a device: `cpu`, or the GPU's model name, for example `nvidia-h200`.

    All CPUs share a folder: FP32 predictions agree between them, and the instruction set is kept in the baseline.
    Raises: BaselineError for a GPU whose name is unknown.
    """
    if case.device == "cpu":
        return "cpu"
    slug = re.sub(r"[^a-z0-9]+", "-", environment.device_name.lower()).strip("-")
    if not slug:
        raise BaselineError(f"{case.id}: the model name of device {case.device} is unknown, so it can have no baseline")
    return slug


def json_from_baseline(baseline: Baseline) -> bytes:
    """Return the file's text: indented, keys in the order of the class, lists of numbers on one line."""
    text = msgspec.json.format(msgspec.json.encode(baseline), indent=1).decode()
    return re.sub(r"\[\n([-0-9.,eE+\s]+)\]", lambda m: f"[{' '.join(m[1].split())}]", text).encode() + b"\n"


def baseline_from_json(data: bytes, *, where: str, case_id: str) -> Baseline:
    """Decode, upgrade and check a baseline file.

    Raises: BaselineError for a damaged file, a file of another case, or a newer schema; it names what mends it.
    """
    remedy = f"restore it from version control, or replace it: harness baseline accept latest --case {case_id}"
    try:
        document = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BaselineError(f"{where} is damaged ({error}); {remedy}") from error
    schema = document.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 0:
        raise BaselineError(f"{where} is damaged (schema {schema!r}); {remedy}")
    if schema > BASELINE_SCHEMA:
        raise BaselineError(
            f"{where} has schema {schema}, newer than this harness knows ({BASELINE_SCHEMA}); upgrade the harness: "
            "pip install --upgrade nn-engine-harness"
        )
    try:
        for step in range(schema, BASELINE_SCHEMA):
            document = _UPGRADES[step](document)
        baseline = msgspec.convert(document, type=Baseline)
        _check_baseline(baseline, case_id)
    except (msgspec.ValidationError, zlib.error, binascii.Error, ValueError, KeyError, TypeError) as error:
        raise BaselineError(f"{where} is damaged ({error}); {remedy}") from error
    return baseline


def _upgrade_0(document: dict[str, Any]) -> dict[str, Any]:
    """Add what schema 0 did not hold: statistics of the outputs."""
    scores = document["scores"]
    return {**document, "schema": 1, "scores": None if scores is None else {**scores, "outputs": None}}


_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {0: _upgrade_0}


def _check_baseline(baseline: Baseline, case_id: str) -> None:
    """Check a baseline against its own counts. Raises: ValueError saying what does not fit."""
    if baseline.case.id != case_id:
        raise ValueError(f"it holds case {baseline.case.id}")
    scores = baseline.scores
    if scores is None:
        return
    hits = baseline.subject().hits
    if hits is None or int(hits.sum()) != scores.n_right:
        raise ValueError(f"its bits do not count {scores.n_right} right images")


class BaselineStore:
    """The baseline files below one folder, and those queued to be written at the end of a run."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._queued: dict[Path, Baseline] = {}

    def path_for(self, case: Case, environment: Environment) -> Path:
        """Return where a case's baseline lies, whether or not it exists."""
        return self._root / device_slug(case, environment) / f"{case.id}.json"

    def load(self, case: Case, environment: Environment) -> Baseline | None:
        """Return a case's baseline, None when there is none.

        Raises: BaselineError for a damaged file or a newer schema.
        """
        path = self.path_for(case, environment)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BaselineError(f"{path} cannot be read ({error.strerror}); mend its permissions") from error
        return baseline_from_json(data, where=str(path), case_id=case.id)

    def judge(self, record: Record, *, tolerance: Tolerance) -> tuple[Verdict, ...]:
        """Judge a record against its baseline; a missing one is a verdict too.

        Raises: BaselineError for a damaged file; MeasurementError for scores or times that are not numbers.
        """
        baseline = self.load(record.case, record.environment)
        if baseline is None:
            folder = str(self.path_for(record.case, record.environment).parent)
            measured = (("baseline", record.accuracy is not None), ("latency", bool(record.latencies)))
            gates = [gate for gate, is_there in measured if is_there] or ["baseline"]
            return tuple(no_baseline(record.case, folder=folder, gate=gate) for gate in gates)
        ours = subject_from_record(record, "this run")
        return judge_subject(ours, baseline.subject(), tolerance=tolerance)

    def diff(
        self, records: Iterable[Record], *, tolerance_for: Callable[[Case], Tolerance] = lambda case: Tolerance()
    ) -> list[tuple[str, tuple[Verdict, ...]]]:
        """Return the verdicts of all measured records of a run against their baselines."""
        return [(r.case.id, self.judge(r, tolerance=tolerance_for(r.case))) for r in records if _is_measured(r)]

    def queue(self, record: Record, *, accepted_by: str, accepted_at: str) -> None:
        """Keep a passed record to be written by `flush`.

        Raises: BaselineError for a record that did not pass.
        """
        if record.status is not Status.PASSED:
            raise BaselineError(f"{record.case.id} {record.status}: only a passed case becomes a baseline")
        baseline = baseline_from_record(record, accepted_by=accepted_by, accepted_at=accepted_at)
        self._queued[self.path_for(record.case, record.environment)] = baseline

    def flush(self, *, is_clean: bool) -> tuple[Path, ...]:
        """Write what was queued if the run was clean, and return the paths; otherwise write nothing.

        Raises: ConfigError when the folder cannot be written.
        """
        queued, self._queued = self._queued, {}
        if not is_clean:
            return ()
        for path, baseline in queued.items():
            _write(path, json_from_baseline(baseline))
        return tuple(queued)

    def accept(
        self, records: Sequence[Record], *, case_ids: Sequence[str] = (), accepted_by: str, accepted_at: str
    ) -> tuple[Path, ...]:
        """Write baselines from a stored run on purpose: all its cases, or those named; return the paths.

        A case that failed only against its old baseline is what this is for; one that failed otherwise is refused,
        and then nothing is written.
        Raises: BaselineError for a refused case; ConfigError for a case the run does not have.
        """
        by_id = {record.case.id: record for record in records}
        unknown = [case_id for case_id in case_ids if case_id not in by_id]
        if unknown:
            raise ConfigError(f"the run has no case {', '.join(unknown)}; it has: {', '.join(by_id) or 'none'}")
        chosen = [by_id[i] for i in case_ids] if case_ids else [r for r in records if _is_measured(r)]
        if not chosen:
            raise BaselineError("the run measured no case, so there is nothing to accept")
        files = {}
        for record in chosen:
            _check_acceptable(record)
            baseline = baseline_from_record(record, accepted_by=accepted_by, accepted_at=accepted_at)
            files[self.path_for(record.case, record.environment)] = json_from_baseline(baseline)
        for path, data in files.items():
            _write(path, data)
        return tuple(files)

    def paths(self) -> tuple[Path, ...]:
        """Return all baseline files, sorted."""
        return tuple(sorted(self._root.glob("*/*.json")))

    def load_all(self) -> tuple[Baseline, ...]:
        """Return all baselines. Raises: BaselineError for the first damaged file."""
        return tuple(baseline_from_json(p.read_bytes(), where=str(p), case_id=p.stem) for p in self.paths())

    def unused(self, records: Iterable[Record], *, skipped_backends: Collection[str] = ()) -> tuple[Path, ...]:
        """Return the files, on the devices of these records, that belong to none of their cases.

        `skipped_backends`: those that could not run there; their files are none of this run's business, nor are those
        of a precision that no record has.
        """
        found = tuple(records)
        used = {self.path_for(record.case, record.environment) for record in found}
        folders = {path.parent for path in used}
        others = {precision.value for precision in Precision} - {record.case.precision.value for record in found}
        spared = tuple(f"-{name}-" for name in (*skipped_backends, *others))
        return tuple(
            path
            for path in self.paths()
            if path.parent in folders and path not in used and not any(mark in f"{path.stem}-" for mark in spared)
        )

    def prune(self, records: Iterable[Record], *, skipped_backends: Collection[str] = ()) -> tuple[Path, ...]:
        """Delete unused files and return them."""
        unused = self.unused(records, skipped_backends=skipped_backends)
        for path in unused:
            path.unlink()
        return unused


def line_from_baseline(baseline: Baseline) -> str:
    """Return a baseline in one line: case, device, top-1, who accepted it when."""
    scores, environment = baseline.scores, baseline.environment
    top1 = f"top-1 {100 * scores.n_right / scores.images.n_images:.2f} %" if scores else "timed only"
    folder = device_slug(baseline.case, environment)
    return f"{folder}/{baseline.case.id}: {top1}, {baseline.accepted_at[:10]} by {baseline.accepted_by}"


def text_from_baseline(baseline: Baseline) -> str:
    """Return a baseline in a few lines for a reader."""
    scores = baseline.scores
    lines = [f"{baseline.case.id}: accepted by {baseline.accepted_by} at {baseline.accepted_at}"]
    if scores:
        n, images = scores.images.n_images, scores.images
        lines.append(
            f"  top-1 {scores.n_right} of {n} ({100 * scores.n_right / n:.2f} %), top-5 {scores.n_right_top5}; "
            f"{images.dataset}/{images.split} {images.first}..{images.stop - 1} [{scores.fingerprint[:8]}]"
        )
    for latency in baseline.latencies:
        median_us = float(np.median(latency.medians_ns)) / 1e3
        told = f"batch {latency.batch_size}: {median_us:.1f} us ({latency.window}, {latency.clock} clock)"
        lines.append(f"  {told}, median of {len(latency.medians_ns)} rounds")
    environment = baseline.environment
    lines.append(f"  on {environment.machine}, {environment.cpu_isa}; ran in {baseline.effective_precision}")
    lines.append(f"  {', '.join(f'{name} {version}' for name, version in sorted(baseline.engine_versions.items()))}")
    return "\n".join(line for line in lines if line.strip())


def _is_measured(record: Record) -> bool:
    return record.status in (Status.PASSED, Status.FAILED) and (record.accuracy is not None or bool(record.latencies))


def _check_acceptable(record: Record) -> None:
    if not _is_measured(record):
        raise BaselineError(f"{record.case.id} ended in {record.status} ({record.reason}); there is nothing to accept")
    others = [v for v in record.verdicts if v.is_failure and v.gate not in ("baseline", "latency")]
    if others:
        raise BaselineError(
            f"{record.case.id} failed gate {others[0].gate} ({others[0].message}); a baseline cannot excuse that, "
            "change the tolerance or mend the case"
        )
    if record.status is Status.FAILED and not any(v.is_failure for v in record.verdicts):
        raise BaselineError(f"{record.case.id} failed ({record.reason}), not against its baseline; mend it first")


def _rounded(latency: RoundMedians) -> RoundMedians:
    """Round times to 0.1 ns: finer than any clock, and short in the file."""
    return replace(
        latency,
        medians_ns=tuple(round(t, 1) for t in latency.medians_ns),
        reference_medians_ns=tuple(round(t, 1) for t in latency.reference_medians_ns),
    )


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise ConfigError(f"baseline {path} cannot be written ({error.strerror}); see --baseline-dir") from error
