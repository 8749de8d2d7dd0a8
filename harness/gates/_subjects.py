"""What a case is compared by, whether it comes from a record of a run or from a baseline."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.gates._accuracy import check_accuracy
from harness.records import (
    BLOCK_IMAGES,
    CPU,
    FROM_CACHE,
    EffectivePrecision,
    Environment,
    Latency,
    PackedArray,
    Record,
    SampleScores,
)
from harness.specs import Case, ImageRange, Precision
from harness.stats import round_medians

RANGES = "calibration ranges"
RIGHT = -1  # in `wrong_predictions`: the prediction is the label


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundMedians:
    """A latency in short: the median of each round, and of FP32 in turn with it [ns per call]."""

    batch_size: int
    clock: str
    launch: str
    gated: bool
    window: str
    medians_ns: tuple[float, ...]
    reference_medians_ns: tuple[float, ...] = ()
    reference_case: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The costs of one case: of a run one value each, of a baseline also the builds that were accepted before."""

    builds_ns: tuple[int, ...] = ()  # wall time of builds that really happened, oldest first
    batch_sizes: tuple[int, ...] = ()  # that the engine was built for [images]
    engine_bytes: int | None = None
    device_memory_bytes: int | None = None  # of one execution context
    host_peak_bytes: int | None = None  # resident memory of the worker, at most
    peak_over: tuple[str, ...] = ()  # the work that the peak was taken over


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredImages:
    """The result of every scored image; a wrong prediction is kept, a right one is the label."""

    images: ImageRange
    fingerprint: str  # of all of them
    num_classes: int
    hits: NDArray[np.bool_]
    wrong_predictions: NDArray[np.int64]  # int64[N]: the predicted class, or RIGHT
    outputs_sha256: str = ""
    kinds: NDArray[np.int64] | None = None  # int64[N], as `records.Accuracy.kinds`; None: no two are known to be alike
    block_digests: NDArray[np.uint64] | None = None  # uint64[blocks], as `records.Accuracy.block_digests`

    @property
    def first_block(self) -> int:
        """Return the first image of the first whole block in the range."""
        return -(-self.images.first // BLOCK_IMAGES) * BLOCK_IMAGES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """One side of a comparison: a case of this run, of another run, or as it was accepted."""

    name: str  # "the baseline of 2026-11-20", "run A"
    case: Case
    environment: Environment
    source_sha256: str
    artifact_sha256: str
    weight_bits: int
    engine_digest: str  # of the layers that ran
    versions: dict[str, str]
    engine_sha256: str = ""  # of the engine's file, or of the model file that a runtime compiles
    options: dict[str, str] = field(default_factory=dict)  # of the engine, as read back
    preparation: dict[str, str] = field(default_factory=dict)  # of images, labels and calibration
    scores: ScoredImages | None = None  # None for a model that is only timed, and for a baseline of times alone
    samples: SampleScores | None = None  # of a model that is no classifier of single images
    latencies: tuple[RoundMedians, ...] = ()
    effective_precision: EffectivePrecision | None = None
    costs: Costs | None = None  # None where none were measured or accepted
    timed_on: Environment | None = None  # where the times are from, if not `environment`
    is_baseline: bool = False  # accepted, and so to be replaced on purpose
    is_beside: bool = False  # measured beside ours on one machine: the other side of an upgrade


class _This:
    """A record as a key by what it is, not by what it holds: most of it is megabytes of arrays."""

    __slots__ = ("record",)

    def __init__(self, record: Record) -> None:
        self.record = record

    def __hash__(self) -> int:
        return id(self.record)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _This) and other.record is self.record


def subject_from_record(record: Record, name: str) -> Subject:
    """Return what a record is compared by.

    Raises: MeasurementError for scores or times that are not numbers.
    """
    return _subject(_This(record), name)


@lru_cache(maxsize=2)  # all gates of a case ask for the same
def _subject(this: _This, name: str) -> Subject:
    record = this.record
    artifact, engine = record.artifact, record.engine
    return Subject(
        name=name,
        case=record.case,
        environment=record.environment,
        source_sha256=artifact.source_sha256 if artifact else "",
        artifact_sha256=artifact.sha256 if artifact else "",
        weight_bits=artifact.weight_bits if artifact else 0,
        engine_digest=engine_digest(record),
        versions={**record.environment.versions, **(engine.versions if engine else {})},
        engine_sha256=engine_sha256_of(record),
        options=engine.options if engine else {},
        preparation=preparation_of(record),
        scores=_scores_from_record(record),
        samples=record.samples,
        latencies=tuple(round_medians_from_latency(latency) for latency in record.valid_latencies),
        effective_precision=record.effective_precision,
        costs=costs_from_record(record),
    )


