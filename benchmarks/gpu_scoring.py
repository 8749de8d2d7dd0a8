"""Scoring rate of one engine against what it can reach: graphs back to back, and plain copy-run-copy loops.

    PYTHONPATH=. python benchmarks/gpu_scoring.py --backend=trt --out=gpu_scoring.json

All rates are taken in one process, in turn, round by round; the table gives medians. The images are 2,000 of `strokes`,
again and again, preprocessed, in the last-level cache. `infer_stream` gets them as scoring does, in the engine's own
page-locked buffers where it lends some; `score` is the whole of `score_engine` from uint8 pixels in memory: digest,
preprocessing, inference, ranking. `loop` copies a batch to page-locked memory, copies in, runs, copies out and waits;
`pageable loop` does so from ordinary memory with CUDA's synchronous copies. Where there is no CUDA (`--backend=ort`),
`graphs` is the engine's own calls, back to back, and there is no pageable loop. `infer_stream` may pass the rate of
graphs back to back, which run one at a time: it has several inferences on the GPU.
"""

import argparse
import functools
import importlib.util
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np

from harness.backends import load_backend
from harness.datasets import open_dataset
from harness.measure.scoring import score_engine
from harness.models import load_card
from harness.models.preprocess import images_from_pixels
from harness.precision import prepare_artifact
from harness.protocols import LendsBuffers
from harness.specs import BuildOptions, DatasetRequest, ImageRange, Precision
from harness.worker.images import DatasetCalibration

ROOT = Path(__file__).parents[1]
RECIPES = {"fp32": "none", "fp16": "cast", "int8": "qdq-minmax"}
GRAPHS_SHARE, LOOP_FACTOR = 0.9, 3.0
GRAPHS_PER_SAMPLE = 400
DISTINCT_IMAGES = 2_000


def tactic_sources():
    """Return the sources that need neither cuBLAS nor cuDNN, where the environment says they are stand-ins."""
    return ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS") if os.environ.get("TRT_NO_CUBLAS_CUDNN") else None


def build_engine(backend, model, precision, recipe, *, cache, batch_sizes, device, tf32=False, **trt):
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
    settings = {"cuda": {"tf32": tf32}, "trt": {"tactic_sources": tactic_sources(), **trt}}
    options = BuildOptions(cache_dir=cache, settings=settings)
    engine = load_backend(backend).build(
        artifact,
        device=device,
        batch_sizes=batch_sizes,
        options=options,
        calibration=calibration if precision == "int8" else None,
    )
    return spec, artifact, engine


