"""Times on a GPU, end to end: accept, calibrate, judge an unchanged night, and show what the timing rests on.

    PYTHONPATH=. python benchmarks/gpu_times.py --backend=trt --out=OUT [--pairs=16] [--models=lenet5,mlp]

1. `accept`: the suite with --update-baselines: baselines, and the accepted engines beside the engine cache.
2. `calibrate`: `harness calibrate` of every case, several at once; only one pair times at a time.
3. `night`: the suite again, against those baselines: nothing may be slower, and what each case cost is told.
4. `agreement`: the suite once more, with the one profile of trtexec's plans; then every engine of it alone in fresh
   processes, and trtexec's figures beside both (gpu_agreement.py).
5. `scoring`: gpu_scoring.py or its like, where --scoring names a script.

It runs on CPU backends too (`--backend=ort`). The tables are printed last.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gpu_agreement
from gpu_scoring import ROOT, tactic_sources

AT_ONCE = 6


def shared(asked):
    """Return the options of every command."""
    sources = tactic_sources()
    trt = [f"--trt-tactic-sources={','.join(sources)}"] if sources and asked.backend.startswith("trt") else []
    return [f"--engine-cache={asked.cache}", f"--baseline-dir={asked.out / 'baselines'}", *trt]


def environment():
    return dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), COLUMNS="120")


def run(asked, name, command):
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment())
    (asked.out / f"{name}.log").write_text(" ".join(command) + "\n" + done.stdout + done.stderr)
    return {"exit": done.returncode, "seconds": round(time.perf_counter() - started, 1), "tail": done.stdout[-1500:]}


def suite(asked, name, *more):
    command = [sys.executable, "-m", "pytest", str(ROOT / "suites"), "-q", f"--backend={asked.backend}"]
    command += [f"--model={','.join(asked.models)}", f"--score-images={asked.images}", *shared(asked), *more]
    found = run(asked, name, [*command, f"--report-dir={asked.out / name}"])
    summaries = sorted((asked.out / name).glob("*/summary.json"))
    return {**found, "cases": json.loads(summaries[-1].read_text())["cases"] if summaries else []}


def agreement(asked):
    """Return the suite's times, and those of its engines alone."""
    profile = ["--trt-profile=1:100:100"] if asked.backend == "trt" else []
    found = suite(asked, "agreement", *profile, "--baseline=ignore")
    started = time.perf_counter()
    rows = gpu_agreement.measure(asked.out / "agreement" / "latest", cache=asked.cache, processes=asked.processes)
    return {**found, "rows": rows, "alone_s": round(time.perf_counter() - started, 1)}


def calibrate(asked):
    """Calibrate every case in a process of its own, and join the files that they wrote."""
    asked_for = list(itertools.product(asked.models, asked.precisions))

    def one(place):
        model, precision = place
        folder = asked.out / "calibrations" / f"{model}-{precision}"
        command = [sys.executable, "-m", "harness", "calibrate", f"--backend={asked.backend}", f"--model={model}"]
        command += [f"--precision={precision}", f"--pairs={asked.pairs}", "--builds=1", *shared(asked)]
        command = [word for word in command if not word.startswith("--baseline-dir")]
        return run(asked, f"calibrate-{model}-{precision}", [*command, f"--baseline-dir={folder}"])

    started = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(one, asked_for))
    joined = join(asked)
    return {"seconds": round(time.perf_counter() - started, 1), "runs": found, "files": joined}


def join(asked):
    """Write one calibration of all cases where the night's gate looks for it."""
    from harness.records import TimingCalibration
    from harness.store.timing_calibrations import load_calibration, save_calibration, with_night

    joined: TimingCalibration | None = None
    for path in sorted((asked.out / "calibrations").glob("*/calibrations/*.json")):
        device_type = json.loads(path.read_text())["calibration"]["device_type"]
        joined = with_night(load_calibration(path.parents[1], device_type), joined)
    return str(save_calibration(asked.out / "baselines", joined)) if joined else ""


