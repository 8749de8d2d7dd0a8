"""What the harness adds to the runtimes it measures, as ratios of loops interleaved in one run.

    python benchmarks/backend_overhead.py [--images 5000] [--blocks 9]

1. Scoring: `measure.score_engine` against a bare loop of the same runtime over the same images, both from uint8.
2. Timing: our OpenVINO timer against openvino.tools.benchmark, the engine's own tool, in one process.

A ratio is the median over blocks of (ours / theirs), the order alternating; absolute times wander by a third here.
"""

import argparse
import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from harness.backends import load_backend
from harness.datasets import open_dataset
from harness.measure.scoring import score_engine
from harness.models import load_card
from harness.models.preprocess import images_from_pixels
from harness.precision import prepare_artifact
from harness.specs import BuildOptions, ImageRange, ModelSpec, Precision

MODELS = Path(__file__).parents[1] / "models"
BATCH = 100
TIMING_BATCHES = (1, 100)
BLOCK_NS = 150_000_000


class ArrayDataset:
    """A data set in memory, so that reading it costs next to nothing."""

    def __init__(self, n_images: int) -> None:
        source = open_dataset("strokes", split="test", data_dir=None)
        self.pixels, self.labels = source.read(0, n_images)
        self.name, self.split, self.n_images, self.num_classes = "strokes", "test", n_images, 10
        self.image_shape = self.pixels.shape[1:]

    def read(self, first: int, stop: int):
        return self.pixels[first:stop], self.labels[first:stop]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--blocks", type=int, default=9)
    options = parser.parse_args()
    data = ArrayDataset(options.images)
    print(f"scoring {options.images} images, batch {BATCH}, harness / bare loop, {options.blocks} blocks")
    for model in ("mlp", "lenet5", "mobilenet_digits"):
        spec = load_card(MODELS / f"{model}.toml")
        for backend in ("ort", "openvino"):
            print_ratio(f"  {model:16} {backend:9}", scoring_loops(backend, spec, data), options.blocks)
    print("OpenVINO timer / openvino.tools.benchmark (sync, 1 thread), medians of calls")
    for model in ("mlp", "lenet5"):
        spec = load_card(MODELS / f"{model}.toml")
        for batch in TIMING_BATCHES:
            print_ratio(f"  {model:16} batch {batch:<3}", timing_loops(spec, data, batch), options.blocks)


def print_ratio(label: str, arms: tuple[Callable[[], float], Callable[[], float]], n_blocks: int) -> None:
    """Run two arms in alternating order and print the median ratio with its smallest and largest."""
    for arm in arms:
        arm()
    ratios = []
    for block in range(n_blocks):
        times = {}
        for index in (0, 1) if block % 2 == 0 else (1, 0):
            times[index] = arms[index]()
        ratios.append(times[0] / times[1])
    print(f"{label}  x{np.median(ratios):.3f}  (blocks x{min(ratios):.3f} .. x{max(ratios):.3f})", flush=True)


def artifact_of(spec: ModelSpec):
    return prepare_artifact(spec, Precision.FP32, "none", calibration=None, cache_dir="")


def scoring_loops(backend: str, spec: ModelSpec, data: ArrayDataset):
    engine = load_backend(backend).build(
        artifact_of(spec), device="cpu", batch_sizes=(BATCH,), options=BuildOptions(num_threads=1)
    )
    run = {"ort": bare_ort, "openvino": bare_openvino}[backend](spec)
    images = ImageRange(dataset=data.name, split=data.split, first=0, stop=data.n_images)

    def ours() -> float:
        started = time.perf_counter()
        accuracy = score_engine(engine, data, spec, images, batch_size=BATCH)
        elapsed = time.perf_counter() - started
        hits.append(int(accuracy.hits(1).sum()))
        return elapsed

    def bare() -> float:
        started, n_hits = time.perf_counter(), 0
        for first in range(0, data.n_images, BATCH):
            pixels, labels = data.read(first, first + BATCH)
            outputs = run(pixels[:, None] * np.float32(spec.scale))
            n_hits += int((outputs.argmax(axis=1) == labels).sum())
        elapsed = time.perf_counter() - started
        if hits[-1] != n_hits:
            raise SystemExit(f"{spec.name} on {backend}: the harness counts {hits[-1]} hits, the bare loop {n_hits}")
        return elapsed

    hits: list[int] = []
    return ours, bare


def bare_ort(spec: ModelSpec):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(spec.onnx_path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {spec.input_name: images})[0]


def bare_openvino(spec: ModelSpec):
    import openvino as ov

    request = openvino_compiled(spec, BATCH).create_infer_request()

    def run(images):
        request.set_input_tensor(ov.Tensor(images, shared_memory=True))
        request.infer()
        return request.get_output_tensor().data

    return run


def openvino_compiled(spec: ModelSpec, batch: int):
    import openvino as ov

    core = ov.Core()
    model = core.read_model(spec.onnx_path)
    model.reshape([batch, *spec.input_shape])
    config = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
    return core.compile_model(model, "CPU", {**config, "INFERENCE_PRECISION_HINT": "f32"})


class OneBatch:
    """The data queue that the tool asks for its batch size."""

    def get_next_batch_size(self) -> int:
        return 1


def timing_loops(spec: ModelSpec, data: ArrayDataset, batch: int):
    import openvino as ov

    with contextlib.redirect_stderr(io.StringIO()):
        from openvino.tools.benchmark.benchmark import Benchmark

    images = images_from_pixels(data.read(0, batch)[0], spec)
    engine = load_backend("openvino").build(
        artifact_of(spec), device="cpu", batch_sizes=(batch,), options=BuildOptions(num_threads=1)
    )
    timer = engine.timer(images, window="compute", launch="auto")
    n_calls = max(20, int(BLOCK_NS / float(np.median(timer.sample(20)))))
    requests = ov.AsyncInferQueue(openvino_compiled(spec, batch), 1)
    requests[0].set_input_tensor(ov.Tensor(images, shared_memory=True))
    tool = Benchmark("CPU", 0, n_calls, 0, "sync", inference_only=True)

    def ours() -> float:
        return float(np.median(timer.sample(n_calls)))

    def theirs() -> float:
        times_ms, *_ = tool.sync_inference(requests[0], OneBatch())
        return float(np.median(times_ms)) * 1e6

    return ours, theirs


if __name__ == "__main__":
    main()
