"""The suite's medians beside each engine timed alone in fresh processes, and beside trtexec's figures.

    PYTHONPATH=. python benchmarks/gpu_agreement.py RUN_FOLDER [--processes=3] [--extension-dir=DIR]

Takes the engines of a run from where it left them; `benchmarks/gpu_times.py --stages=agreement` makes such a run first.
Every process loads one engine and times it, at once or after it has inferred (`after infer`); processes start side by
side, but one at a time measures. trtexec's figures are of TensorRT 8.6, `--useCudaGraph`, on an H100, with plans of one
profile, batch 1 to 100 tuned for 100; they are scaled by FP32's own ratio, because another card has another speed.
"""

import argparse
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.machine.turns import turn_on
from harness.models import load_card
from harness.protocols import no_progress
from harness.records import InvarianceCheck
from harness.run.arms import Arm, loading, open_arm
from harness.run.case_worker import WorkerSettings
from harness.specs import BuildOptions, DatasetRequest, StageLimits, TimingPlan
from harness.stats import round_medians
from harness.store.runs import load_run
from harness.worker.requests import CaseRequest, Prepared

ROOT = Path(__file__).parents[1]
TRTEXEC_US = {  # model -> precision -> batch -> median [us]
    "lenet5": {"fp32": {1: 47.65, 100: 60.4}, "fp16": {1: 31.3, 100: 38.2}, "int8": {1: 30.9, 100: 41.0}},
    "mobilenet_digits": {"fp32": {1: 49.5, 100: 60.0}, "fp16": {1: 35.7, 100: 44.8}, "int8": {1: 43.0, 100: 49.5}},
    "mlp": {"fp32": {1: 19.8, 100: 21.7}, "fp16": {1: 12.8, 100: 14.6}, "int8": {1: 14.1, 100: 17.0}},
}
SAME = 0.005  # the same engine, however it is timed
LIKE_TRTEXEC = 0.01  # after scaling
AT_ONCE = 6
WAYS = ("fresh", "after infer")
N_ROUNDS = 20


def median_us(rounds_ns):
    return float(statistics.median(round_medians(rounds_ns).tolist())) / 1e3


def request_of(record, cache):
    """Return what loads the engine of a record."""
    request = CaseRequest(
        case=record.case,
        model=load_card(ROOT / "models" / f"{record.case.model}.toml"),
        data=DatasetRequest(),
        build=BuildOptions(cache_dir=str(cache)),
        timing=TimingPlan(batch_sizes=tuple(latency.batch_size for latency in record.latencies)),
    )
    return loading(request, Prepared(support=None, artifact=record.artifact, engine=record.engine))


def timed_alone(request, way, settings, name):
    """Return the medians of one process [us], by batch size."""
    with open_arm(Arm(request=request, settings=settings, name=name)) as process:
        if way == "after infer":
            process.call("invariance", request, tuple[InvarianceCheck, ...])
        with turn_on(request.case.device):
            found = {}
            for arm in process.timed(request.timing.batch_sizes):
                arm.warm_up()
                rounds = [arm.round().samples_ns.array() for _ in range(N_ROUNDS)]
                found[arm.facts.batch_size] = statistics.median(median_us(samples) for samples in rounds)
    return found


def measure(folder, *, cache, processes=3, extension_dirs=()):
    """Return one row of every timed engine and batch size of a run."""
    records = [record for record in load_run(folder)[1] if record.latencies and not record.is_reference]
    asked = [(record, way, index) for index in range(processes) for record in records for way in WAYS]
    with tempfile.TemporaryDirectory() as logs, ThreadPoolExecutor(AT_ONCE) as pool:
        settings = WorkerSettings(
            log_dir=Path(logs),
            python=sys.executable,
            extension_dirs=tuple(extension_dirs),
            limits=StageLimits(),
            progress=lambda what: no_progress,
        )
        found = list(
            pool.map(
                lambda one: timed_alone(
                    request_of(one[0], cache), one[1], settings, f"{one[0].case.id}-{WAYS.index(one[1])}-{one[2]}"
                ),
                asked,
            )
        )
    return [
        row_of(record, latency, list(zip(asked, found, strict=True)), records)
        for record in records
        for latency in record.latencies
    ]