def spreads(asked):
    from harness.stats.calibrated import case_spreads
    from harness.store.timing_calibrations import load_calibration

    lines = [
        "| case | batch | processes | CV of one | CV of a pair | A/A false (apart, resampled) | +1 % | +2 % | +5 % |",
        "| --- " * 9 + "|",
    ]
    for path in sorted((asked.out / "baselines" / "calibrations").glob("*.json")):
        device_type = json.loads(path.read_text())["calibration"]["device_type"]
        for one in case_spreads(load_calibration(asked.out / "baselines", device_type)):
            null, *planted = one.caught
            power = [f"{c.n_called}/{c.n_tried}, {c.n_resampled_called}/{c.n_resampled}" for c in planted]
            lines.append(
                f"| {one.case_id} | {one.batch_size} | {one.n_processes} | {100 * one.process_cv:.2f} % | "
                f"{100 * one.paired_cv:.3f} % | {null.n_called}/{null.n_tried}, {null.n_resampled_called}/"
                f"{null.n_resampled} | {' | '.join(power)} |"
            )
    return lines


def night_lines(result):
    lines = ["| case | status | p50 us (1, 100) | speed-up | latency verdicts |", "| --- " * 5 + "|"]
    for case in result["cases"]:
        timed = case.get("latency") or {}
        p50 = ", ".join(f"{found['p50_ns'] / 1e3:.2f}" for found in timed.values() if found.get("p50_ns"))
        speed = ", ".join(f"{found['speedup']:.2f}" for found in timed.values() if found.get("speedup"))
        told = [v["message"] for v in case.get("verdicts", ()) if v["gate"] == "latency"]
        lines.append(f"| {case['id']} | {case['status']} | {p50} | {speed} | {' / '.join(told)} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="trt")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("/tmp/harness-gpu-cache"))
    parser.add_argument("--models", default="lenet5,mobilenet_digits,mlp")
    parser.add_argument("--precisions", default="fp32,fp16,int8")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--processes", type=int, default=3, help="of every engine that is timed alone")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--max-slowdown", default="")
    parser.add_argument("--scoring", default="", help="script that measures scoring, with its arguments")
    parser.add_argument("--stages", default="accept,night,calibrate,judged,scoring")
    asked = parser.parse_args()
    asked.out = asked.out.resolve()
    asked.out.mkdir(parents=True, exist_ok=True)
    asked.models, asked.precisions = asked.models.split(","), asked.precisions.split(",")
    limit = [f"--max-slowdown={asked.max_slowdown}"] if asked.max_slowdown else []
    results = {}
    stages = {
        "accept": lambda: suite(asked, "accept", "--update-baselines"),
        "calibrate": lambda: calibrate(asked),
        "night": lambda: suite(asked, "night", *limit),
        "judged": lambda: suite(asked, "judged", *limit),
        "agreement": lambda: agreement(asked),
        "scoring": lambda: run(asked, "scoring", [sys.executable, *asked.scoring.split()]) if asked.scoring else {},
    }
    for stage in asked.stages.split(","):
        results[stage] = stages[stage]()
        (asked.out / "gpu_times.json").write_text(json.dumps(results, indent=1))
        print(f"== {stage}: {results[stage].get('seconds')} s, exit {results[stage].get('exit')}", flush=True)
    for stage in ("accept", "night", "judged", "agreement"):
        if results.get(stage, {}).get("cases"):
            print(f"\n**{stage}**\n", *night_lines(results[stage]), sep="\n")
            print(results[stage]["tail"][-700:])
    if "agreement" in results:
        print("\n**agreement**\n", *gpu_agreement.lines_of(results["agreement"]["rows"]), sep="\n")
    if "calibrate" in results:
        print("\n**calibrate**\n", *spreads(asked), sep="\n")
        median_s = statistics.median(one["seconds"] for one in results["calibrate"]["runs"])
        print(f"{median_s} s a case, {results['calibrate']['seconds']} s in all")
        print(results["calibrate"]["runs"][0]["tail"][-900:])
    if results.get("scoring"):
        print("\n**scoring**\n", results["scoring"]["tail"])


if __name__ == "__main__":
    main()
