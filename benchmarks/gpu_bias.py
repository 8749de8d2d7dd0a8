"""What a process did before, and how calls are launched: what each does to a time by CUDA events.

    PYTHONPATH=. python benchmarks/gpu_bias.py --backend=trt --out=gpu_bias.json

Every step runs in fresh processes that load the same cached plan, do one thing (copy, enqueue on another stream,
`infer`, build ...) and then time a batch in four ways: one graph behind a gate (`gate 1`), many graphs in one sample
(`gate xN`), many samples behind one gate (`gate group`), and the next graph enqueued while one runs, on an open stream
(`ahead`, as trtexec does). Processes start side by side, but one at a time measures. The table gives medians over
processes [us] and the spread between them.
"""

import argparse
import fcntl
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from gpu_scoring import RECIPES, build_engine, real_batches

from harness.backends._cuda.device import Gpu
from harness.backends._cuda.timer import CudaTimer

N_ROUNDS, N_SAMPLES = 6, 200
GROUP = 32  # samples behind one gate
MANY = 10  # graphs in one sample
AT_ONCE = 6  # processes that start side by side
MIB = 1 << 20


def own_stream(engine):
    """Return the copy stream of the engine's first slot: other than the one that is timed."""
    return engine._ring.slots[0].stream


def step_enqueue_elsewhere(engine, images):
    stream = engine._gpu.stream()
    lane, slot = engine._lanes.pick(len(images)), engine._ring.slots[0]
    lane.bind(len(images), (engine.input, engine.output), stream)
    lane.point((engine.input, engine.output), int(slot.device_in), int(slot.device_out))
    lane.enqueue(stream)
    stream.synchronize()


def step_enqueue(engine, images):
    lane, slot = engine._lanes.pick(len(images)), engine._ring.slots[0]
    lane.bind(len(images), (engine.input, engine.output), engine._compute)
    lane.point((engine.input, engine.output), int(slot.device_in), int(slot.device_out))
    lane.enqueue(engine._compute)
    engine._compute.synchronize()


def copying(way, stream_of):
    def step(engine, images):
        slot, stream = engine._ring.slots[0], stream_of(engine)
        if way == "in":
            engine._gpu.copy_in(slot.device_in, slot.host_in[: len(images)], stream)
        else:
            engine._gpu.copy_out(slot.host_out[: len(images)], slot.device_out, stream)
        stream.synchronize()

    return step


def step_wait_across(engine, images):
    event = engine._gpu.event()
    event.record(own_stream(engine))
    engine._compute.wait_for_event(event)
    engine._compute.synchronize()


def step_event_sync(engine, images):
    event = engine._gpu.event()
    event.record(engine._compute)
    event.synchronize()


def step_infer_fresh_context(engine, images):
    engine.infer(images)
    engine._lanes.pick(len(images)).open(engine._compute)


def step_infer_same_stream(engine, images):
    """As `infer`, with copies on the stream that computes."""
    slot = engine._ring.slots[0]
    slot.stream = slot.compute = engine._compute
    engine.infer(images)


STEPS = {
    "nothing": lambda engine, images: None,
    "infer": lambda engine, images: engine.infer(images),
    "infer, copies on the computing stream": step_infer_same_stream,
    "infer, then a fresh context": step_infer_fresh_context,
    "page-locked memory": lambda engine, images: engine._gpu.pinned((8 * MIB,), np.uint8),
    "device memory": lambda engine, images: engine._gpu.device_memory(8 * MIB),
    "a stream": lambda engine, images: engine._gpu.stream(),
    "wait for an event": step_event_sync,
    "a stream waits for another": step_wait_across,
    "copy in, computing stream": copying("in", lambda engine: engine._compute),
    "copy out, computing stream": copying("out", lambda engine: engine._compute),
    "copy in, other stream": copying("in", own_stream),
    "copy out, other stream": copying("out", own_stream),
    "enqueue": step_enqueue,
    "enqueue on another stream": step_enqueue_elsewhere,
}


def gate_one(timer):
    timer.calls_per_sample = 1
    return timer.sample(N_SAMPLES)


