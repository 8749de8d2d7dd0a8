"""The tables of the documents that this harness set out from, repeated protocol for protocol: docs/results/mission.md.

    python benchmarks/mission.py keras [BACKEND ...]            Keras MNIST (784-512-10), natively and on engines
    python benchmarks/mission.py resnet101 [BACKEND ...]        ResNet101 at 112 x 112, random weights
    python benchmarks/mission.py profiles [BACKEND ...]         what a profile costs: bundled nets, no Keras needed
    PYTHONPATH=tests python benchmarks/mission.py sample-int8 --caffemodel=FILE --mnist=DIR [BACKEND ...]

The first two print the median over interleaved rounds of a native Keras call's time divided by the engine's, host's
clock, copies in and out, batch 1 and 10; "fixed" is an engine for batch 1 alone, of a file whose batch is 1, "free" one
for any batch, on TensorRT by the profile 1..10 tuned for 1. The third times the same ways of `mlp` (784-512-10, as
Keras's) and of `resnet101_112` beside their FP32 engine of fixed batch 1, where no Keras is. The last imports Caffe's
LeNet, calibrates on images 0..499 of MNIST's training set in batches of 50 and scores 40,000 from image 10,000 on in
batches of 100, as sampleINT8.
Where a GPU is, name `trt`: its rows are then printed too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from gpu_scoring import tactic_sources

from harness import load_run
from harness.backends import list_backends, load_backend
from harness.backends._host.graph import with_batch
from harness.errors import HarnessError
from harness.machine.clocks import HostTimer
from harness.measure.arms import LocalArm
from harness.measure.timing import time_arms
from harness.models import find_model
from harness.models.heavy import HEAVY_MODEL, resnet101_112
from harness.models.importers._running import ImportOrder, import_model
from harness.models.onnx_graph import model_digest
from harness.precision import prepare_artifact
from harness.precision.calibration import CheckedCalibration
from harness.protocols import Engine, Images, Timer
from harness.records import CPU
from harness.specs import BuildOptions, Case, DatasetRequest, ModelSpec, Precision, TimingPlan
from harness.worker.images import calibration_set

ROOT = Path(__file__).parents[1]
BATCHES = (1, 10)
TRT = {"tactic_sources": tactic_sources()}
FREE_PROFILE = {"trt": {"profiles": [(1, 1, 10)], **TRT}}  # as the documents: for 1 to 10 images, tuned for 1
PLAN = TimingPlan(batch_sizes=BATCHES, n_rounds=15, round_ns=60_000_000, warmup_ns=100_000_000)
DIGITS = DatasetRequest()
# The document's own names of what it timed, to our backend, precision and recipe.
ROWS = (
    (Precision.FP32, "none"),
    (Precision.FP16, "cast"),
    (Precision.INT8, "qdq-minmax"),
    (Precision.INT8, "trt-entropy2"),
    (Precision.INT8, "litert-int8"),
)
SAMPLE_RECIPES = "qdq-entropy,trt-entropy,litert-int8,mnn-ema,ncnn-entropy"
NATIVE = "predict_on_batch"  # what all is compared with
CPU_BACKENDS = ("ort", "openvino", "litert")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("keras", "resnet101", "profiles", "sample-int8"))
    parser.add_argument("backends", nargs="*", help=f"backends; {', '.join(CPU_BACKENDS)} where they are installed")
    parser.add_argument("--caffemodel", type=Path, help="lenet_iter_10000.caffemodel, of Caffe's tutorial")
    parser.add_argument("--mnist", type=Path, help="folder with MNIST's training set")
    parser.add_argument("--report-dir", type=Path, help="where the run of sample-int8 is kept")
    parser.add_argument("--precision", default="fp32,fp16,int8", help="of sample-int8 and profiles")
    parser.add_argument("--model", default="mlp,resnet101_112", help="of profiles")
    parser.add_argument("--suite-option", action="append", default=[], help="passed on to the run of sample-int8")
    options = parser.parse_intermixed_args()
    usable = [name for name in CPU_BACKENDS if name in list_backends() and load_backend(name).probe().usable]
    backends = options.backends or usable
    with tempfile.TemporaryDirectory(prefix="harness-mission-") as folder:
        if options.table == "sample-int8":
            print_sample_int8(options, backends, Path(folder))
        elif options.table == "profiles":
            print_profiles(options, backends, Path(folder))
        else:
            print_native(NETS[options.table], backends, Path(folder))


# -- natively, and on engines


def digits_net(keras):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(512, "relu"), keras.layers.Dense(10, "softmax")]
    return keras.Sequential([keras.Input((28, 28, 1)), *layers])


def resnet_net(keras):
    keras.utils.set_random_seed(0)
    return keras.applications.ResNet101(weights=None, input_shape=(112, 112, 3), classes=1000)


NETS: dict[str, Callable] = {"keras": digits_net, "resnet101": resnet_net}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to call one engine."""

    name: str
    spec: ModelSpec
    sizes: tuple[int, ...]
    settings: dict