def subject_beside(record: Record, name: str) -> Subject:
    """Return what the other side of an upgrade is compared by.

    Without its FP32 arm, which ran on that side's runtime: a ratio to it would hide what slows both. And without its
    versions, which every verdict of an upgrade names.
    Raises: as `subject_from_record`.
    """
    found = subject_from_record(record, name)
    alone = tuple(replace(one, reference_medians_ns=(), reference_case="") for one in found.latencies)
    return replace(found, latencies=alone, versions={}, is_beside=True)


def costs_from_record(record: Record) -> Costs | None:
    """Return what a record's engine cost; None where none was built. A build from the cache is no build of this run."""
    engine = record.engine
    if engine is None:
        return None
    return Costs(
        builds_ns=(engine.build_ns,) if engine.was_built else (),
        batch_sizes=engine.batch_sizes,
        engine_bytes=engine.engine_bytes,
        device_memory_bytes=engine.device_memory_bytes,
        host_peak_bytes=engine.host_peak_bytes,
        peak_over=_work_of(record),
    )


def _work_of(record: Record) -> tuple[str, ...]:
    """Return what the worker did: its peak memory is that of all of it."""
    work, artifact = [], record.artifact
    if artifact is not None and artifact.sha256 != artifact.source_sha256 and not artifact.cache_hit:
        work.append("converted the model")
    if record.engine is not None:
        work.append("loaded the engine" if record.engine.cache == FROM_CACHE else "built the engine")
    if record.accuracy is not None:
        work.append(f"scored {record.accuracy.n_images} images in batches of {record.accuracy.batch_size}")
    if record.samples is not None:
        work.append(f"ran {record.samples.n_samples} samples in batches of {record.samples.batch_size}")
    if record.latencies:
        work.append(f"timed batch {', '.join(str(latency.batch_size) for latency in record.latencies)}")
    parts = (("throughput", record.throughput), ("invariance", record.invariance), ("layers", record.layers))
    return (*work, *(name for name, was_done in parts if was_done))


def engine_sha256_of(record: Record) -> str:
    """Return the digest of an engine's bytes: its file's, or the model file's where the runtime compiles that."""
    if record.engine is not None and record.engine.file is not None:
        return record.engine.file.sha256
    return record.artifact.sha256 if record.artifact is not None else ""


def preparation_of(record: Record) -> dict[str, str]:
    """Return what was done to images and labels, what exported the model, and what calibrated, by name."""
    known = {**record.preprocessing, **(record.artifact.exported if record.artifact else {})}
    calibration = record.artifact.calibration if record.artifact else None
    if calibration is None and record.engine is not None:
        calibration = record.engine.calibration
    if calibration is None:
        return known
    images = calibration.images
    told = {
        "calibration images": f"{images.dataset}/{images.split} {images.first}..{images.stop - 1} "
        f"[{calibration.fingerprint[:8]}]",
        "calibration method": calibration.method,
        RANGES: calibration.ranges_sha256[:8],
    }
    return {**known, **{name: text for name, text in told.items() if text}}


def _scores_from_record(record: Record) -> ScoredImages | None:
    accuracy = record.accuracy
    if accuracy is None:
        return None
    check_accuracy(accuracy)
    hits = accuracy.hits()
    return ScoredImages(
        images=accuracy.images,
        fingerprint=accuracy.fingerprint,
        num_classes=accuracy.num_classes,
        hits=hits,
        wrong_predictions=np.where(hits, RIGHT, accuracy.predictions.array().astype(np.int64)),
        outputs_sha256=accuracy.outputs_sha256,
        kinds=accuracy.kinds(),
        block_digests=digests_from_packed(accuracy.block_digests),
    )


def digests_from_packed(packed: PackedArray | None) -> NDArray[np.uint64] | None:
    """Return uint64[blocks], None where none were kept."""
    return None if packed is None else packed.array().astype(np.uint64)


@lru_cache(maxsize=64)  # both gates of a baseline ask for those of a case
def round_medians_from_latency(latency: Latency) -> RoundMedians:
    """Keep the median of every round. Raises: MeasurementError for times that are not positive numbers."""
    reference = latency.paired_rounds_ns
    return RoundMedians(
        batch_size=latency.batch_size,
        clock=latency.clock,
        launch=latency.launch,
        gated=latency.gated,
        window=latency.window,
        medians_ns=tuple(round_medians(latency.rounds_ns.array()).tolist()),
        reference_medians_ns=tuple(round_medians(reference.array()).tolist()) if reference else (),
        reference_case=latency.reference_case if reference else "",
    )


def engine_digest(record: Record) -> str:
    """Return a sha256 of the layers that ran (name, kind, kernel, precision); "" when they were not read.

    Equal digests mean the same kernels in the same order: a changed result then comes from elsewhere.
    """
    if not record.layers:
        return ""
    digest = hashlib.sha256()
    for layer in record.layers:
        digest.update("\0".join((layer.name, layer.kind, layer.kernel, layer.precision)).encode() + b"\n")
    return digest.hexdigest()


