"""Seeded, realistic runs for the report's tests and benchmark: every outcome, hostile names, missing pieces."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import itertools
import json
from pathlib import Path

import numpy as np

from harness.records import (
    Accuracy,
    Artifact,
    Availability,
    Calibration,
    EffectivePrecision,
    EngineFacts,
    Environment,
    Flip,
    Latency,
    Layer,
    LossSplit,
    Outcome,
    OutputDrift,
    PackedArray,
    Record,
    Run,
    Status,
    Verdict,
)
from harness.specs import DEFAULT_PRECISIONS, Case, ImageRange, Precision
from harness.stats import mcnemar_p
from harness.store.sealed import sealed

HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)>|`*_[x](javascript:alert(3))\u2028"
MODELS = ("lenet5", "mlp", "mobilenet_digits", "lenet5_hard", "resnet101_112")
BACKENDS = ("ort", "openvino", "trt")
RECIPES = {Precision.FP32: "none", Precision.FP16: "cast", Precision.INT8: "qdq-minmax"}
TOP1 = {"lenet5": 0.9912, "mlp": 0.9836, "mobilenet_digits": 0.9934, "lenet5_hard": 0.9911}
LATENCY_NS = {  # FP32, batch 1, one thread
    "lenet5": 210_000.0,
    "mlp": 44_000.0,
    "mobilenet_digits": 340_000.0,
    "lenet5_hard": 212_000.0,
    "resnet101_112": 61_000_000.0,
}
BACKEND_FACTOR = {"ort": 1.0, "openvino": 0.82, "trt": 0.11}
SPEED_UP = {Precision.FP32: 1.0, Precision.FP16: 1.02, Precision.INT8: 1.74}
SEGMENTS = {  # polylines on a 28 x 28 grid, x to the right and y down
    0: [[(14, 5), (9, 8), (8, 14), (9, 20), (14, 23), (19, 20), (20, 14), (19, 8), (14, 5)]],
    1: [[(11, 8), (15, 5), (15, 23)]],
    2: [[(8, 9), (11, 5), (17, 5), (19, 9), (17, 13), (8, 23), (20, 23)]],
    3: [[(9, 5), (19, 5), (13, 12), (19, 15), (19, 20), (14, 23), (8, 21)]],
    4: [[(16, 5), (8, 17), (21, 17)], [(17, 12), (17, 24)]],
    5: [[(19, 5), (10, 5), (9, 13), (16, 12), (20, 16), (18, 22), (12, 23), (8, 21)]],
    6: [[(17, 5), (10, 11), (8, 18), (12, 23), (18, 22), (19, 17), (15, 14), (9, 17)]],
    7: [[(8, 5), (20, 5), (13, 23)]],
    8: [[(14, 5), (9, 8), (14, 13), (20, 18), (14, 23), (8, 18), (14, 13), (19, 8), (14, 5)]],
    9: [[(18, 11), (14, 14), (9, 11), (11, 6), (16, 5), (19, 9), (18, 16), (15, 23)]],
}


def digit_image(digit: int, rng: np.random.Generator) -> np.ndarray:
    """Draw uint8[28, 28] of one digit with a random shear, shift, pen and noise."""
    ys, xs = np.mgrid[0:28, 0:28].astype(float)
    distance = np.full((28, 28), 99.0)
    shear, dx, dy, pen = rng.normal(0, 0.15), rng.normal(0, 1.2), rng.normal(0, 1.2), rng.uniform(1.0, 1.8)
    for line in SEGMENTS[digit]:
        points = [(x + shear * (14 - y) + dx, y + dy) for x, y in line]
        for (ax, ay), (bx, by) in itertools.pairwise(points):
            length = (bx - ax) ** 2 + (by - ay) ** 2
            along = np.clip(((xs - ax) * (bx - ax) + (ys - ay) * (by - ay)) / length, 0, 1)
            distance = np.minimum(distance, np.hypot(xs - ax - along * (bx - ax), ys - ay - along * (by - ay)))
    ink = np.clip(255 * (pen + 0.7 - distance), 0, 255)
    return np.clip(ink + rng.normal(0, 6, ink.shape) * (ink > 0), 0, 255).astype(np.uint8)


def make_environment(versions: dict[str, str] | None = None, **changes: object) -> Environment:
    """Return a plausible machine."""
    values: dict[str, object] = {
        "machine": "Intel Xeon Platinum 8481C, 2 CPUs, 24 GiB",
        "cpu_model": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
        "cpu_isa": "avx512_vnni",
        "n_cpus": 2,
        "memory_bytes": 24 * 2**30,
        "os": "Linux 6.1.0-44-amd64",
        "python": "3.11.2",
        "versions": versions
        or {"numpy": "2.4.6", "onnx": "1.22.0", "onnxruntime": "1.23.1", "openvino": "2026.3.0", "tensorrt": "10.9.0"},
        "device_name": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
        "commit": "a60ce3356ddd7379086c43b1dcf7c3430f0d1fc2",
    }
    return Environment(**(values | changes))  # type: ignore[arg-type]


@functools.lru_cache(maxsize=8)
def _labels(n_images: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 10, n_images)


@functools.lru_cache(maxsize=64)
def _reference(model: str, n_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return FP32 predictions and margins of a model: the same on every backend."""
    rng = np.random.default_rng(sum(model.encode()))
    labels = _labels(n_images)
    base = model if model in TOP1 else model.rsplit("_v", 1)[0]
    predictions = labels.copy()
    n_wrong = round((1 - TOP1.get(base, 0.985)) * n_images)
    wrong = rng.choice(n_images, n_wrong, replace=False)
    predictions[wrong] = (labels[wrong] + rng.integers(1, 10, n_wrong)) % 10
    margins = rng.beta(8, 0.4, n_images).astype(np.float32)
    return predictions, margins