def print_native(make_net: Callable, backends: list[str], folder: Path) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    net = make_net(keras)
    net.save(folder / "net.keras")
    order = ImportOrder(importer="keras", sources=(str(folder / "net.keras"),), folder=folder, name="net", limit_s=1800)
    spec, told = import_model(order)
    print("\n".join(told))
    spec = replace(spec, timing_only=spec.num_classes == 1000)  # random weights: calibrated on noise
    print(f"| engine | {' | '.join(f'batch {size}: ms; native / it' for size in BATCHES)} |\n" + "| --- " * 3 + "|")
    natives = dict(native_calls(net, spec))
    for name, call in natives.items():
        cells = (times_of(call(size), natives[NATIVE](size)) for size in BATCHES)
        print(f"| Keras natively, {name} | {' | '.join(cells)} |", flush=True)
    for backend in backends:
        for precision, recipe in ROWS:
            case = Case(model="net", backend=backend, precision=precision, recipe=recipe, device=device_of(backend))
            if load_backend(backend).supports(case).supported:
                for way in ways(spec, folder):
                    print_engine(case, way, lambda timer, size: times_of(timer, natives[NATIVE](size)), folder)


def native_calls(net, spec: ModelSpec) -> Iterator[tuple[str, Callable[[int], HostTimer]]]:
    """Yield the ways to call a net of Keras; each gives a timer of a batch size."""
    for name, call in (
        ("model(x)", lambda x: net(x, training=False).numpy()),
        ("predict_on_batch", net.predict_on_batch),
    ):

        def timer(size: int, call=call) -> HostTimer:
            images = np.ascontiguousarray(noise(spec, size).transpose(0, 2, 3, 1))
            call(images)
            return HostTimer(lambda: call(images), batch_size=size, window="host")

        yield name, timer


def ways(spec: ModelSpec, folder: Path) -> Iterator[Way]:
    import onnx

    folder.mkdir(exist_ok=True)
    path = folder / "fixed.onnx"
    if not path.exists():
        onnx.save(with_batch(onnx.load(spec.onnx_path), 1), path)
    fixed = replace(spec, onnx_path=str(path), sha256=model_digest(path), max_batch=1)
    yield Way(name="fixed batch 1", spec=fixed, sizes=(1,), settings={"trt": TRT})
    yield Way(name="free batch", spec=spec, sizes=BATCHES, settings=FREE_PROFILE)


def print_engine(case: Case, way: Way, told: Callable[[Timer, int], str], folder: Path) -> None:
    """Print an engine's row; `told` says of its timer, and the batch size, what stands in a cell."""
    cells = ["", ""]
    try:
        with opened(case, way, folder) as engine:
            for place, size in enumerate(way.sizes):
                cells[place] = told(timer_of(engine, case, way, size), size)
    except HarnessError as error:
        cells[0] = f"{type(error).__name__}: {error}"
    print(f"| {case.model} {case.backend} {case.asked}, {way.name} | {' | '.join(cells)} |", flush=True)


def timer_of(engine: Engine, case: Case, way: Way, size: int) -> Timer:
    """Return the timer of one call with copies in and out, by the host's clock."""
    window = "end_to_end" if case.device == CPU else "host"
    return engine.timer(noise(way.spec, size), window=window, launch="auto")


def print_profiles(options: argparse.Namespace, backends: list[str], folder: Path) -> None:
    """Print every way's time and how many times it is that of the FP32 engine of fixed batch 1, in turn with it."""
    print("| engine | batch 1: ms; it / FP32, fixed 1 | batch 10: ms; it / FP32, fixed 1 |\n" + "| --- " * 3 + "|")
    for name in options.model.split(","):
        spec = resnet101_112(folder) if name == HEAVY_MODEL else find_model(name, ROOT / "models")
        for backend in backends:
            print_beside_fixed(spec, backend, options.precision.split(","), folder)


def print_beside_fixed(spec: ModelSpec, backend: str, precisions: list[str], folder: Path) -> None:
    """Print all ways of a model on a backend."""
    device = device_of(backend)
    first = Case(model=spec.name, backend=backend, precision=Precision.FP32, recipe="none", device=device)
    fixed, free = ways(spec, folder / spec.name)
    with opened(first, fixed, folder) as reference:

        def beside(timer: Timer, size: int) -> str:
            del size  # all are compared with batch 1
            return times_of(timer_of(reference, first, fixed, 1), timer, told=1)

        for precision, recipe in ROWS:
            case = replace(first, precision=precision, recipe=recipe)
            if precision.value in precisions and load_backend(backend).supports(case).supported:
                for way in (fixed, free):
                    print_engine(case, way, beside, folder)


