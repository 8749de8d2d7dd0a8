"""Every engine of the extras: its contract and its agreement with ONNX Runtime in FP32. The nightly job runs it whole.

    python benchmarks/engines.py [EXTRA ...]            a fresh virtual environment an extra: install, contract, table
    python benchmarks/engines.py --here BACKEND ...     the table alone, of backends installed in this environment
    python benchmarks/engines.py --bare BACKEND ...     our timer against a bare loop of the same runtime

A row is one case: `d` is the largest absolute difference of its outputs from ONNX Runtime's in FP32 over the images,
`changed` how many images get another class, `ratio` the median over interleaved rounds of its latency at batch 1
divided by ONNX Runtime's in FP32. Exit status 1 when a contract is broken, or when an FP32 row has d above 1e-4 or a
changed image.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from harness.backends import list_backends, load_backend
from harness.backends._host.adapter import HostBackend
from harness.errors import HarnessError
from harness.machine.clocks import HostTimer
from harness.measure.arms import LocalArm
from harness.measure.timing import time_arms
from harness.models import load_card
from harness.precision import prepare_artifact
from harness.precision.calibration import CheckedCalibration
from harness.precision.catalog import list_recipes
from harness.precision.effective import counted_layers
from harness.protocols import Engine, Images, Outputs
from harness.records import CPU
from harness.specs import (
    GIVEN_RECIPE,
    REFERENCE_BACKEND,
    BuildOptions,
    Case,
    DatasetRequest,
    ModelSpec,
    Precision,
    TimingPlan,
)
from harness.worker.images import calibration_set, timing_images

ROOT = Path(__file__).parents[1]
MODELS = ("lenet5", "mlp", "mobilenet_digits")
BATCH = 100
MAX_DISTANCE = 1e-4
PLAN = TimingPlan(batch_sizes=(1,), n_rounds=9, round_ns=10_000_000, warmup_ns=20_000_000)
# What pip cannot be told by an extra: a package whose declared dependencies are not needed.
WITHOUT_DEPENDENCIES = {"executorch": ("executorch>=1.5.1,<1.6",), "ncnn": ("pnnx",)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="extras, or backends with --here; all that there are unless named")
    parser.add_argument("--here", action="store_true", help="print the table of backends of this environment")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--model", nargs="*", default=MODELS)
    parser.add_argument("--precision", nargs="*", type=Precision, default=tuple(Precision))
    parser.add_argument("--bare", action="store_true", help="print our times beside those of a bare loop")
    options = parser.parse_args()
    if options.bare:
        return print_overheads(options.names or list(BARE_LOOPS), options.model)
    backends = host_backends()
    names = options.names or [name for name in backends if not options.here or backends[name].probe().usable]
    if options.here:
        return print_table(names, options)
    failed = [name for name in names if not passes(name, options.images)]
    print(f"failed: {', '.join(failed)}" if failed else f"all passed: {', '.join(names)}")
    return bool(failed)


def host_backends() -> dict[str, HostBackend]:
    """Return the backends of CPU runtimes with an extra of their own, by name."""
    loaded = {name: load_backend(name) for name in list_backends()}
    return {name: backend for name, backend in loaded.items() if isinstance(backend, HostBackend)}


# -- the nightly job


def passes(extra: str, n_images: int) -> bool:
    """Install an extra into a fresh environment; run its contract, then print its table."""
    with tempfile.TemporaryDirectory(prefix="harness-engines-") as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        pip = [python, "-m", "pip", "install", "-q"]
        subprocess.run([*pip, "-e", f"{ROOT}[test,{extra}]"], check=True)
        if extra in WITHOUT_DEPENDENCIES:
            subprocess.run([*pip, "--no-deps", *WITHOUT_DEPENDENCIES[extra]], check=True)
        required = {**os.environ, "HARNESS_REQUIRE_BACKENDS": extra}
        contract = [python, "-m", "pytest", "tests/contract", "-q", "-k", f"[{extra}-"]
        table = [python, __file__, "--here", extra, f"--images={n_images}"]
        ends = [
            subprocess.run(command, cwd=ROOT, env=required, check=False).returncode for command in (contract, table)
        ]
    print(f"{extra}: contract {'kept' if not ends[0] else 'BROKEN'}, agreement {'good' if not ends[1] else 'BAD'}")
    return not any(ends)


# -- the table


def print_table(names: list[str], options: argparse.Namespace) -> int:
    """Print a row a case; return 1 when an FP32 row is not ONNX Runtime's."""
    print("| backend | model | precision | d | changed | ratio, batch 1 | ran in |\n" + "| --- " * 7 + "|")
    is_bad = False
    with tempfile.TemporaryDirectory(prefix="harness-engines-") as folder:
        build = BuildOptions(cache_dir=folder)
        for model in options.model:
            spec, data = load_card(ROOT / "models" / f"{model}.toml"), DatasetRequest(score_images=options.images)
            images = timing_images(spec, data, options.images)
            fp32 = Case(model=model, backend=REFERENCE_BACKEND, precision=Precision.FP32, recipe="none")
            with open_engine(fp32, spec, data, build) as reference:
                expected = outputs_of(reference, images)
                for case in cases_of(names, model, options.precision):
                    is_bad |= print_row(case, (spec, data, build), images, expected, reference)
    return int(is_bad)


