"""Records with chosen hits, for the tests of comparisons and baselines."""

from dataclasses import replace

import numpy as np

from harness.records import (
    Accuracy,
    Artifact,
    EngineFacts,
    Environment,
    Latency,
    Layer,
    PackedArray,
    Record,
    Status,
)
from harness.specs import Case, ImageRange, Precision

N_CLASSES = 10


def accuracy_from(predictions, labels=None, *, fingerprint="f" * 64, outputs_sha256="0" * 64, first=0):
    """Scores with these predictions; the default label of image i is i % 10."""
    predictions = np.asarray(predictions)
    n = len(predictions)
    labels = np.arange(n) % N_CLASSES if labels is None else np.asarray(labels)
    hits = predictions == labels
    return Accuracy(
        images=ImageRange(dataset="strokes", split="test", first=first, stop=first + n),
        fingerprint=fingerprint,
        num_classes=N_CLASSES,
        labels=PackedArray.of(labels.astype(np.uint8)),
        predictions=PackedArray.of(predictions.astype(np.uint8)),
        top1_hits=PackedArray.of(np.packbits(hits)),
        top5_hits=PackedArray.of(np.packbits(np.ones(n, bool))),
        margins=PackedArray.of(np.linspace(0, 1, n).astype(np.float32)),
        n_ties_top1=0,
        n_ties_top5=0,
        outputs_sha256=outputs_sha256,
    )


def accuracy_with(*, n=10_000, wrong=(), other=()):
    """All images right, but for those in `wrong` (label + 1) and in `other` (label + 2)."""
    predictions = np.arange(n) % N_CLASSES
    predictions[list(wrong)] = (predictions[list(wrong)] + 1) % N_CLASSES
    predictions[list(other)] = (predictions[list(other)] + 2) % N_CLASSES
    return accuracy_from(predictions)


def pair_with(*, lost, gained, n=10_000):
    """A reference and an engine that lost and gained this many images."""
    return accuracy_with(n=n, wrong=range(gained)), accuracy_with(n=n, wrong=range(gained, gained + lost))


def latency_with(medians=(100.0,) * 20, *, batch_size=1, **changes):
    rounds = np.repeat(np.asarray(medians, np.float64)[:, None], 3, axis=1)
    latency = Latency(
        batch_size=batch_size,
        rounds_ns=PackedArray.of(rounds),
        calls_per_sample=1,
        warmup_calls=3,
        clock="host",
        launch="call",
        gated=False,
        window="compute",
        reference_rounds_ns=PackedArray.of(rounds * 2),
        reference_case="lenet5-ort-fp32",
    )
    return replace(latency, **changes)


ENVIRONMENT = Environment(
    machine="Test CPU, 2 CPUs, 8 GiB",
    cpu_model="Test CPU",
    cpu_isa="avx512_vnni",
    n_cpus=2,
    memory_bytes=8 << 30,
    os="Linux",
    python="3.11.7",
    versions={"numpy": "2.4.6", "onnxruntime": "1.31.1"},
    device_name="Test CPU",
)


def record_with(
    accuracy=None,
    *,
    precision=Precision.FP32,
    backend="ort",
    latencies=(),
    status=Status.PASSED,
    environment=ENVIRONMENT,
    weight_bits=32,
    **changes,
):
    record = Record(
        case=Case(
            model="lenet5",
            backend=backend,
            precision=precision,
            recipe="none" if precision is Precision.FP32 else "qdq-minmax",
        ),
        status=status,
        environment=environment,
        recorded_at="2026-11-21T01:00:00Z",
        artifact=Artifact(
            model="lenet5",
            precision=precision,
            recipe="none",
            onnx_path="lenet5.onnx",
            sha256="a" * 64,
            source_sha256="b" * 64,
            weight_bits=weight_bits,
        ),
        engine=EngineFacts(build_ns=1, versions={"onnxruntime": environment.versions["onnxruntime"]}),
        layers=(Layer(name="conv1", kind="Conv", kernel="nchwc", precision="fp32"),),
        accuracy=accuracy,
        latencies=tuple(latencies),
    )
    return replace(record, **changes)