def gate_many(timer):
    timer.calls_per_sample = MANY
    return timer.sample(N_SAMPLES // MANY)


def gate_group(timer):
    """Time samples of which GROUP lie behind one gate: the device does not go idle between them."""
    launcher = timer._launcher
    launcher.ready()
    launch, stream, gate = launcher.launch_once(), launcher.stream, launcher.gate
    pairs = timer._pool.pairs(N_SAMPLES // GROUP * GROUP)
    with gate.watched():
        for first in range(0, len(pairs), GROUP):
            gate.shut()
            for start, end in pairs[first : first + GROUP]:
                start.record(stream)
                launch()
                end.record(stream)
            gate.open()
            stream.synchronize()
    spans = np.array([end.time_since(start) for start, end in pairs]).reshape(-1, GROUP)
    return spans[:, 1:].ravel() * 1e6


def ahead(timer):
    """Time samples on an open stream with one more enqueued than runs, as trtexec 8.6 does."""
    launcher = timer._launcher
    launcher.ready()
    launch, stream = launcher.launch_once(), launcher.stream
    pairs = timer._pool.pairs(N_SAMPLES)
    for index, (start, end) in enumerate(pairs):
        start.record(stream)
        launch()
        end.record(stream)
        if index:
            pairs[index - 1][1].synchronize()
    stream.synchronize()
    return np.array([end.time_since(start) for start, end in pairs])[1:] * 1e6


WAYS = {"gate 1": gate_one, f"gate x{MANY}": gate_many, "gate group": gate_group, "ahead": ahead}


def bare_timer(asked, batch, gpu, kept):
    """Return a timer of a cached plan with one context, one stream and two buffers: no ring, no copies."""
    import tensorrt as trt

    path = next(Path(asked.cache).glob(f"plans/*/{asked.model}-*-{asked.precision}*.plan"))
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    context, stream = engine.create_execution_context(), gpu.stream()
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    context.set_input_shape(names[0], (batch, *tuple(engine.get_tensor_shape(names[0]))[1:]))
    for name in names:
        context.set_tensor_address(name, int(gpu.device_memory(4 * MIB)))
    kept += [runtime, engine, context]
    return CudaTimer(
        gpu,
        stream,
        work=lambda: context.execute_async_v3(stream.handle),
        bind=lambda: 0,
        batch_size=batch,
        window="compute",
        launch="gated_graph",
        entries_per_call=64,
    )


def measured(timer):
    """Return the median of every way's rounds [ns]."""
    for way in WAYS.values():
        way(timer)
    rounds = {name: [] for name in WAYS}
    for _ in range(N_ROUNDS):
        for name, way in WAYS.items():
            rounds[name].append(float(np.median(way(timer))))
    return {name: statistics.median(values) for name, values in rounds.items()}


def bare_child(asked):
    gpu, found, kept = Gpu(0), {}, []
    with open(f"{asked.cache}.turn", "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        for batch in map(int, asked.batches.split(",")):
            timer = bare_timer(asked, batch, gpu, kept)
            found[batch] = measured(timer)
            timer.close()
    print(json.dumps({"found": found}), flush=True)
    os._exit(0)  # nothing is left to be freed in order


def child(asked):
    """Do one step in this process, then time; print what was found as JSON."""
    if asked.step == "bare plan":
        bare_child(asked)
    settings = {"cache": asked.cache, "device": "cuda:0", "batch_sizes": (1, 100)}
    profiles = tuple(tuple(map(int, text.split(":"))) for text in asked.profile)
    if profiles:
        settings |= {"profiles": profiles, "batch_sizes": tuple(map(int, asked.sizes.split(",")))}
    if asked.step == "another plan built":
        build_engine(asked.backend, "mlp", "fp32", "none", **{**settings, "cache": f"{asked.cache}-{id(asked)}"})[
            2
        ].close()
    spec, _, engine = build_engine(asked.backend, asked.model, asked.precision, RECIPES[asked.precision], **settings)
    found = {}
    with open(f"{asked.cache}.turn", "w") as turn, engine:
        fcntl.flock(turn, fcntl.LOCK_EX)
        for batch in map(int, asked.batches.split(",")):
            images = real_batches(spec, batch, batch)[0][:batch]
            STEPS.get(asked.step, STEPS["nothing"])(engine, images)
            timer = engine.timer(images, window="compute", launch="gated_graph")
            found[batch] = measured(timer)
    print(json.dumps({"found": found, "profiles": engine.facts.options.get("profiles", "")}))


def run_child(asked, model, precision, step, *, batches, extra=()):
    command = [sys.executable, __file__, "--child", f"--backend={asked.backend}", f"--cache={asked.cache}"]
    command += [f"--model={model}", f"--precision={precision}", f"--step={step}", f"--batches={batches}", *extra]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"found"')]
    answer = json.loads(lines[-1]) if lines else {"error": done.stderr.strip()[-400:]}
    return {"model": model, "precision": precision, "step": step, **answer}


def plan_of(asked):
    """Yield (model, precision, step, batches) of every process."""
    for step in ("bare plan", *STEPS, "another plan built"):
        for _ in range(asked.processes):
            yield "lenet5", "fp16", step, "1,100"
    for model, precision in (
        ("lenet5", "fp32"),
        ("lenet5", "int8"),
        ("mobilenet_digits", "fp32"),
        ("mobilenet_digits", "fp16"),
        ("mobilenet_digits", "int8"),
        ("mlp", "fp32"),
        ("mlp", "fp16"),
    ):
        for step in ("bare plan", "nothing", "infer"):
            for _ in range(asked.processes):
                yield model, precision, step, "1,100"


def table(answers):
    keys = dict.fromkeys(
        (one["model"], one["precision"], one["step"], batch) for one in answers for batch in one.get("found", {})
    )
    lines = [f"| net | before | batch | {' | '.join(WAYS)} | n |", "| --- " * (4 + len(WAYS)) + "|"]
    for model, precision, step, batch in keys:
        of = [
            one["found"][batch]
            for one in answers
            if (one["model"], one["precision"], one["step"]) == (model, precision, step) and batch in one["found"]
        ]
        cells = []
        for way in WAYS:
            values = [found[way] / 1e3 for found in of]
            spread = (max(values) - min(values)) / statistics.median(values)
            cells.append(f"{statistics.median(values):.2f} ({100 * spread:.1f} %)")
        lines.append(f"| {model} {precision} | {step} | {batch} | {' | '.join(cells)} | {len(of)} |")
    lines += [
        f"| {one['model']} {one['precision']} {one['step']}: {one['error']} |" for one in answers if "error" in one
    ]
    return "\n".join(lines)


PROFILES = {
    "fixed 1": ("1", ("1:1:1",)),
    "1..100 tuned for 1": ("1,100", ("1:1:100",)),
    "1..100 tuned for 100": ("1,100", ("1:100:100",)),
    "one a timed batch": ("1,100", ("1:1:1", "1:100:100")),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="trt")
    parser.add_argument("--out", type=Path, default=Path("gpu_bias.json"))
    parser.add_argument("--cache", default="/tmp/harness-gpu-cache")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--stages", default="steps,profiles")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--model", default="lenet5")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--step", default="nothing")
    parser.add_argument("--batches", default="1,100")
    parser.add_argument("--profile", action="append", default=[], help="of a child: MIN:OPT:MAX")
    parser.add_argument("--sizes", default="1,100", help="of a child: batch sizes of the engine")
    asked = parser.parse_args()
    if asked.child:
        child(asked)
        return
    results = {}
    if "steps" in asked.stages:
        planned = list(plan_of(asked))
        for model, precision in dict.fromkeys((one[0], one[1]) for one in planned):  # builds are timed: one by one
            print("built", run_child(asked, model, precision, "nothing", batches="1"), flush=True)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = list(pool.map(lambda one: run_child(asked, *one[:3], batches=one[3]), planned))
        results["steps"] = answers
        asked.out.write_text(json.dumps(results, indent=1))
        print(table(answers), flush=True)
    if "profiles" in asked.stages:
        found = []
        for model, precision in (("lenet5", "fp32"), ("mobilenet_digits", "fp16")):
            for name, (sizes, profiles) in PROFILES.items():
                extra = [f"--profile={profile}" for profile in profiles] + [f"--sizes={sizes}"]
                built = run_child(asked, model, precision, "nothing", batches=sizes, extra=extra)
                print(model, precision, name, built.get("profiles") or built.get("error"), flush=True)
                for _ in range(asked.processes):
                    timed = run_child(asked, model, precision, "nothing", batches=sizes, extra=extra)
                    found.append({**timed, "step": name})
        results["profiles"] = found
        print(table(found), flush=True)
    asked.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