def cases_of(names: list[str], model: str, precisions: Sequence[Precision]) -> Iterator[Case]:
    """Yield the cases of a model that backends say they can do, one a recipe."""
    for name in names:
        backend = load_backend(name)
        for recipe in list_recipes():
            case = Case(model=model, backend=name, precision=recipe.precision, recipe=recipe.name)
            if (
                recipe.precision in precisions
                and recipe.name != GIVEN_RECIPE  # of files that were quantized before they came
                and backend.supports(case).supported
                and "nncf" not in recipe.required_modules
            ):
                yield case


def print_row(case: Case, site, images: Images, expected: Outputs, reference: Engine) -> bool:
    """Print one row; tell whether an FP32 engine differs too much."""
    cells = [case.backend, case.model, case.asked]
    try:
        with open_engine(case, *site) as engine:
            outputs = outputs_of(engine, images)
            distance = float(np.abs(outputs - expected).max())
            changed = int((outputs.argmax(1) != expected.argmax(1)).sum())
            times = ratio(engine, reference, images[:1])  # before the layers: profiling disturbs
            ran = ", ".join(sorted({layer.precision or "unknown" for layer in counted_layers(engine.layers())}))
            cells += [f"{distance:.1e}", f"{changed} of {len(images)}", f"{times:.2f}", ran]
            is_bad = case.precision is Precision.FP32 and (distance > MAX_DISTANCE or changed > 0)
    except HarnessError as error:
        cells += [f"{type(error).__name__}: {error}", "", "", ""]
        is_bad = case.precision is Precision.FP32
    print(f"| {' | '.join(cells)} |", flush=True)
    return is_bad


def open_engine(case: Case, spec: ModelSpec, data: DatasetRequest, build: BuildOptions) -> Engine:
    backend = load_backend(case.backend)
    images = calibration_set(spec, data)
    bits = backend.supports(case).int8_weight_bits
    artifact = prepare_artifact(
        spec, case.precision, case.recipe, calibration=images, cache_dir=build.cache_dir, weight_bits=bits
    )
    calibration = CheckedCalibration(images, spec) if case.precision is Precision.INT8 else None
    return backend.build(artifact, device=CPU, batch_sizes=(1, BATCH), options=build, calibration=calibration)


def outputs_of(engine: Engine, images: Images) -> Outputs:
    return np.concatenate([engine.infer(images[first : first + BATCH]) for first in range(0, len(images), BATCH)])


