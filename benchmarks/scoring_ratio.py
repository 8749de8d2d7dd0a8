"""How much `score_engine` costs beside the bare engine, from uint8 pixels in memory: ratios of interleaved loops.

    PYTHONPATH=. python benchmarks/scoring_ratio.py                       # CPU: score / bare loop; at most 1.10 is good
    PYTHONPATH=. python benchmarks/scoring_ratio.py --backend=trt         # GPU: graphs / score; at least 0.90 is good

On the CPU a bare loop of the same runtime scales the pixels, runs batches of 100 and counts hits. On a GPU it is graphs
back to back between two events on one stream. Every round takes both, the order alternating, and gives one ratio; the
table has their median, with the smallest and the largest, and the share of the machine that others used meanwhile:
with no CPU to spare the helper threads of scoring take turns with the engine.
"""

import argparse
import os
import statistics
import time

import numpy as np
from backend_overhead import BATCH, MODELS, ArrayDataset, scoring_loops
from gpu_scoring import RECIPES, InMemory, build_engine, graphs_back_to_back, real_batches

from harness.measure.scoring import score_engine
from harness.models import load_card
from harness.specs import ImageRange

NETS = ("lenet5", "mobilenet_digits", "mlp")
CPU_BACKENDS = ("ort", "openvino")
MOST_OVERHEAD, LEAST_SHARE = 1.10, 0.90


def ratios_of(ours, theirs, n_rounds):
    """Return ours / theirs of every round, in alternating order."""
    for arm in (ours, theirs):
        arm()
    found = []
    for index in range(n_rounds):
        values = {}
        for arm in (ours, theirs) if index % 2 == 0 else (theirs, ours):
            values[arm] = arm()
        found.append(values[ours] / values[theirs])
    return found


def cpu_rows(options):
    """Yield (what, ratios of seconds, others' share of the CPUs)."""
    data = ArrayDataset(options.images)
    for net in options.nets:
        spec = load_card(MODELS / f"{net}.toml")
        for backend in CPU_BACKENDS if options.backend == "cpu" else (options.backend,):
            ours, theirs = scoring_loops(backend, spec, data)
            before = cpu_seconds()
            ratios = ratios_of(ours, theirs, options.rounds)
            yield f"{net} {backend}", ratios, others_share(before)


def gpu_rows(options):
    """Yield (what, ratios of images/s, others' share of the CPUs)."""
    for net in options.nets:
        for precision in options.precisions.split(","):
            spec, _, engine = build_engine(
                options.backend,
                net,
                precision,
                RECIPES[precision],
                cache=options.cache,
                batch_sizes=(1, BATCH),
                device=options.device,
            )
            with engine:
                dataset = InMemory(options.images)
                images = ImageRange(dataset=dataset.name, split=dataset.split, first=0, stop=dataset.n_images)
                graphs = graphs_back_to_back(engine, real_batches(spec, BATCH, BATCH)[0], True)

                def score(engine=engine, dataset=dataset, spec=spec, images=images):
                    started = time.perf_counter()
                    score_engine(engine, dataset, spec, images, batch_size=BATCH)
                    return images.n_images / (time.perf_counter() - started)

                before = cpu_seconds()
                ratios = ratios_of(score, graphs, options.rounds)
                yield f"{net} {options.backend} {precision}", ratios, others_share(before)


def cpu_seconds():
    """Return wall seconds, this process's CPU seconds, and the machine's busy CPU seconds where it tells."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
        busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
    except OSError:
        busy = float("nan")
    return time.perf_counter(), time.process_time(), busy


def others_share(before):
    """Return the share of all CPUs that other processes used since."""
    wall, own, busy = (now - then for now, then in zip(cpu_seconds(), before, strict=True))
    return max(0.0, busy - own) / (wall * (os.cpu_count() or 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="cpu", help="cpu (both), ort, openvino, or one on a GPU: trt, ...")
    parser.add_argument("--device", default="cuda:0", help="of a backend on a GPU")
    parser.add_argument("--nets", type=lambda text: text.split(","), default=NETS)
    parser.add_argument("--precisions", default="fp32,fp16,int8", help="on a GPU")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--cache", default="/tmp/harness-gpu-cache")
    options = parser.parse_args()
    is_cpu = options.backend in ("cpu", *CPU_BACKENDS)
    what = "score / bare loop [seconds]" if is_cpu else "score / graphs back to back [images/s]"
    print(f"{what}, batch {BATCH}, {options.images} images, {options.rounds} rounds, {os.cpu_count()} CPUs")
    print("| case | median | smallest | largest | reached | CPUs in others' use |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, ratios, others in (cpu_rows if is_cpu else gpu_rows)(options):
        median = statistics.median(ratios)
        reached = median <= MOST_OVERHEAD if is_cpu else median >= LEAST_SHARE
        spread = f"{min(ratios):.3f} | {max(ratios):.3f}"
        print(f"| {name} | {median:.3f} | {spread} | {'yes' if reached else 'no'} | {others:.0%} |", flush=True)
    assert np.isfinite(ratios).all()


if __name__ == "__main__":
    main()