@contextmanager
def opened(case: Case, way: Way, folder: Path) -> Iterator[Engine]:
    backend = load_backend(case.backend)
    images = calibration_set(way.spec, DIGITS)
    artifact = prepare_artifact(
        way.spec,
        case.precision,
        case.recipe,
        calibration=images,
        cache_dir=str(folder),
        weight_bits=backend.supports(case).int8_weight_bits,
    )
    calibration = CheckedCalibration(images, way.spec) if case.precision is Precision.INT8 else None
    build = BuildOptions(cache_dir=str(folder), settings=way.settings if case.backend in way.settings else {})
    engine = backend.build(artifact, device=case.device, batch_sizes=way.sizes, options=build, calibration=calibration)
    with engine:
        yield engine


def device_of(backend: str) -> str:
    return load_backend(backend).probe().devices[0]


def noise(spec: ModelSpec, size: int) -> Images:
    return np.random.default_rng(0).random((size, *spec.input_shape), dtype=np.float32)


def times_of(timer, native, *, told=0) -> str:
    """Return `median ms; ratio (smallest .. largest)` of native's rounds to the engine's, in turn with it.

    `told`: whose median is told, 0 the engine's, 1 native's.
    """
    arms, _ = time_arms([LocalArm(timer, PLAN), LocalArm(native, PLAN)], PLAN)
    ours, theirs = (np.median(arm.rounds_ns, axis=1) for arm in arms)
    ratios = theirs / ours
    spread = f"{np.median(ratios):.3g} ({ratios.min():.3g} .. {ratios.max():.3g})"
    return f"{np.median((ours, theirs)[told]) / 1e6:.3g}; {spread}"


# -- sampleINT8


def print_sample_int8(options: argparse.Namespace, backends: list[str], folder: Path) -> None:
    from caffe_files import LENET  # of tests/

    caffemodel, mnist, reports = options.caffemodel, options.mnist, options.report_dir or folder / "reports"
    if caffemodel is None or mnist is None:
        sys.exit("sample-int8 needs --caffemodel and --mnist")
    casts = "cast," if "fp16" in options.precision else ""
    (folder / "lenet.prototxt").write_text(LENET)
    sources = (str(folder / "lenet.prototxt"), str(caffemodel.absolute()))
    import_model(ImportOrder(importer="caffe", sources=sources, folder=folder, name="lenet", scale=1 / 256))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(ROOT / "suites"),
    ]
    command += [
        f"--model={folder / 'lenet.toml'}",
        "--dataset=mnist",
        f"--data-dir={mnist.absolute()}",
        "--split=train",
    ]
    command += ["--score-from=10000", "--score-images=40000", "--calibration-images=500", "--calibration-from=0"]
    command += [f"--precision={options.precision}", f"--recipe={casts}{SAMPLE_RECIPES}", "--calibration-batch=50"]
    command += [f"--backend={','.join(backends)}", "--batch-size=100", "--baseline=ignore", "--timing-rounds=20"]
    command += [f"--report-dir={reports}", f"--engine-cache={folder / 'cache'}", "-m", "accuracy or latency"]
    command += options.suite_option
    subprocess.run(command, check=False, stdout=sys.stderr)
    print("| case | top-1 | top-5 | lost, gained against FP32 | ms per batch of 100 | FP32 / it | clock |")
    print("| --- " * 7 + "|")
    for row in load_run(reports / "latest").frame().itertuples():
        if row.verdict != "unsupported":  # a recipe of another runtime's
            print_row(row)


def print_row(row) -> None:
    if pd.isna(row.top1):
        print(f"| {row.case} | {row.verdict}: {row.finding if pd.isna(row.reason) else row.reason} | | | | | |")
        return
    lost = "" if pd.isna(row.lost_fp32) else f"{row.lost_fp32}, {row.gained_fp32}"
    ratio = "" if pd.isna(row.speed_up) else f"{row.speed_up:.3f} ({row.speed_up_low:.3f} .. {row.speed_up_high:.3f})"
    time = "" if pd.isna(row.p50_ns) else f"{row.p50_ns / 1e6:.3f}"
    cells = (
        row.case,
        f"{row.top1:.4f}",
        f"{row.top5:.4f}",
        lost,
        time,
        ratio,
        f"{row.clock}, {row.window}",
        row.ran_as,
    )
    print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
