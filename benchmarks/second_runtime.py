"""Does a second runtime or session in the process change a CPU time?

    python benchmarks/second_runtime.py [--processes 12] [--model lenet5] [--batches 1 100]

One fresh process an arm, the arms in turn, the order reversed every other time. Each process opens the engine that is
measured, times it, does what the arm says, and times the same engine again. Two ratios are printed to the arm
`alone` of the same turn, as the median over processes with its 95 % interval:

- inside: (after / before) of the arm over (after / before) of `alone`: what the second one changes in one process;
- between: after of the arm over after of `alone`, of two processes: the same with the scatter between processes.

Times are those of the harness's own timers (1 thread, compute window), as a run takes them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from harness.backends import load_backend
from harness.measure.arms import LocalArm
from harness.measure.timing import time_arms
from harness.models import load_card
from harness.precision import prepare_artifact
from harness.protocols import Engine
from harness.specs import BuildOptions, Precision, TimingPlan
from harness.stats import median_interval

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "models"
RUNTIMES = ("ort", "openvino")
N_RUNS = 100  # of the second engine
ALONE = "alone"
PLAN = TimingPlan(n_rounds=12, round_ns=20_000_000, warmup_ns=100_000_000)
WORK_DIR = ROOT  # where a child finds the harness


def built(runtime: str, model: str, batches: tuple[int, ...]) -> Engine:
    """Return the FP32 engine of a bundled model, on one thread."""
    spec = load_card(MODELS / f"{model}.toml")
    artifact = prepare_artifact(spec, Precision.FP32, "none", calibration=None, cache_dir="")
    return load_backend(runtime).build(artifact, device="cpu", batch_sizes=batches, options=BuildOptions(num_threads=1))


def images_for(engine: Engine, n_images: int):
    shape = (n_images, *(size or 1 for size in engine.input.shape[1:]))
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def run_often(engine: Engine) -> Engine:
    images = images_for(engine, 8)
    for _ in range(N_RUNS):
        engine.infer(images)
    return engine


def other_of(runtime: str) -> str:
    return RUNTIMES[1 - RUNTIMES.index(runtime)]


def spinning_session(model: str) -> Callable[[], object]:
    """Return a call of an ONNX Runtime session as its defaults make it: all cores, threads that spin after a run."""
    import onnxruntime

    spec = load_card(MODELS / f"{model}.toml")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(spec.onnx_path, options, providers=["CPUExecutionProvider"])
    images = np.zeros((100, *spec.input_shape), np.float32)
    return lambda: session.run(None, {spec.input_name: images})


class Beside:
    """What an arm puts beside the measured engine; `keep` holds it, `before_round` is called ahead of each round."""

    def __init__(self, arm: str, runtime: str, model: str) -> None:
        self.keep: object = None
        self.before_round: Callable[[], object] = lambda: None
        if arm == "other runtime":
            self.keep = run_often(built(other_of(runtime), model, (8,)))
        elif arm == "second session":
            self.keep = run_often(built(runtime, "mobilenet_digits", (8,)))
        elif arm == "second session, closed":
            run_often(built(runtime, "mobilenet_digits", (8,))).close()
        elif arm == "spinning session, idle":
            self.keep = spinning_session(model)
            for _ in range(N_RUNS):
                self.keep()
        elif arm == "spinning session, just ran":
            self.keep = self.before_round = spinning_session(model)
        elif arm != ALONE:
            raise SystemExit(f"no arm {arm!r}")


ARMS = (
    ALONE,
    "other runtime",
    "second session",
    "second session, closed",
    "spinning session, idle",
    "spinning session, just ran",
)


class Preceded:
    """A timer before whose rounds something is run."""

    def __init__(self, timer, before: Callable[[], object]) -> None:
        self._timer, self._before = timer, before

    def __getattr__(self, name: str):
        return getattr(self._timer, name)

    @property
    def calls_per_sample(self) -> int:
        return self._timer.calls_per_sample

    @calls_per_sample.setter
    def calls_per_sample(self, calls: int) -> None:
        self._timer.calls_per_sample = calls

    def sample(self, n_samples: int):
        self._before()
        return self._timer.sample(n_samples)


def child(arm: str, runtime: str, model: str, batches: tuple[int, ...]) -> None:
    """Print the medians [ns] before and after of each batch as JSON."""
    engine = built(runtime, model, batches)
    timers = {n: engine.timer(images_for(engine, n), window="compute", launch="auto") for n in batches}

    def median(batch: int, before: Callable[[], object]) -> float:
        (arm,), _ = time_arms([LocalArm(Preceded(timers[batch], before), PLAN)], PLAN)
        return float(np.median(np.median(arm.rounds_ns, axis=1)))

    first = {batch: median(batch, lambda: None) for batch in batches}
    beside = Beside(arm, runtime, model)
    second = {batch: median(batch, beside.before_round) for batch in batches}
    print(json.dumps({str(batch): [first[batch], second[batch]] for batch in batches}))


def measured(arm: str, runtime: str, options: argparse.Namespace) -> dict[str, list[float]]:
    batches = [str(n) for n in options.batches]
    command = [sys.executable, __file__, "--arm", arm, "--runtime", runtime, "--model", options.model, "--batches"]
    result = subprocess.run(
        [*command, *batches], cwd=WORK_DIR, capture_output=True, text=True, check=False, env=environment()
    )
    if result.returncode:
        sys.exit(f"{arm} on {runtime} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))}


def told(ratios: list[float]) -> str:
    """Return a median with its 95 % interval."""
    found = median_interval(np.asarray(ratios))
    interval = f"{found[0]:.3f} to {found[1]:.3f}" if found else "no interval"
    return f"{np.median(ratios):.3f} ({interval})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=12, help="an arm")
    parser.add_argument("--model", default="lenet5")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--runtime", choices=RUNTIMES, help="only this one")
    parser.add_argument("--arm", choices=ARMS, help="one process of one arm, as JSON")
    options = parser.parse_args()
    if options.arm:
        child(options.arm, options.runtime, options.model, tuple(options.batches))
        return
    for runtime in (options.runtime,) if options.runtime else RUNTIMES:
        found: dict[str, list[dict[str, list[float]]]] = {arm: [] for arm in ARMS}
        for turn in range(options.processes):
            for arm in ARMS if turn % 2 == 0 else reversed(ARMS):
                found[arm].append(measured(arm, runtime, options))
        print(f"{options.model} FP32 on {runtime}, {options.processes} processes an arm")
        for batch in map(str, options.batches):
            base = found[ALONE]
            print(f"  batch {batch}: alone {np.median([one[batch][1] for one in base]) / 1e3:.1f} us")
            for arm in ARMS[1:]:
                pairs = [(one[batch], other[batch]) for one, other in zip(found[arm], base, strict=True)]
                inside = [(a[1] / a[0]) / (b[1] / b[0]) for a, b in pairs]
                between = [a[1] / b[1] for a, b in pairs]
                print(f"    {arm:28} inside {told(inside)}   between {told(between)}", flush=True)


if __name__ == "__main__":
    main()