def accuracy_differences(ours: Subject, theirs: Subject) -> tuple[str, ...]:
    """Return what of a case forbids comparing predictions, images apart.

    Models, libraries, converters and machines may differ: they are under test.
    """
    classes = [subject.scores.num_classes if subject.scores else 0 for subject in (ours, theirs)]
    pairs = (
        ("precision", ours.case.precision.value, theirs.case.precision.value),
        ("recipe", ours.case.recipe, theirs.case.recipe),
        ("classes", classes[0], classes[1]),
    )
    return tuple(f"{name} {a or 'none'} and {b or 'none'}" for name, a, b in pairs if a != b)


def machine_differences(ours: Subject, theirs: Subject) -> tuple[str, ...]:
    """Return what forbids comparing times of two runs: another type of device."""
    here, there = ours.environment.device_type, (theirs.timed_on or theirs.environment).device_type
    return () if here == there else (f"device type {here or 'unknown'} and {there or 'unknown'}",)


def model_change(ours: Subject, theirs: Subject) -> str:
    """Return "6ee4 -> a026" when the two are of different model files, "" when they are of one."""
    if ours.source_sha256 == theirs.source_sha256:
        return ""
    n_digits = 4 if ours.source_sha256[:4] != theirs.source_sha256[:4] else 16
    return f"{theirs.source_sha256[:n_digits] or 'unknown'} -> {ours.source_sha256[:n_digits] or 'unknown'}"


def is_other_int8_isa(ours: Subject, theirs: Subject) -> bool:
    """Tell whether INT8 ran with other CPU instructions, where other predictions are no fault."""
    is_cpu = ours.case.device == CPU and theirs.case.device == CPU
    other = ours.environment.cpu_isa != theirs.environment.cpu_isa or ours.weight_bits != theirs.weight_bits
    return is_cpu and ours.case.precision is Precision.INT8 and other


def changes_of_options(ours: Subject, theirs: Subject) -> tuple[str, ...]:
    """Return which options of the engine differ, theirs -> ours; those that one side does not know are not compared.

    A verdict names them whatever came of it, as a fact: a user sets some, the runtime others (a default workspace of
    the GPU's size, as many threads as CPUs).
    """
    names = sorted(ours.options.keys() & theirs.options.keys())
    return tuple(f"{n} {theirs.options[n]} -> {ours.options[n]}" for n in names if ours.options[n] != theirs.options[n])


def changes_of_preparation(ours: Subject, theirs: Subject) -> tuple[str, ...]:
    """Return what was done differently to images, labels or calibration, theirs -> ours.

    A verdict names it whatever came of it: the model file says nothing of it.
    """
    before, now = theirs.preparation, ours.preparation
    if model_change(ours, theirs):  # other weights lead to other ranges
        now = {name: text for name, text in now.items() if name != RANGES}
    return tuple(f"{n} {before[n]} -> {now[n]}" for n in sorted(before.keys() & now.keys()) if before[n] != now[n])


def changes_of_versions(ours: Subject, theirs: Subject) -> tuple[str, ...]:
    """Return which libraries have other versions, theirs -> ours."""
    names = sorted(ours.versions.keys() & theirs.versions.keys())
    return tuple(
        f"{n} {theirs.versions[n]} -> {ours.versions[n]}" for n in names if ours.versions[n] != theirs.versions[n]
    )


def changes_of_machine(ours: Subject, theirs: Subject) -> tuple[str, ...]:
    """Return what changed that any engine would feel: CPU instructions, device, driver, CUDA, theirs -> ours."""
    found = []
    a, b = ours.environment, theirs.timed_on or theirs.environment
    if ours.case.device == CPU and a.cpu_isa != b.cpu_isa:
        found.append(f"CPU instructions {b.cpu_isa} -> {a.cpu_isa}")
    if (a.device_name or a.cpu_model) != (b.device_name or b.cpu_model):
        found.append(f"device {b.device_name or b.cpu_model} -> {a.device_name or a.cpu_model}")
    for name, now, before in (("driver", a.driver, b.driver), ("CUDA", a.cuda_version, b.cuda_version)):
        if now and before and now != before:  # "" in records of before the field, and without a GPU
            found.append(f"{name} {before} -> {now}")
    return tuple(found)


def changes_of_setting(ours: Subject, theirs: Subject) -> tuple[str, ...]:
    """Return what else changed between two comparable subjects: the suspects, theirs -> ours."""
    found = [*changes_of_versions(ours, theirs), *changes_of_machine(ours, theirs)]
    if ours.weight_bits != theirs.weight_bits:
        found.append(f"weights {theirs.weight_bits} -> {ours.weight_bits} bits")
    if ours.artifact_sha256 != theirs.artifact_sha256 and not model_change(ours, theirs):
        found.append(f"the prepared file {theirs.artifact_sha256[:8]} -> {ours.artifact_sha256[:8]}")
    if ours.engine_digest and theirs.engine_digest and ours.engine_digest != theirs.engine_digest:
        found.append("the engine's layers or kernels")
    return tuple(found)