def _accuracy(predictions: np.ndarray, margins: np.ndarray, n_images: int) -> Accuracy:
    labels = _labels(n_images)
    hits = predictions == labels
    top5 = hits | (np.arange(n_images) % 97 != 0)
    return Accuracy(
        images=ImageRange(dataset="strokes", split="test", first=0, stop=n_images),
        fingerprint=hashlib.sha256(labels.tobytes()).hexdigest(),
        num_classes=10,
        labels=PackedArray.of(labels.astype(np.int16)),
        predictions=PackedArray.of(predictions.astype(np.int16)),
        top1_hits=PackedArray.of(np.packbits(hits)),
        top5_hits=PackedArray.of(np.packbits(top5)),
        margins=PackedArray.of(margins.astype(np.float32)),
        n_ties_top1=0,
        n_ties_top5=2,
        outputs_sha256=hashlib.sha256(predictions.tobytes()).hexdigest(),
        score_ns=2_400_000_000,
        batch_size=100,
    )


def _flips(
    rng: np.random.Generator, predictions: np.ndarray, reference: np.ndarray, margins: np.ndarray, limit: int = 24
) -> tuple[Flip, ...]:
    labels = _labels(len(predictions))
    changed = np.flatnonzero((predictions == labels) != (reference == labels))
    lost_first = sorted(changed, key=lambda i: (predictions[i] == labels[i], i))[:limit]
    return tuple(
        Flip(
            index=int(i),
            label=int(labels[i]),
            reference_prediction=int(reference[i]),
            prediction=int(predictions[i]),
            reference_margin=float(margins[i]) * 0.2,
            margin=float(margins[i]) * 0.1,
            gained=bool(predictions[i] == labels[i]),
            image=PackedArray.of(digit_image(int(labels[i]), rng)),
        )
        for i in lost_first
    )


