"""Direct checks of one backend, each run in a process of its own by gpu_check.py: gpu_checks.py NAME BACKEND CACHE.

A check returns a sentence of what it found, raises AssertionError when that is not as it should be, and NotHere when
the backend has no such thing.
"""

import dataclasses
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gpu_plugin
import gpu_torch
import numpy as np
from gpu_scoring import RECIPES, ROOT, build_engine, real_batches, tactic_sources

from harness.backends import load_backend
from harness.backends.trt.adapter import TrtBackend
from harness.datasets import open_dataset
from harness.errors import BuildError, HarnessError, MeasurementError
from harness.measure.scoring import score_engine
from harness.specs import BuildOptions, ImageRange

CPU_BACKENDS = ("ort", "openvino")
MODEL = "lenet5"
BUNDLED = ("lenet5", "lenet5_hard", "mlp", "mobilenet_digits")
N_IMAGES = 10_000
HANG_LIMIT_S = 60  # above the longest build of `mlp`, during which a worker says nothing
AGREEMENT, MAX_CHANGED = 1e-3, 2
PLUGIN_AGREEMENT = 1e-4  # of sums of 16 and 8 products in FP32; the plug-in layer changes outputs by about 10


class NotHere(Exception):
    """The backend has no such thing."""


class Place:
    """The backend under test and its cache."""

    def __init__(self, backend, cache):
        self.backend, self.cache = backend, cache
        self.is_cuda = backend not in CPU_BACKENDS
        self.is_trt = backend.startswith("trt")
        self.device = "cuda:0" if self.is_cuda else "cpu"

    def engine(self, precision="fp32", recipe=None, *, model=MODEL, cache=None, batch_sizes=(1, 100), **trt):
        recipe = recipe or RECIPES[precision]
        return build_engine(
            self.backend,
            model,
            precision,
            recipe,
            cache=str(cache or self.cache),
            batch_sizes=batch_sizes,
            device=self.device,
            **trt,
        )

    def need_trt(self):
        if not self.is_trt:
            raise NotHere("TensorRT only")


def scored(place, precision, recipe, path, model=MODEL):
    spec, _, engine = place.engine(precision, recipe, model=model)
    images = ImageRange(dataset="strokes", split="test", first=0, stop=N_IMAGES)
    with engine:
        accuracy = score_engine(
            engine, open_dataset("strokes", split="test"), spec, images, batch_size=100, outputs_path=path
        )
    return spec, accuracy


def agreement(place):
    """FP32 here and FP32 of ONNX Runtime on the CPU give the same outputs, for every bundled model."""
    found = []
    for model in BUNDLED:
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = Path(folder) / "ours", Path(folder) / "theirs"
            spec, _ = scored(place, "fp32", None, ours, model)
            scored(Place("ort", place.cache), "fp32", None, theirs, model)
            a, b = (np.fromfile(path, "<f4").reshape(-1, spec.num_classes) for path in (ours, theirs))
        largest, changed = float(np.abs(a - b).max()), int((a.argmax(1) != b.argmax(1)).sum())
        assert largest <= AGREEMENT, f"{model}: outputs differ by up to {largest:.2e}"
        assert changed <= MAX_CHANGED, f"{model}: {changed} of {N_IMAGES} predictions changed"
        found.append(f"{model} {largest:.1e}, {changed}")
    return f"largest difference of a probability, changed predictions of {N_IMAGES}: {'; '.join(found)}"


