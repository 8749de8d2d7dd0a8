"""Scoring rate of one engine against what it can reach: graphs back to back, and the plain copy-run-copy loop.

    PYTHONPATH=. python benchmarks/gpu_scoring.py --backend=trt --out=gpu_scoring.json

All three rates are taken in one process, in turn, round by round; the table gives medians. The images are 2,000 of
`strokes`, again and again, as ordinary arrays: like those that scoring reads, they lie in the last-level cache. Where
there is no CUDA (`--backend=ort`), the ceiling is the engine's own calls, back to back.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np

from harness.backends import load_backend
from harness.datasets import open_dataset
from harness.models import load_card
from harness.pipeline import DatasetCalibration
from harness.precision import prepare_artifact
from harness.preprocess import images_from_pixels
from harness.specs import BuildOptions, DatasetRequest, Precision, TrtOptions

ROOT = Path(__file__).parents[1]
RECIPES = {"fp32": "none", "fp16": "cast", "int8": "qdq-minmax"}
CEILING_SHARE, LOOP_FACTOR = 0.9, 3.0
GRAPHS_PER_SAMPLE = 400
DISTINCT_IMAGES = 2_000


def tactic_sources():
    """Return the sources that need neither cuBLAS nor cuDNN, where the environment says they are stand-ins."""
    return ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS") if os.environ.get("TRT_NO_CUBLAS_CUDNN") else None


def build_engine(backend, model, precision, recipe, *, cache, batch_sizes, device, **trt):
    """Prepare a bundled model with images of `strokes` and build its engine."""
    spec = load_card(ROOT / "models" / f"{model}.toml")
    request = DatasetRequest()
    calibration = DatasetCalibration(open_dataset("strokes", split="train"), spec, request)
    artifact = prepare_artifact(
        spec,
        Precision(precision),
        recipe,
        calibration=calibration if precision == "int8" else None,
        cache_dir=cache,
        calibration_range=request.calibration if precision == "int8" else None,
    )
    options = BuildOptions(cache_dir=cache, trt=TrtOptions(tactic_sources=tactic_sources(), **trt))
    engine = load_backend(backend).build(
        artifact,
        device=device,
        batch_sizes=batch_sizes,
        options=options,
        calibration=calibration if precision == "int8" else None,
    )
    return spec, artifact, engine


def real_batches(spec, n_images, batch_size):
    """Return batches of `strokes`, preprocessed."""
    pixels, _ = open_dataset("strokes", split="test").read(0, min(n_images, DISTINCT_IMAGES))
    images = images_from_pixels(pixels, spec)
    batches = [images[first : first + batch_size] for first in range(0, len(images), batch_size)]
    return batches * max(1, n_images // len(images))


def images_per_s(call, n_images):
    started = time.perf_counter()
    call()
    return n_images / (time.perf_counter() - started)


def ceiling(engine, batch, is_cuda):
    """Return images/s of calls enqueued back to back between two events."""
    timer = engine.timer(batch, window="compute", launch="graph" if is_cuda else "auto")
    timer.calls_per_sample = GRAPHS_PER_SAMPLE if is_cuda else 20

    def rate():
        return len(batch) * 1e9 / float(np.median(timer.sample(3)))

    return rate


def measure(engine, batches, rounds, is_cuda):
    """Return the three rates of every round."""
    n_images = sum(map(len, batches))
    plain = getattr(engine, "infer_in_turn", engine.infer)
    graph_rate = ceiling(engine, batches[0], is_cuda)

    def stream():
        for _ in engine.infer_stream(batches):
            pass

    def loop():
        for batch in batches:
            plain(batch)

    for warm in (stream, loop, stream):
        warm()
    found = {"stream": [], "ceiling": [], "loop": []}
    for _ in range(rounds):
        found["stream"].append(images_per_s(stream, n_images))
        found["ceiling"].append(graph_rate())
        found["loop"].append(images_per_s(loop, n_images))
    return found


def row(precision, found):
    stream, top, loop = (statistics.median(found[name]) for name in ("stream", "ceiling", "loop"))
    share, factor = stream / top, stream / loop
    return {
        "precision": precision,
        "stream_images_per_s": stream,
        "ceiling_images_per_s": top,
        "loop_images_per_s": loop,
        "share_of_ceiling": share,
        "times_the_loop": factor,
        "loop_could_gain": top / loop,
        "rounds": found,
        "passes": share >= CEILING_SHARE and factor >= LOOP_FACTOR,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="trt")
    parser.add_argument("--device", default=None, help="default: cuda:0, or cpu for a CPU backend")
    parser.add_argument("--model", default="lenet5")
    parser.add_argument("--precisions", default="fp32,fp16,int8")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cache", default="/tmp/harness-gpu-cache")
    parser.add_argument("--out", default="gpu_scoring.json")
    asked = parser.parse_args()
    is_cuda = asked.backend not in ("ort", "openvino")
    device = asked.device or ("cuda:0" if is_cuda else "cpu")
    rows = []
    for precision in asked.precisions.split(","):
        spec, _, engine = build_engine(
            asked.backend,
            asked.model,
            precision,
            RECIPES[precision],
            cache=asked.cache,
            batch_sizes=(1, asked.batch),
            device=device,
        )
        with engine:
            rows.append(
                row(precision, measure(engine, real_batches(spec, asked.images, asked.batch), asked.rounds, is_cuda))
            )
    Path(asked.out).write_text(json.dumps({"model": asked.model, "batch": asked.batch, "rows": rows}, indent=1))
    print(
        f"{asked.backend} {asked.model}, batch {asked.batch}, {asked.images} images a round, medians of {asked.rounds}"
    )
    print("| precision | infer_stream | graphs back to back | copy-run-copy | of ceiling | x loop | ceiling / loop |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for one in rows:
        rates = " | ".join(
            f"{one[name] / 1e6:.3f} M/s"
            for name in ("stream_images_per_s", "ceiling_images_per_s", "loop_images_per_s")
        )
        ratios = f"{one['share_of_ceiling']:.1%} | {one['times_the_loop']:.2f} | {one['loop_could_gain']:.2f}"
        print(f"| {one['precision']} | {rates} | {ratios} |")


if __name__ == "__main__":
    main()