def make_latency(
    rng: np.random.Generator, center_ns: float, batch_size: int, ratio: float, reference: str, n_samples: int = 25
) -> Latency:
    """Return 20 rounds that drift together with their FP32 reference's, which is `ratio` times slower."""
    speed = np.exp(rng.normal(0, 0.05) + np.cumsum(rng.normal(0, 0.008, 20)))[:, None]
    noise = np.exp(np.abs(rng.normal(0, 0.02, (20, n_samples))))
    other = np.exp(np.abs(rng.normal(0, 0.02, (20, n_samples))))
    return Latency(
        batch_size=batch_size,
        rounds_ns=PackedArray.of(center_ns * speed * noise),
        calls_per_sample=4,
        warmup_calls=50,
        clock="host",
        launch="call",
        gated=False,
        window="compute",
        started_ns=PackedArray.of(np.arange(20, dtype=np.int64) * 43_000_000),
        reference_rounds_ns=PackedArray.of(center_ns * ratio * speed * other) if reference else None,
        reference_case=reference,
        reference_calls_per_sample=2 if reference else 0,
        images_per_s=batch_size / center_ns * 1e9,
        flags=("drift",) if abs(speed[-1, 0] / speed[0, 0] - 1) > 0.06 else (),
    )


def _layers(model: str, precision: Precision, total_ns: float) -> tuple[Layer, ...]:
    ran = {Precision.INT8: "int8"}.get(precision, "fp32")
    shares = (
        ("conv1", "Convolution", 0.21, ran, ("/conv1/Conv", "/conv1/Relu")),
        ("pool1", "Pooling", 0.06, "fp32", ("/pool1/MaxPool",)),
        ("conv2", "Convolution", 0.48, ran, ("/conv2/Conv", "/conv2/Relu", "/pool2/MaxPool")),
        ("reorder", "Reorder", 0.03, "", ()),
        ("fc1", "MatMul", 0.17, ran, ("/fc1/Gemm", "/fc1/Relu")),
        ("fc2", "MatMul", 0.03, "fp32" if model == "mlp" else ran, ("/fc2/Gemm",)),
        ("softmax", "Softmax", 0.02, "fp32", ("/Softmax",)),
    )
    return tuple(
        Layer(
            name=name,
            kind=kind,
            kernel=f"jit_avx512_{precision_name or 'any'}",
            precision=precision_name,
            is_compute=kind not in ("Reorder",),
            onnx_nodes=nodes,
            time_ns=share * total_ns,
        )
        for name, kind, share, precision_name, nodes in shares
    )


def _verdict(gate: str, outcome: Outcome, message: str, **values: object) -> Verdict:
    code = {"REGRESSED": "lost_images", "SAME": "held", "IMPROVED": "gained_images"}.get(outcome.value, "unclear")
    return Verdict(gate=gate, outcome=outcome, code=code, message=message, **values)  # type: ignore[arg-type]


def _story(case: Case, n_images: int) -> tuple[str, int, int]:
    """Return what happens to a case, and how many images its precision loses and gains against FP32."""
    scale = n_images / 10_000
    if case.precision is Precision.INT8:
        if case.model == "lenet5" and case.backend == "openvino":
            return "regressed", 14, 0
        if case.model.startswith("lenet5_hard"):
            return "known_loss", round(612 * scale), round(18 * scale)
        if case.model == "mobilenet_digits" and case.backend == "ort":
            return "inconclusive", round(9 * scale), round(3 * scale)
        if case.model == "mlp" and case.backend == "openvino":
            return "improved", round(1 * scale), round(19 * scale)
        return "same", round(5 * scale), round(4 * scale)
    if case.precision is Precision.FP16 and case.backend in ("openvino", "ort"):
        return "not_as_asked", 0, 0
    return "same", 0, 0