def independent_scorer(place):
    """A scorer that shares no code with the harness counts the same hits from the dumped outputs."""
    found = []
    _, labels = open_dataset("strokes", split="test").read(0, N_IMAGES)
    labels = labels.tolist()
    recipes = [("fp32", None), ("fp16", None), ("int8", None)]
    recipes += [("int8", "trt-entropy2")] if place.backend == "trt" else []
    for model, (precision, recipe) in itertools.product(BUNDLED, recipes):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "outputs"
            spec, accuracy = scored(place, precision, recipe, path, model)
            values = memoryview(path.read_bytes()).cast("f").tolist()
        top1 = top5 = 0
        for index, label in enumerate(labels):
            row = values[index * spec.num_classes : (index + 1) * spec.num_classes]
            before = sum(value > row[label] for value in row) + sum(value == row[label] for value in row[:label])
            top1 += before == 0
            top5 += before < 5
        ours = (int(accuracy.hits(1).sum()), int(accuracy.hits(5).sum()))
        assert (top1, top5) == ours, f"{model} {precision}: {(top1, top5)} against {ours}"
        found.append(f"{model} {recipe or precision} {top1}/{top5}")
    return f"top-1/top-5 hits of {N_IMAGES}, equal by both: {', '.join(found)}"


def several_profiles(place):
    """Two profiles, one context each, used in turn, agree with the engine of one profile."""
    place.need_trt()
    spec, _, single = place.engine()
    _, _, double = place.engine(profiles=((1, 1, 1), (2, 100, 128)))
    largest = 0.0
    with single, double:
        for batch in real_batches(spec, 300, 100):
            for n_images in (1, 100, 1, 7, 100):
                largest = max(
                    largest, float(np.abs(single.infer(batch[:n_images]) - double.infer(batch[:n_images])).max())
                )
        try:
            double.infer(np.zeros((129, *spec.input_shape), np.float32))
        except MeasurementError as error:
            refused = str(error)
        profiles = double.facts.options["profiles"]
    assert largest <= AGREEMENT, f"outputs differ by up to {largest:.2e}"
    return f"{profiles}; largest difference {largest:.2e}; batch 129: {refused}"


