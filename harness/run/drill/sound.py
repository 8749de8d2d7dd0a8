"""A night of records in which nothing is wrong: no engine is needed to show a gate a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.gates import Baselines, JudgeOptions, judge_records, subject_from_record
from harness.records import (
    Accuracy,
    Artifact,
    EffectivePrecision,
    EngineFacts,
    Environment,
    InvarianceCheck,
    Latency,
    MetricScore,
    PackedArray,
    Record,
    Replay,
    SampleScores,
    TensorDrift,
    TimingBasis,
    TimingSpread,
)
from harness.specs import REFERENCE_BACKEND, Case, ImageRange, Precision, Tolerance

N_IMAGES, N_CLASSES, N_WRONG = 4_000, 10, 200
N_ROUNDS, N_PAIRS = 20, 16
OTHER_BACKEND = "drill"
ALPHA = 0.001
TIME_NS, SPREAD = 100_000.0, 0.001  # of a call, and how far times scatter [fraction]
ASKED_SPEEDUP, MAX_SLOWDOWN = 1.5, 0.02
ACCEPTED_GAP = 1e-4
N_SAMPLES, ACCEPTED_DRIFT = 32, 0.01
BUILD_NS, COST_BYTES, N_BUILDS = 1e9, 100_000_000, 8
N_METRIC, N_METRIC_WRONG = 2_000, 200
NIGHT = "2026-01-01T02:00:00+00:00"
QUIET = TimingSpread(batch_size=1, times_sd=0.003, times_n=40, pairs_sd=SPREAD, pairs_n=40, smallest_slowdown=0.004)
MACHINE = Environment(
    machine="a machine of a drill",
    cpu_model="drill",
    cpu_isa="avx512_vnni",
    n_cpus=2,
    memory_bytes=8 << 30,
    os="Linux",
    python="3",
    device_name="drill",
)
Change = Callable[[Record], Record]


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundNight:
    """FP32 on the reference backend and on another, INT8 on the other, and what was accepted of them."""

    records: tuple[Record, ...]
    baselines: Baselines

    def judged(self, options: JudgeOptions | None = None) -> list[Record]:
        """Return its records, judged by all gates."""
        return judge_records(self.records, self.baselines, options or JudgeOptions())

    def changed(self, change: Change, *, precision: Precision, backend: str = OTHER_BACKEND) -> SoundNight:
        """Return the night with something planted in one case."""
        records = tuple(
            change(record) if (record.case.backend, record.case.precision) == (backend, precision) else record
            for record in self.records
        )
        return replace(self, records=records)

    def with_accepted(self, change: Change) -> SoundNight:
        """Return the night beside other baselines."""
        return replace(self, baselines=accepted([change(record) for record in self.records]))


def sound_night() -> SoundNight:
    """Return a night in which every gate passes."""
    records = (
        _record(REFERENCE_BACKEND, Precision.FP32),
        _record(OTHER_BACKEND, Precision.FP32),
        _record(OTHER_BACKEND, Precision.INT8),
    )
    return SoundNight(records=records, baselines=accepted(records))


def accepted(records: Sequence[Record]) -> Baselines:
    """Return what these records are once they were accepted."""
    return {
        record.key: replace(subject_from_record(record, "the accepted night"), is_baseline=True) for record in records
    }


def with_hits(record: Record, change: int, *, skip: int = 0) -> Record:
    """Return a record that gets so many images more right, or wrong where it is negative; `skip`: those passed over."""
    assert record.accuracy is not None
    labels = record.accuracy.labels.array().astype(np.int64)
    predictions = record.accuracy.predictions.array().astype(np.int64)
    right = labels == predictions
    places = np.flatnonzero(right if change < 0 else ~right)[skip : skip + abs(change)]
    predictions = predictions.copy()
    predictions[places] = labels[places] if change > 0 else (labels[places] + 1) % N_CLASSES
    return replace(record, accuracy=accuracy_of(labels, predictions))


def with_times(record: Record, ratio: float) -> Record:
    """Return a record whose engine takes `ratio` of the accepted time, also in pairs of processes with that engine."""
    logs = np.log(ratio) + SPREAD * _scatter(N_PAIRS)
    control = TIME_NS * np.exp(SPREAD * _scatter(N_PAIRS))
    replay = Replay(
        batch_size=1,
        alpha=ALPHA,
        log_ratios=PackedArray.of(logs),
        candidate_ns=PackedArray.of(control * np.exp(logs)),
        control_ns=PackedArray.of(control),
    )
    return replace(record, latencies=(_latency(ratio),), replays=(replay,))


def with_speedup(record: Record, speedup: float) -> Record:
    """Return a record whose FP32 arm took `speedup` times its own time."""
    return replace(record, latencies=(_latency(1.0, speedup=speedup),))


def with_share(record: Record, share: float) -> Record:
    """Return a record of which a share of the layers ran as asked."""
    asked = record.case.precision.value
    return replace(record, effective_precision=EffectivePrecision(by_layer={asked: share, "other": 1 - share}))


def with_gap(record: Record, gap: float) -> Record:
    """Return a record whose outputs moved by so much between arrangements in a batch."""
    return replace(record, invariance=tuple(replace(check, largest_gap=gap) for check in record.invariance))


def with_drift(record: Record, drift: float) -> Record:
    """Return a record of a model of any graph whose outputs are so far from those of FP32 on every sample."""
    samples = SampleScores(task="raw", source="seeded", fingerprint="f" * 64, ids=tuple(map(str, range(N_SAMPLES))))
    found = TensorDrift(
        output="y",
        against="drill-drill-fp32",
        n_samples=N_SAMPLES,
        max_abs=drift,
        rmse=drift,
        cosine=1.0,
        agreement=None,
        n_reshaped=0,
        relative=PackedArray.of(drift * np.exp(SPREAD * _scatter(N_SAMPLES))),
    )
    tolerance = replace(record.tolerance, max_drift=ACCEPTED_DRIFT)
    return replace(record, samples=samples, tensor_drifts=(found,), tolerance=tolerance)


def with_metric(record: Record, change: int = 0) -> Record:
    """Return a record of a model of any graph, with so many samples more right, or wrong where it is negative."""
    values = np.ones(N_METRIC)
    values[: N_METRIC_WRONG - change] = 0.0
    metric = MetricScore(
        name="top-1",
        value=float(values.mean()),
        low=None,
        high=None,
        n_samples=N_METRIC,
        values=PackedArray.of(values),
    )
    samples = SampleScores(
        task="classification",
        source="drill/test",
        fingerprint="f" * 64,
        ids=tuple(map(str, range(N_METRIC))),
        metrics=(metric,),
    )
    return replace(record, samples=samples)


def with_costs(record: Record, ratio: float = 1.0) -> Record:
    """Return a record whose build time, engine and peak memory are `ratio` of the accepted, and are gated."""
    engine = EngineFacts(
        build_ns=int(BUILD_NS * ratio), engine_bytes=int(COST_BYTES * ratio), host_peak_bytes=int(COST_BYTES * ratio)
    )
    tolerance = replace(record.tolerance, max_build_slowdown=0.5, max_engine_growth=0.1, max_memory_growth=0.1)
    return replace(record, engine=engine, tolerance=tolerance)


def with_builds(baselines: Baselines) -> Baselines:
    """Return baselines that have accepted several builds."""
    found = {}
    for key, subject in baselines.items():
        builds = tuple(int(BUILD_NS * (1 + SPREAD * scatter)) for scatter in _scatter(N_BUILDS))
        costs = None if subject.costs is None else replace(subject.costs, builds_ns=builds)
        found[key] = replace(subject, costs=costs)
    return found


def accuracy_of(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> Accuracy:
    """Return the scores of some predictions."""
    hits = labels == predictions
    n = labels.size
    return Accuracy(
        images=ImageRange(dataset="drill", split="test", first=0, stop=n),
        fingerprint="f" * 64,
        num_classes=N_CLASSES,
        labels=PackedArray.of(labels.astype(np.uint8)),
        predictions=PackedArray.of(predictions.astype(np.uint8)),
        top1_hits=PackedArray.of(np.packbits(hits)),
        top5_hits=PackedArray.of(np.packbits(np.ones(n, bool))),
        margins=PackedArray.of(np.linspace(0, 1, n).astype(np.float32)),
        n_ties_top1=0,
        n_ties_top5=0,
        outputs_sha256="0" * 64,
    )


def _record(backend: str, precision: Precision) -> Record:
    is_source = precision is Precision.FP32
    labels = np.arange(N_IMAGES, dtype=np.int64) % N_CLASSES
    predictions = labels.copy()
    predictions[:N_WRONG] = (labels[:N_WRONG] + 1) % N_CLASSES
    scores = accuracy_of(labels, predictions)
    case = Case(model="drill", backend=backend, precision=precision, recipe="none" if is_source else "qdq-minmax")
    return Record(
        case=case,
        environment=MACHINE,
        recorded_at=NIGHT,
        tolerance=Tolerance(
            floor=0.9,
            alpha=ALPHA,
            max_slowdown=MAX_SLOWDOWN,
            min_speedup=None if is_source else ASKED_SPEEDUP,
        ),
        artifact=Artifact(
            model="drill",
            precision=precision,
            recipe=case.recipe,
            onnx_path="drill.onnx",
            sha256=("a" if is_source else "c") * 64,
            source_sha256="a" * 64,
        ),
        engine=EngineFacts(build_ns=1),
        effective_precision=EffectivePrecision(by_layer={precision.value: 1.0}),
        accuracy=scores,
        emulation=None if is_source else scores,
        invariance=(
            InvarianceCheck(
                name="slot",
                n_arrangements=4,
                n_rows=64,
                largest_gap=ACCEPTED_GAP / 10,
                accepted_gap=ACCEPTED_GAP,
                worst="slot 1 of 4",
                n_changed=0,
            ),
        ),
        latencies=(_latency(1.0),),
        timing_basis=TimingBasis(calibrated_at=NIGHT, spreads=(QUIET,)),
    )


def _latency(ratio: float, *, speedup: float = 2.0) -> Latency:
    rounds = TIME_NS * ratio * np.exp(SPREAD * _scatter(N_ROUNDS))
    return Latency(
        batch_size=1,
        rounds_ns=PackedArray.of(rounds[:, None]),
        reference_rounds_ns=PackedArray.of(speedup * rounds[:, None]),
        reference_case="drill-drill-fp32",
        calls_per_sample=1,
        warmup_calls=3,
        clock="host",
        launch="call",
        gated=False,
        window="compute",
    )


def _scatter(n: int) -> NDArray[np.float64]:
    """Return float64[n] that scatter about 0 with a deviation of about 1; the same every time."""
    found: NDArray[np.float64] = np.sqrt(2.0) * np.sin(2.4 * np.arange(1, n + 1))
    return found