def ratio(engine: Engine, reference: Engine, images: Images) -> float:
    return ratio_of_timers([one.timer(images, window="end_to_end", launch="auto") for one in (engine, reference)])


def ratio_of_timers(timers) -> float:
    found, _ = time_arms([LocalArm(timer, PLAN) for timer in timers], PLAN)
    ours, theirs = (np.median(arm.rounds_ns, axis=1) for arm in found)
    return float(np.median(ours / theirs))


# -- our timer and a loop that knows nothing of us


def opencv_loop(path: str, _cache: Path, images: Images):
    import cv2

    net = cv2.dnn.readNetFromONNX(path, cv2.dnn.ENGINE_CLASSIC)
    net.setInput(images, "image")
    return net.forward


def litert_loop(_path: str, cache: Path, images: Images):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=next(cache.rglob("*.tflite")).read_bytes(), num_threads=1)
    place = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(place, list(images.shape))
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, images)
    return interpreter.invoke


def mnn_loop(_path: str, cache: Path, images: Images):
    import MNN

    net = MNN.Interpreter(str(next(cache.rglob("*.mnn"))))
    session = net.createSession({"backend": "CPU", "numThread": 1, "precision": "high"})
    source = net.getSessionInput(session)
    net.resizeTensor(source, images.shape)
    net.resizeSession(session)
    source.copyFrom(MNN.Tensor(images.shape, MNN.Halide_Type_Float, images, MNN.Tensor_DimensionType_Caffe))
    return lambda: net.runSession(session)


def ncnn_loop(_path: str, cache: Path, images: Images):
    import ncnn

    with zipfile.ZipFile(next(cache.rglob("*.ncnn.zip"))) as archive:
        archive.extractall(cache)
    net = ncnn.Net()
    net.opt.num_threads, net.opt.openmp_blocktime = 1, 0
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.load_param(str(cache / "param"))
    net.load_model(str(cache / "bin"))
    blobs = [ncnn.Mat(image).clone() for image in images]

    def run():
        for blob in blobs:
            extractor = net.create_extractor()
            extractor.input("in0", blob)
            extractor.extract("out0")

    return run


def tract_loop(path: str, _cache: Path, images: Images):
    import onnx
    import tract

    fixed = onnx.load(path)
    del fixed.graph.value_info[:]
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = len(images)
    onnx.save(fixed, str(_cache / "fixed.onnx"))
    model = tract.onnx().load(str(_cache / "fixed.onnx"))
    model.set_input_fact(0, ",".join(map(str, images.shape)) + ",f32")
    model.set_output_fact(0, None)
    runnable, batch = model.into_model().into_runnable(), [tract.Tensor.from_numpy(images)]
    return lambda: runnable.run(batch)


BARE_LOOPS = {
    "litert": litert_loop,
    "mnn": mnn_loop,
    "ncnn": ncnn_loop,
    "opencv": opencv_loop,
    "tract": tract_loop,
}


def print_overheads(names: list[str], models: list[str]) -> int:
    """Print the median over interleaved rounds of our time divided by the bare loop's."""
    print("| backend | model | ours / bare, batch 1 | batch 100 |\n" + "| --- " * 4 + "|")
    for name in names:
        for model in models:
            with tempfile.TemporaryDirectory(prefix="harness-engines-") as folder:
                spec, data = load_card(ROOT / "models" / f"{model}.toml"), DatasetRequest()
                case = Case(model=model, backend=name, precision=Precision.FP32, recipe="none")
                cells = []
                with open_engine(case, spec, data, BuildOptions(cache_dir=folder)) as engine:
                    for size in (1, BATCH):
                        images = timing_images(spec, data, size)
                        bare = BARE_LOOPS[name](spec.onnx_path, Path(folder), images)
                        ours = engine.timer(images, window="compute", launch="auto")
                        theirs = HostTimer(bare, batch_size=size, window="compute")
                        cells.append(f"{ratio_of_timers([ours, theirs]):.3f}")
            print(f"| {name} | {model} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