def engine_cache(place):
    """The second build is a hit; a damaged plan, and one of another version, are built anew."""
    place.need_trt()
    with tempfile.TemporaryDirectory() as folder:
        states = []
        for _ in range(2):
            with place.engine(cache=folder, optimization_level=0)[2] as engine:
                states.append(engine.facts.cache)
        (plan,) = Path(folder).glob("plans/*/*.plan")
        data = bytearray(plan.read_bytes())
        data[len(data) // 2] ^= 0xFF
        plan.write_bytes(bytes(data))
        with place.engine(cache=folder, optimization_level=0)[2] as engine:
            states.append(engine.facts.cache)
            (said,) = (text for text in engine.facts.warnings if "damaged" in text)
        real = TrtBackend.api

        def older(backend):
            api = real(backend)
            api.version = "0.0.0"
            return api

        TrtBackend.api = older
        try:
            with place.engine(cache=folder, optimization_level=0)[2] as engine:
                states.append(engine.facts.cache)
        finally:
            TrtBackend.api = real
    assert states == ["miss", "hit", "rebuilt", "miss"], states
    return f"first, second, damaged, other version: {', '.join(states)}; {said[:80]}"


def foreign_plan(place):
    """A plan that TensorRT itself refuses, with a good digest, is built anew and said so."""
    place.need_trt()
    from harness.store.cache import ContentCache

    with tempfile.TemporaryDirectory() as folder:
        with place.engine(cache=folder, optimization_level=0)[2]:
            pass
        (note,) = Path(folder).glob("plans/*/entry.json")
        entry = json.loads(note.read_text())
        ContentCache(folder, "plans").put(entry["key"], b"no plan at all" * 100, name="x.plan", meta=entry["meta"])
        with place.engine(cache=folder, optimization_level=0)[2] as engine:
            assert engine.facts.cache == "rebuilt", engine.facts.cache
            (said,) = (text for text in engine.facts.warnings if "refused" in text)
            return said


def plugin_library(place):
    """A layer of a library of our own is parsed, built, run, inspected, cached; without the library it is named."""
    place.need_trt()
    version = load_backend(place.backend).api().version
    if place.backend != "trt" or not version.startswith("8.6."):
        raise NotHere(f"the layer is compiled for the interfaces of TensorRT 8.6; this is {place.backend} {version}")
    with tempfile.TemporaryDirectory() as folder:
        library = gpu_plugin.plugin_library(folder)
        if library is None:
            raise NotHere(f"no C++ compiler ({', '.join(gpu_plugin.COMPILERS)}) and {gpu_plugin.PREBUILT} is not set")
        without, missing, built, loaded = (
            gpu_plugin.in_a_fresh_process(place.backend, folder, libraries)
            for libraries in ((), (f"{library}.missing",), (library,), (library,))
        )
    assert gpu_plugin.OP in without.get("error", ""), f"without the library: {without}"
    assert "there is no such file" in missing.get("error", ""), f"a missing library: {missing}"
    for found, state in ((built, "miss"), (loaded, "hit")):
        assert found.get("cache") == state, f"expected a cache {state}: {found}"
        assert found["largest"] <= PLUGIN_AGREEMENT, f"outputs differ by up to {found['largest']:.2e}"
        assert found["of_a_copy"] > 100 * PLUGIN_AGREEMENT, f"the layer changed nothing: {found}"
        assert found["notes"] == [f"plug-in {library.name}: 1 layer types registered"], found["notes"]
        layers = [" ".join(entry) for entry in found["layers"] if gpu_plugin.NODE in entry[0]]
        assert len(layers) == 1, f"the inspector names {found['layers']}"
    return (
        f"{built['notes'][0]}; outputs differ by up to {built['largest']:.1e} from NumPy's, {built['of_a_copy']:.1f} "
        f"without the layer; inspector: {layers[0]}; a second process: cache {loaded['cache']}, "
        f"{loaded['largest']:.1e}; without: {without['error']}; missing: {missing['error']}"
    )


class Spoiled:
    """A calibration set whose second batch is bad."""

    def __init__(self, spoil, spec):
        self.n_images, self.fingerprint = 256, spoil.__name__ + "0" * 40
        self._spoil, self._spec = spoil, spec

    def batches(self, batch_size):
        for first in range(0, self.n_images, batch_size):
            batch = np.random.default_rng(first).random((batch_size, *self._spec.input_shape), np.float32)
            yield self._spoil(batch) if first else batch


def nan(batch):
    batch[0, 0, 0, 0] = np.nan
    return batch


def short(batch):
    return batch[:-1]


def bad_calibration(place):
    """NaN, and a batch of the wrong shape, fail a calibrated build."""
    place.need_trt()
    if not load_backend(place.backend).api().has_calibrator("trt-entropy2"):
        raise NotHere("this TensorRT has no calibrators")
    spec, artifact, engine = place.engine()
    engine.close()
    vendor = dataclasses.replace(artifact, precision=type(artifact.precision)("int8"), recipe="trt-entropy2")
    found = []
    for spoil, said in ((nan, "holds NaN"), (short, "expected float32[")):
        settings = {"trt": {"tactic_sources": tactic_sources(), "optimization_level": 0}}
        options = BuildOptions(cache_dir="", settings=settings)
        try:
            load_backend(place.backend).build(
                vendor, device=place.device, batch_sizes=(1, 100), options=options, calibration=Spoiled(spoil, spec)
            )
        except BuildError as error:
            found += [f"{spoil.__name__}: {error}"] if said in str(error) else []
    assert len(found) == 2, found
    return "; ".join(found)


def timing(place):
    """Four ways to time one call: p50 [us] and the coefficient of variation."""
    launches = ("enqueue", "graph", "gated", "gated_graph") if place.is_cuda else ("auto",)
    found = []
    for precision in ("fp32", "fp16", "int8"):
        spec, _, engine = place.engine(precision)
        with engine:
            for batch_size in (1, 100):
                images = real_batches(spec, 100, 100)[0][:batch_size]
                parts = []
                for launch in launches:
                    timer = engine.timer(images, window="compute", launch=launch)
                    timer.calls_per_sample = 1
                    timer.sample(50)
                    samples = timer.sample(500 if place.is_cuda else 20)
                    cv = samples.std() / samples.mean()
                    parts.append(f"{launch} {np.median(samples) / 1e3:.2f} us / {cv:.1%}")
                enqueue = timer.enqueue_ns()
                parts.append(f"enqueue time {enqueue / 1e3:.1f} us" if enqueue else "no queue")
                found.append(f"{precision} batch {batch_size}: {', '.join(parts)}")
    return "; ".join(found)


def windows(place):
    """Copy in, compute, copy out and end to end are separate windows; the last is longer than each other."""
    if not place.is_cuda:
        raise NotHere("CUDA only")
    spec, _, engine = place.engine()
    spans = {}
    with engine:
        images = real_batches(spec, 100, 100)[0]
        for window in ("h2d", "compute", "d2h", "end_to_end"):
            timer = engine.timer(images, window=window, launch="auto")
            timer.sample(20)
            spans[window] = float(np.median(timer.sample(200))) / 1e3
    whole = spans.pop("end_to_end")
    assert whole > max(spans.values()), (spans, whole)
    return f"{', '.join(f'{name} {span:.2f} us' for name, span in spans.items())}, end to end {whole:.2f} us"


def stream_order(place):
    """infer_stream gives the outputs of infer, in order, the last partial batch included, twice."""
    largest = 0.0
    for precision in ("fp32", "int8"):
        spec, _, engine = place.engine(precision)
        batches = real_batches(spec, 1000, 100)
        batches[-1] = batches[-1][:37]
        with engine:
            for _ in range(3):
                outputs = list(engine.infer_stream(iter(batches)))
                for batch, one in zip(batches, outputs, strict=True):
                    largest = max(largest, float(np.abs(one - engine.infer(batch)).max()))
    assert largest == 0.0 or largest < 1e-6, f"outputs differ by up to {largest:.2e}"
    return f"largest difference {largest:.1e}"


def tf32(place):
    """TF32 is off unless asked for, and the record says which."""
    place.need_trt()
    said = []
    for wanted in (False, True):
        with place.engine(tf32=wanted)[2] as engine:
            kinds = sorted({layer.precision for layer in engine.layers() if layer.is_compute})
            said.append(f"{engine.facts.options['tf32']}: {'/'.join(kinds)}")
            assert engine.facts.options["tf32"] == ("on" if wanted else "off")
            assert wanted or "tf32" not in kinds, kinds
    return "; ".join(said)


def own_graph(place):
    """A call takes as long as in PyTorch's own CUDA graph of the same module, timed by its own events."""
    if place.backend != "torch-cuda":
        raise NotHere("PyTorch only")
    said, wrong = [], False
    for precision in ("fp32", "fp16", "int8"):
        spec, artifact, engine = place.engine(precision)
        with engine:
            found = gpu_torch.ratios(engine, artifact.onnx_path, spec)
        for n_images, (ours, again) in found.items():
            wrong |= abs(ours - 1) > gpu_torch.MAX_DIFFERENCE
            said.append(f"{precision} batch {n_images}: {ours:.3f} ({again:.3f})")
    text = f"ours / PyTorch's own (its second graph / its own): {', '.join(said)}"
    assert not wrong, text
    return text


def vendor_recipes(place):
    """The calibrators of this TensorRT and dynamic ranges from a file, scored."""
    if place.backend != "trt":
        raise NotHere("TensorRT only")
    from harness.backends.trt.calibrator import ranges_from_calibration_cache

    found = []
    with tempfile.TemporaryDirectory() as folder:
        for recipe in ("trt-entropy", "trt-entropy2", "trt-minmax", "trt-legacy", "trt-ranges"):
            options = {}
            if recipe == "trt-ranges":
                cache = next(
                    path
                    for path in Path(folder).glob("calibrations/*/calibration.cache")
                    if b"EntropyCalibration2" in path.read_bytes()
                )
                ranges = Path(folder) / "ranges.json"
                ranges.write_text(
                    json.dumps({k: v or 1.0 for k, v in ranges_from_calibration_cache(cache.read_bytes()).items()})
                )
                options["ranges_file"] = str(ranges)
            spec, _, engine = place.engine("int8", recipe, cache=folder, **options)
            images = ImageRange(dataset="strokes", split="test", first=0, stop=2000)
            with engine:
                accuracy = score_engine(engine, open_dataset("strokes", split="test"), spec, images, batch_size=100)
                kinds = sorted({layer.precision for layer in engine.layers() if layer.is_compute})
            found.append(f"{recipe} {accuracy.top1:.4f} ({'/'.join(kinds)})")
        # The legacy calibrator gives no scale to what surrounds a matrix product: a net of convolutions shows INT8.
        _, _, engine = place.engine("int8", "trt-legacy", model="mobilenet_digits", cache=folder)
        with engine:
            kinds = sorted({layer.precision for layer in engine.layers() if layer.is_compute})
        found.append(f"trt-legacy of mobilenet_digits ({'/'.join(kinds)})")
    return ", ".join(found)


def device_fault(place):
    """A fault on the device ends this process's case with a reason; the next process works."""
    if not place.is_trt:
        raise NotHere("TensorRT only")
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from gpu_checks import Place
from gpu_scoring import real_batches
place = Place({place.backend!r}, {str(place.cache)!r})
spec, _, engine = place.engine()
lane = engine._lanes.main[0]
real = lane.point
lane.point = lambda tensors, source, target: real(tensors, 1 << 45, 1 << 45)
try:
    engine.infer(real_batches(spec, 100, 100)[0])
except Exception as error:
    print(type(error).__name__, str(error)[:200], flush=True)
import os
os._exit(3)
"""
    child = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert "MeasurementError" in child.stdout, child.stdout[-300:] + child.stderr[-300:]
    spec, _, engine = place.engine()
    with engine:
        assert np.isfinite(engine.infer(real_batches(spec, 100, 100)[0])).all()
    return f"{child.stdout.strip()}; the next process runs"


def containment(place):
    """A crash, a hang, a fault and a full device end their own case with a reason; the next case runs."""
    if place.backend != "trt":
        raise NotHere("TensorRT only")
    broken = {
        "trt-crash": "crashed (SIGSEGV)",
        "trt-hang": "no sign of life",
        "trt-fault": "illegal memory access",
        "trt-out-of-memory": "built no engine",
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", str(ROOT / "suites"), "-q", "--model=mlp", "--precision=fp32"]
        command += [f"--backend={','.join(broken)},trt", f"--extension-dir={ROOT / 'benchmarks' / 'gpu_extensions'}"]
        command += [f"--report-dir={folder}", f"--engine-cache={folder}/cache", "--baseline=ignore"]
        command += [f"--worker-timeout={HANG_LIMIT_S}", "--score-images=1000", "--timing-rounds=6"]
        if tactic_sources():
            command.append(f"--trt-tactic-sources={','.join(tactic_sources())}")
        child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        summaries = sorted(Path(folder).glob("*/summary.json"))
        assert summaries, child.stdout[-1500:] + child.stderr[-500:]
        cases = {case["id"]: case for case in json.loads(summaries[-1].read_text())["cases"]}
    found = []
    for name, words in broken.items():
        case = cases[f"mlp-{name}-fp32"]
        assert case["status"] == "error", case
        assert words in case["reason"], case
        found.append(f"{name}: {case['reason'][:160]}")
    assert cases["mlp-trt-fp32"]["status"] == "passed", cases["mlp-trt-fp32"]
    assert child.returncode == 1, child.returncode
    return f"{'; '.join(found)}; the plain case after them passed"


CHECKS = {
    check.__name__: check
    for check in (
        agreement,
        independent_scorer,
        stream_order,
        several_profiles,
        engine_cache,
        foreign_plan,
        plugin_library,
        bad_calibration,
        timing,
        windows,
        tf32,
        own_graph,
        vendor_recipes,
        device_fault,
        containment,
    )
}


def main():
    name, backend, cache = sys.argv[1:]
    try:
        found = {"outcome": "ok", "detail": CHECKS[name](Place(backend, cache))}
    except NotHere as error:
        found = {"outcome": "left out", "detail": str(error)}
    except (AssertionError, HarnessError) as error:
        found = {"outcome": "FAILED", "detail": f"{type(error).__name__}: {error}"}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