def _measured(case: Case, command: str, environment: Environment, seed: int, n_images: int) -> Record:
    rng = np.random.default_rng([seed, *case.id.encode()])
    story, n_lost, n_gained = _story(case, n_images)
    labels = _labels(n_images)
    reference, margins = _reference(case.model, n_images)
    predictions = reference.copy()
    lost = rng.choice(np.flatnonzero(reference == labels), n_lost, replace=False)
    predictions[lost] = (labels[lost] + rng.integers(1, 10, n_lost)) % 10
    gained = rng.choice(np.flatnonzero(reference != labels), min(n_gained, int((reference != labels).sum())), False)
    predictions[gained] = labels[gained]
    timing_only = case.model.startswith("resnet")
    base = next((name for name in sorted(LATENCY_NS, key=len, reverse=True) if case.model.startswith(name)), "mlp")
    fp32_id = Case(model=case.model, backend=case.backend, precision=Precision.FP32, recipe="none").id
    ratio = SPEED_UP[case.precision] * float(np.exp(rng.normal(0, 0.03)))
    center = LATENCY_NS[base] * BACKEND_FACTOR[case.backend] / ratio
    is_fp32 = case.precision is Precision.FP32
    outcome = {
        "regressed": Outcome.REGRESSED,
        "known_loss": Outcome.REGRESSED,
        "inconclusive": Outcome.INCONCLUSIVE,
        "improved": Outcome.IMPROVED,
    }.get(story, Outcome.SAME)
    verdicts = [
        _verdict(
            "floor", Outcome.SAME, f"top-1 {100 * (predictions == labels).mean():.2f} % is above the floor 97.00 %"
        )
    ]
    if not is_fp32:
        verdicts.append(
            _verdict(
                "fp32",
                outcome,
                f"{n_lost} images lost and {n_gained} gained against FP32 (exact McNemar)",
                advice="Look at the flipped images, then compare the layers' precisions." if n_lost > n_gained else "",
                is_failure=story == "regressed",
                n_lost=n_lost,
                n_gained=n_gained,
                p_value=mcnemar_p(n_lost, n_gained),
                change_low=(n_gained - n_lost - 6) / n_images,
                change_high=(n_gained - n_lost + 5) / n_images,
                detectable=11 / n_images,
            )
        )
    return Record(
        case=case,
        status=Status.FAILED if story == "regressed" else Status.PASSED,
        environment=environment,
        recorded_at="2026-11-20T02:14:07Z",
        reason="fp32: 14 images lost, none gained, p = 0.00012" if story == "regressed" else "",
        command=command,
        artifact=Artifact(
            model=case.model,
            precision=case.precision,
            recipe=case.recipe,
            onnx_path=f"/cache/{case.model}-{case.precision}.onnx",
            sha256=hashlib.sha256(case.id.encode()).hexdigest(),
            source_sha256=hashlib.sha256(case.model.encode()).hexdigest(),
            tools={} if is_fp32 else {"onnxruntime.quantization": "1.23.1"},
            weight_bits={Precision.FP32: 32, Precision.FP16: 16, Precision.INT8: 8}[case.precision],
            calibration=Calibration(
                images=ImageRange(dataset="strokes", split="train", first=0, stop=1000),
                fingerprint="c0ffee" * 10,
                batch_size=100,
                method="minmax",
            )
            if case.precision is Precision.INT8
            else None,
            prepare_ns=812_000_000,
        ),
        engine=EngineFacts(
            build_ns=int(38_000_000 * rng.uniform(0.8, 1.3)),
            engine_bytes=None if case.backend == "ort" else int(1_700_000 / SPEED_UP[case.precision] ** 2),
            device_memory_bytes=None,
            cache="miss",
            options={"INFERENCE_NUM_THREADS": "1", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f32"},
            versions={"openvino": "2026.3.0"} if case.backend == "openvino" else {},
            log_errors=("[W] scale of tensor 'x' is tiny",) if story == "known_loss" else (),
        ),
        effective_precision=EffectivePrecision(
            by_layer={"int8": 0.75, "fp32": 0.25} if case.precision is Precision.INT8 else {"fp32": 1.0},
            by_time={"int8": 0.88, "fp32": 0.12} if case.precision is Precision.INT8 else None,
            note="weights rounded to fp16" if story == "not_as_asked" else "",
        ),
        layers=_layers(case.model, case.precision, center),
        accuracy=None if timing_only else _accuracy(predictions, margins, n_images),
        drift=None
        if is_fp32 or timing_only
        else OutputDrift(
            reference_case=fp32_id,
            n_images=n_images,
            max_abs=0.31,
            rmse=0.0041,
            cosine=0.99987,
            sqnr_db=34.2 if case.precision is Precision.INT8 else None,
            kl_divergence=0.00031,
            n_changed=n_lost + n_gained + 2,
            low_margin_agreement=0.983,
        ),
        flips=() if is_fp32 or timing_only else _flips(rng, predictions, reference, margins),
        loss_split=LossSplit(
            n_images=n_images,
            quantization_lost=max(n_lost - 2, 0),
            quantization_gained=n_gained,
            kernel_lost=min(n_lost, 2),
            kernel_gained=0,
            n_kernel_changed=min(n_lost, 2) + 1,
            emulation_top1=float((reference == labels).mean()),
        )
        if case.precision is Precision.INT8 and not timing_only
        else None,
        latencies=tuple(
            make_latency(rng, center * scale, batch, ratio, "" if is_fp32 else fp32_id, n_samples)
            for batch, scale, n_samples in ((1, 1.0, 25), (100, 61.0, 6))
        ),
        verdicts=tuple(verdicts),
        flags={"not_as_asked": ("precision_not_as_asked",), "known_loss": ("expects_int8_loss",)}.get(story, ()),
    )


def _bare(case: Case, status: Status, reason: str, command: str, environment: Environment) -> Record:
    return Record(
        case=case,
        status=status,
        environment=environment,
        recorded_at="2026-11-20T02:14:07Z",
        reason=reason,
        error=reason if status is Status.ERROR else "",
        unsupported=reason if status is Status.UNSUPPORTED else "",
        command=command,
    )


def make_cases(n_cases: int, backends: tuple[str, ...] = BACKENDS) -> list[Case]:
    """Return n cases: models x backends x precisions, models repeated as `_v2`, `_v3`, ... when they run out."""
    names = itertools.chain(MODELS, (f"{model}_v{k}" for k in itertools.count(2) for model in MODELS))
    cases = (
        Case(model=model, backend=backend, precision=precision, recipe=RECIPES[precision])
        for model in names
        for backend in backends
        for precision in DEFAULT_PRECISIONS
    )
    return list(itertools.islice(cases, n_cases))


def make_run(
    n_cases: int = 27,
    *,
    seed: int = 0,
    n_images: int = 2_000,
    versions: dict[str, str] | None = None,
    run_id: str = "20261120-021400-a60ce33",
    backends: tuple[str, ...] = BACKENDS,
) -> tuple[Run, list[Record]]:
    """Return a night's run with errors, unsupported cases, a regression, a known loss and hostile texts."""
    environment = make_environment(versions)
    records = []
    for case in make_cases(n_cases, backends):
        command = f"pytest suites/ -k '{case.id}' --score-images {n_images}"
        if case.backend == "trt" and case.precision is Precision.FP16:
            reason = "TensorRT 11 takes FP16 only from a cast model; this build has none"
            records.append(_bare(case, Status.UNSUPPORTED, reason, command, environment))
        elif case.backend == "trt" and case.model.startswith("mlp") and case.precision is Precision.INT8:
            reason = f"BuildError: layer {HOSTILE} has no kernel"
            records.append(_bare(case, Status.ERROR, reason, command, environment))
        else:
            records.append(_measured(case, command, environment, seed, n_images))
    run = Run(
        id=run_id,
        started_at="2026-11-20T02:14:00Z",
        finished_at="2026-11-20T02:18:41Z",
        command="pytest suites/ --backend=auto",
        environment=environment,
        backends=(
            Availability(backend="ort", usable=True, versions={"onnxruntime": "1.23.1"}, devices=("cpu",)),
            Availability(backend="openvino", usable=True, versions={"openvino": "2026.3.0"}, devices=("cpu",)),
            Availability(
                backend="trt_rtx", usable=False, reason="no CUDA device", install_hint="pip install .[trt-rtx]"
            ),
        ),
        options={"--score-images": str(n_images), "--timing-rounds": "10"},
        skipped={"trt_rtx": "no CUDA device"},
    )
    return run, records


def make_baseline(n_cases: int = 27, *, n_images: int = 2_000) -> tuple[Run, list[Record]]:
    """Return the night before: older OpenVINO, other noise, one case fewer, no regression."""
    versions = {"numpy": "2.4.6", "onnx": "1.22.0", "onnxruntime": "1.23.1", "openvino": "2026.2.0", "nncf": "3.2.0"}
    run, records = make_run(n_cases, seed=1, n_images=n_images, versions=versions, run_id="20261119-021400-5606947")
    started = datetime.datetime(2026, 11, 19, 2, 14, tzinfo=datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    calm = [
        dataclasses.replace(record, status=Status.PASSED, reason="") if record.status is Status.FAILED else record
        for record in records
    ]
    return dataclasses.replace(run, started_at=started), calm[:-1]


def write_history(folder: Path, *, n_runs: int, n_cases: int, seed: int = 0) -> dict[str, int]:
    """Write summaries of nightly runs as `harness.store.runs` does; return the run at which each planted change begins.

    Planted: top-1 of the first case falls by 12 images for good when openvino changes at two thirds of the runs; p50
    of the second case rises by 8 % at half of them; its size grows at a quarter. The rest is noise with odd nights.
    """
    rng = np.random.default_rng(seed)
    cases = make_cases(n_cases, ("ort", "openvino"))
    planted = {"top1": 2 * n_runs // 3, "p50_ns": n_runs // 2, "engine_bytes": n_runs // 4}
    levels = rng.uniform(2e4, 3e6, n_cases)
    noise = np.exp(rng.normal(0, 0.012, (n_runs, n_cases)) + 0.4 * (rng.random((n_runs, n_cases)) < 0.01))
    start = datetime.datetime(2025, 11, 20, 2, 14, tzinfo=datetime.timezone.utc)
    for night in range(n_runs):
        run_id = f"night-{night:03d}"
        entries = []
        for index, case in enumerate(cases):
            p50 = float(levels[index] * noise[night, index]) * (
                1.08 if index == 1 and night >= planted["p50_ns"] else 1
            )
            top1 = 0.9912 - (0.0012 if index == 0 and night >= planted["top1"] else 0)
            size = 1_700_000 + (40_000 if index == 1 and night >= planted["engine_bytes"] else 0)
            entries.append(
                {
                    "id": case.id,
                    "model": case.model,
                    "status": "passed",
                    "accuracy": {"top1": top1, "n_images": 10_000, "fingerprint": "f", "top5": 0.999, "ties": 0},
                    "latency": {
                        str(batch): {"p50_ns": p50 * factor, "p90_ns": p50, "p99_ns": None, "n_samples": 500}
                        for batch, factor in ((1, 1.0), (100, 61.0))
                    },
                    "engine_bytes": size,
                    "verdicts": [{"gate": "floor", "outcome": "SAME", "message": "x" * 80}],
                }
            )
        summary = {
            "schema": 1,
            "run": {"id": run_id, "started_at": (start + datetime.timedelta(days=night)).isoformat()},
            "environment": {
                "machine": "a machine",
                "versions": {"openvino": "2026.3.0" if night >= planted["top1"] else "2026.2.0", "numpy": "2.4.6"},
            },
            "cases": entries,
        }
        (folder / run_id).mkdir()
        (folder / run_id / "summary.json").write_bytes(sealed(json.dumps(summary).encode()))
    return planted


def hostile_record(record: Record) -> Record:
    """Return the record with markup in every free text that comes from files or runtimes."""
    layer = Layer(name=HOSTILE, kind=HOSTILE, kernel=HOSTILE, precision=HOSTILE, onnx_nodes=(HOSTILE,), time_ns=1e3)
    engine, artifact = record.engine, record.artifact
    return dataclasses.replace(
        record,
        case=dataclasses.replace(record.case, device=f"cuda:1{HOSTILE}", recipe=HOSTILE),
        reason=HOSTILE,
        command=HOSTILE,
        layers=(layer, layer),
        flags=(HOSTILE,),
        engine=engine and dataclasses.replace(engine, log_errors=(HOSTILE,), options={HOSTILE: HOSTILE}),
        verdicts=tuple(dataclasses.replace(x, message=HOSTILE, advice=HOSTILE) for x in record.verdicts),
        artifact=artifact and dataclasses.replace(artifact, onnx_path=HOSTILE, warnings=(HOSTILE,)),
    )