def real_batches(spec, n_images, batch_size, engine=None):
    """Return batches of `strokes`, preprocessed; in an engine's own buffer if one is given that lends any."""
    pixels, _ = open_dataset("strokes", split="test").read(0, min(n_images, DISTINCT_IMAGES))
    lent = engine.host_buffers(1, len(pixels)) if isinstance(engine, LendsBuffers) else []
    images = images_from_pixels(pixels, spec, out=lent[0] if lent else None)
    batches = [images[first : first + batch_size] for first in range(0, len(images), batch_size)]
    return batches * max(1, n_images // len(images))


class InMemory:
    """Images of `strokes`, again and again with another corner each time, ready in memory.

    Equal images would be looked for one by one: no real data set holds most of its images twice.
    """

    name, split, num_classes = "strokes", "test", 10

    def __init__(self, n_images):
        pixels, labels = open_dataset("strokes", split="test").read(0, min(n_images, DISTINCT_IMAGES))
        repeats = max(1, n_images // len(pixels))
        self._pixels, self._labels = np.concatenate([pixels] * repeats), np.concatenate([labels] * repeats)
        marks = np.repeat(np.arange(repeats, dtype="<u2"), len(pixels)).view(np.uint8).reshape(-1, 2)
        self._pixels[:, 0, :2] ^= marks
        self.n_images, self.image_shape = len(self._pixels), self._pixels.shape[1:]

    def read(self, first, stop):
        return self._pixels[first:stop], self._labels[first:stop]


def images_per_s(call, n_images):
    started = time.perf_counter()
    call()
    return n_images / (time.perf_counter() - started)


def graphs_back_to_back(engine, batch, is_cuda):
    """Return images/s of calls enqueued back to back between two events."""
    timer = engine.timer(batch, window="compute", launch="graph" if is_cuda else "auto")
    timer.calls_per_sample = GRAPHS_PER_SAMPLE if is_cuda else 20

    def rate():
        return len(batch) * 1e9 / float(np.median(timer.sample(3)))

    return rate


def infer_in_turn(engine, images):
    """Copy in, run and copy out on one stream and wait: the plain loop that scoring is measured against.

    As such loops go, it copies the batch to page-locked memory and looks at nothing.
    """
    engine._check_idle()
    slot, stream = engine._ring.slots[0], engine._ring.slots[0].compute
    slot.n_images = n_images = len(images)
    np.copyto(slot.host_in[:n_images], images)
    engine._bind_slot(slot)
    engine._gpu.copy_in(slot.device_in, slot.host_in[:n_images], stream)
    engine._enqueue_slot(slot)
    engine._gpu.copy_out(slot.host_out[:n_images], slot.device_out, stream)
    stream.synchronize()
    return slot.host_out[:n_images].astype(np.float32)


def pageable_loop(engine, batches):
    """Return a loop with the synchronous copies of the CUDA driver, from and to ordinary memory."""
    import pycuda.driver as cuda

    n_images = len(batches[0])
    slot = engine._ring.slots[0]
    outputs = np.empty(slot.host_out[:n_images].shape, np.float32)
    slot.n_images = n_images
    engine._bind_slot(slot)

    def loop():
        for batch in batches:
            cuda.memcpy_htod(slot.device_in, batch)
            engine._enqueue_slot(slot)
            slot.compute.synchronize()
            cuda.memcpy_dtoh(outputs, slot.device_out)

    return loop


def measure(engine, spec, *, asked, is_cuda):
    """Return the rates of every round."""
    ordinary = real_batches(spec, asked.images, asked.batch)
    lent = real_batches(spec, asked.images, asked.batch, engine)
    dataset = InMemory(asked.images)
    n_images = sum(map(len, ordinary))
    plain = functools.partial(infer_in_turn, engine) if hasattr(engine, "_bind_slot") else engine.infer
    graph_rate = graphs_back_to_back(engine, ordinary[0], is_cuda)
    scored = ImageRange(dataset="strokes", split="test", first=0, stop=dataset.n_images)

    def stream():
        for _ in engine.infer_stream(lent):
            pass

    def copied():
        for _ in engine.infer_stream(ordinary):
            pass

    def loop():
        for batch in ordinary:
            plain(batch)

    def score():
        score_engine(engine, dataset, spec, scored, batch_size=asked.batch)

    works = {"stream": stream, "copied": copied, "score": score, "loop": loop}
    if importlib.util.find_spec("pycuda") and hasattr(engine, "_bind_slot"):
        works["pageable_loop"] = pageable_loop(engine, ordinary)
    for work in (*works.values(), *works.values()):
        work()
    found = {name: [] for name in (*works, "graphs")}
    for _ in range(asked.rounds):
        for name, work in works.items():
            found[name].append(images_per_s(work, n_images))
        found["graphs"].append(graph_rate())
    return found


def row(precision, found, notes):
    rates = {name: statistics.median(values) for name, values in found.items()}
    share, factor = rates["stream"] / rates["graphs"], rates["stream"] / rates["loop"]
    return {
        "precision": precision,
        "images_per_s": rates,
        "share_of_graphs": share,
        "times_the_loop": factor,
        "score_share_of_graphs": rates["score"] / rates["graphs"],
        "rounds": found,
        "notes": notes,
        "passes": share >= GRAPHS_SHARE and factor >= LOOP_FACTOR,
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
            found = measure(engine, spec, asked=asked, is_cuda=is_cuda)
            rows.append(row(precision, found, [note for note in engine.facts.notes if note.startswith("scored")]))
    Path(asked.out).write_text(json.dumps({"model": asked.model, "batch": asked.batch, "rows": rows}, indent=1))
    names = ("stream", "copied", "score", "graphs", "loop", "pageable_loop")
    what = f"{asked.backend} {asked.model}, batch {asked.batch}, {asked.images} images a round"
    print(f"{what}, medians of {asked.rounds}, M images/s")
    print(f"| precision | {' | '.join(name.replace('_', ' ') for name in names)} | of graphs | x loop |")
    print(f"| --- |{' --- |' * (len(names) + 2)}")
    for one in rows:
        rates = " | ".join(
            f"{one['images_per_s'][name] / 1e6:.3f}" if name in one["images_per_s"] else "-" for name in names
        )
        print(f"| {one['precision']} | {rates} | {one['share_of_graphs']:.1%} | {one['times_the_loop']:.2f} |")
        for note in one["notes"]:
            print(f"note: {one['precision']}: {note}")


if __name__ == "__main__":
    main()