def row_of(record, latency, found, records):
    case, batch = record.case, latency.batch_size
    row = {"model": case.model, "precision": case.precision.value, "recipe": case.recipe, "batch": batch}
    row["suite"] = median_us(latency.rounds_ns.array())
    for way in WAYS:
        row[way] = [times[batch] for (other, how, _), times in found if (other is record) and how == way]
    row["as reference"] = [
        median_us(other.reference_rounds_ns.array())
        for beside in records
        for other in beside.latencies
        if other.reference_case == case.id and other.batch_size == batch
    ]
    return row


def off(value, other):
    """Return by what a time is above another [fraction]."""
    return value / other - 1


def with_trtexec(rows):
    """Return rows with trtexec's figure, scaled by FP32's ratio of the same net and batch."""
    fp32 = {(row["model"], row["batch"]): row["suite"] for row in rows if row["precision"] == "fp32"}
    joined = []
    for row in rows:
        figures = TRTEXEC_US.get(row["model"], {})
        theirs = figures.get(row["precision"], {}).get(row["batch"])
        ours = fp32.get((row["model"], row["batch"]))
        scaled = theirs and ours and theirs * ours / figures["fp32"][row["batch"]]
        joined.append({**row, "trtexec": theirs, "scaled": scaled})
    return joined


def spread(values):
    """Return values as `median (spread %)`."""
    if not values:
        return "–"
    middle = statistics.median(values)
    return f"{middle:.2f} ({100 * (max(values) - min(values)) / middle:.1f} %)"


def share(value):
    return "–" if value is None else f"{100 * value:+.2f} %"


HEAD = (
    "| engine | batch | suite [us] | alone, fresh [us] | suite is off | after infer [us] | as FP32 of others [us] | "
    "trtexec, scaled [us] | suite is off |"
)


def lines_of(rows):
    """Return the table as Markdown, and what it comes to."""
    lines, same, like = [HEAD, "| --- " * 9 + "|"], {}, {}
    for row in with_trtexec(rows):
        name = f"{row['model']} {row['precision']} {row['recipe']}".removesuffix(" none")
        suite, alone, scaled = row["suite"], statistics.median(row["fresh"]), row["scaled"]
        others = (suite, *row["after infer"], *row["as reference"])
        same[name, row["batch"]] = max((off(value, alone) for value in others), key=abs)
        theirs = None if scaled is None else off(suite, scaled)
        if theirs is not None and row["precision"] != "fp32":
            like[name, row["batch"]] = theirs
        cells = [name, row["batch"], f"{suite:.2f}", spread(row["fresh"]), share(off(suite, alone))]
        cells += [spread(row["after infer"]), spread(row["as reference"])]
        cells += ["–" if scaled is None else f"{row['trtexec']:.1f}, {scaled:.2f}", share(theirs)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", *within("the same engine, however timed", same, SAME)]
    return [*lines, *within("trtexec, scaled", like, LIKE_TRTEXEC)]


def within(what, offs, limit):
    """Return how many are within a limit, and which are not."""
    beyond = [f"{name} batch {batch} ({share(value)})" for (name, batch), value in offs.items() if abs(value) > limit]
    if not offs:
        return [f"{what}: nothing to compare with"]
    return [f"{what}: {len(offs) - len(beyond)} of {len(offs)} within {100 * limit:g} %", *beyond]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("/tmp/harness-gpu-cache"))
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--extension-dir", action="append", default=[])
    asked = parser.parse_args()
    rows = measure(asked.folder, cache=asked.cache, processes=asked.processes, extension_dirs=asked.extension_dir)
    print("\n".join(lines_of(rows)))


if __name__ == "__main__":
    main()
