"""What a case is compared by, whether it comes from a record of a run or from a baseline file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.gates.accuracy import check_accuracy
from harness.records import Environment, Latency, Record
from harness.specs import Case, ImageRange, Precision
from harness.stats import round_medians

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """One side of a comparison. Without scores (a model that is only timed) `hits` is None."""

    name: str  # "the baseline of 2026-11-20", "run A"
    case: Case
    environment: Environment
    source_sha256: str
    artifact_sha256: str
    weight_bits: int
    engine_digest: str
    versions: dict[str, str]
    options: dict[str, str] = field(default_factory=dict)  # of the engine, as read back
    num_classes: int = 0
    images: ImageRange | None = None
    fingerprint: str = ""
    hits: NDArray[np.bool_] | None = None
    wrong_predictions: NDArray[np.int64] | None = None  # int64[N]: the predicted class, or RIGHT
    outputs_sha256: str = ""
    latencies: tuple[RoundMedians, ...] = ()


def subject_from_record(record: Record, name: str) -> Subject:
    """Return what a record is compared by.

    Raises: MeasurementError for scores or times that are not numbers.
    """
    artifact, accuracy = record.artifact, record.accuracy
    engine_versions = record.engine.versions if record.engine else {}
    common = {
        "name": name,
        "case": record.case,
        "environment": record.environment,
        "source_sha256": artifact.source_sha256 if artifact else "",
        "artifact_sha256": artifact.sha256 if artifact else "",
        "weight_bits": artifact.weight_bits if artifact else 0,
        "engine_digest": engine_digest(record),
        "versions": {**record.environment.versions, **engine_versions},
        "options": record.engine.options if record.engine else {},
        "latencies": tuple(round_medians_from_latency(latency) for latency in record.latencies),
    }
    if accuracy is None:
        return Subject(**common)  # type: ignore[arg-type]
    check_accuracy(accuracy)
    hits = accuracy.hits()
    return Subject(
        **common,  # type: ignore[arg-type]
        num_classes=accuracy.num_classes,
        images=accuracy.images,
        fingerprint=accuracy.fingerprint,
        hits=hits,
        wrong_predictions=np.where(hits, RIGHT, accuracy.predictions.array().astype(np.int64)),
        outputs_sha256=accuracy.outputs_sha256,
    )


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
    """Return what forbids comparing predictions; libraries, converters and machines may differ: they are under test."""
    pairs = (
        ("model", ours.source_sha256[:8], theirs.source_sha256[:8]),
        ("precision", ours.case.precision.value, theirs.case.precision.value),
        ("recipe", ours.case.recipe, theirs.case.recipe),
        ("classes", ours.num_classes, theirs.num_classes),
        ("images", image_text(ours), image_text(theirs)),
    )
    return tuple(f"{name} {a or 'none'} and {b or 'none'}" for name, a, b in pairs if a != b)


def image_text(subject: Subject) -> str:
    """Return a subject's images in words, with the start of their fingerprint."""
    if subject.images is None:
        return ""
    images = subject.images
    return f"{images.dataset}/{images.split} {images.first}..{images.stop - 1} [{subject.fingerprint[:8]}]"


def machine_differences(ours: Subject, theirs: Subject) -> tuple[str, ...]:
    """Return what forbids comparing times of two runs: another device, or another number of CPUs."""
    a, b = ours.environment, theirs.environment
    pairs = [("device", a.device_name or a.cpu_model, b.device_name or b.cpu_model)]
    if ours.case.device == "cpu":
        pairs.append(("number of CPUs", str(a.n_cpus), str(b.n_cpus)))
    pairs.append(("model", ours.source_sha256[:8], theirs.source_sha256[:8]))
    return tuple(f"{name} {x or 'unknown'} and {y or 'unknown'}" for name, x, y in pairs if x != y)


def is_other_int8_isa(ours: Subject, theirs: Subject) -> bool:
    """Tell whether INT8 ran with other CPU instructions, where other predictions are no fault."""
    is_cpu = ours.case.device == "cpu" and theirs.case.device == "cpu"
    other = ours.environment.cpu_isa != theirs.environment.cpu_isa or ours.weight_bits != theirs.weight_bits
    return is_cpu and ours.case.precision is Precision.INT8 and other


def changes_of_options(ours: Subject, theirs: Subject) -> tuple[str, ...]:
    """Return which options of the engine differ, theirs -> ours; those that one side does not know are not compared.

    A verdict names them whatever came of it, as a fact: a user sets some, the runtime others (a default workspace of
    the GPU's size, as many threads as CPUs).
    """
    names = sorted(ours.options.keys() & theirs.options.keys())
    return tuple(f"{n} {theirs.options[n]} -> {ours.options[n]}" for n in names if ours.options[n] != theirs.options[n])


def changes_of_setting(ours: Subject, theirs: Subject) -> tuple[str, ...]:
    """Return what else changed between two comparable subjects: the suspects, theirs -> ours."""
    names = sorted(ours.versions.keys() & theirs.versions.keys())
    found = [f"{n} {theirs.versions[n]} -> {ours.versions[n]}" for n in names if ours.versions[n] != theirs.versions[n]]
    a, b = ours.environment, theirs.environment
    if ours.case.device == "cpu" and a.cpu_isa != b.cpu_isa:
        found.append(f"CPU instructions {b.cpu_isa} -> {a.cpu_isa}")
    if (a.device_name or a.cpu_model) != (b.device_name or b.cpu_model):
        found.append(f"device {b.device_name or b.cpu_model} -> {a.device_name or a.cpu_model}")
    for name, now, before in (("driver", a.driver, b.driver), ("CUDA", a.cuda_version, b.cuda_version)):
        if now and before and now != before:  # "" in records of before the field, and without a GPU
            found.append(f"{name} {before} -> {now}")
    if ours.weight_bits != theirs.weight_bits:
        found.append(f"weights {theirs.weight_bits} -> {ours.weight_bits} bits")
    if ours.artifact_sha256 != theirs.artifact_sha256:
        found.append(f"the prepared file {theirs.artifact_sha256[:8]} -> {ours.artifact_sha256[:8]}")
    if ours.engine_digest and theirs.engine_digest and ours.engine_digest != theirs.engine_digest:
        found.append("the engine's layers or kernels")
    return tuple(found)
