"""How long a fleet's night takes to merge, to judge and to keep, and how much memory: on synthetic shards.

    python benchmarks/fleet.py RUN [--cases 20000] [--devices 20] [--folder DIR]

RUN is a real run of a few models in FP32, FP16 and INT8 on ONNX Runtime. Its records are resampled: of each variant,
the images of a class are drawn anew from that class, the same ones for FP32, INT8 and emulation, so that pairs stay
pairs; rounds of times are drawn anew from the rounds. A model of the fleet is one of the variants under another name. A
shard is a folder with all its records and the baselines it was compared with, as `pytest suites/ --shard=K` leaves it.
Each step runs in a fresh process; CPU seconds are told beside those of the clock, for a machine that others use too.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from harness.gates import list_gates  # noqa: E402
from harness.records import PackedArray, Record, Run, ShardOrigin, Status  # noqa: E402
from harness.stats import (  # noqa: E402
    cases_that_could_alarm,
    clopper_pearson_interval,
    holm_p,
    mcnemar_p,
    smallest_p,
)
from harness.store.baselines import BaselineStore  # noqa: E402
from harness.store.nights import ROWS_A_GROUP  # noqa: E402
from harness.store.runs import BASELINES_FOLDER, RunStore, load_run  # noqa: E402
from harness.store.shard_plans import PlannedShard, ShardPlan, read_plan, write_plan  # noqa: E402

N_VARIANTS = 24
CAPABILITIES = ("8.0", "8.9", "9.0", "10.0")
PLANTED_CAPABILITY, PLANTED_SLOWDOWN = "9.0", 1.04
PLANTED_CASE, PLANTED_LOST = ("model0003-ort-int8", "Synthetic GPU 7"), 60
GATES = tuple(gate.name for gate in list_gates())
MERGE = """
import resource, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from harness.fleet import merge_folders
began = time.perf_counter()
merged = merge_folders([Path(sys.argv[2]) / "shards"], Path(sys.argv[2]) / "shards.json", Path(sys.argv[3]))
took, cpu = time.perf_counter() - began, time.process_time()
others = resource.getrusage(resource.RUSAGE_CHILDREN)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
from harness.store.nights import write_night
began, spent = time.perf_counter(), time.process_time()
path = write_night(Path(sys.argv[3]).parent / "one-night", merged.run, merged.records)
night = time.perf_counter() - began, time.process_time() - spent
from harness.fleet.page import write_fleet_pages
began, spent = time.perf_counter(), time.process_time()
write_fleet_pages(Path(sys.argv[3]), merged.run, merged.records)
page = time.perf_counter() - began, time.process_time() - spent
red = sum(record.status.value in ("failed", "error") for record in merged.records)
print(took, cpu, others.ru_utime + others.ru_stime, peak, len(merged.records), red, *night, path.stat().st_size, *page)
"""
STEPS = """
import resource, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from harness.store.all_series import read_changes
began, spent = time.perf_counter(), time.process_time()
found = read_changes(Path(sys.argv[2]))
took, cpu = time.perf_counter() - began, time.process_time() - spent
others = resource.getrusage(resource.RUSAGE_CHILDREN)
print(took, cpu, others.ru_utime + others.ru_stime, found.n_series, len(found.changes))
"""
SERIES = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from harness.store.nights import read_series
began, spent = time.perf_counter(), time.process_time()
found = read_series(Path(sys.argv[2]), sys.argv[3])
print(time.perf_counter() - began, time.process_time() - spent, len(found), sum(len(h.runs) for h in found.values()))
"""


# -- synthetic shards


def redrawn(packed, order):
    """An array over images, drawn anew."""
    return PackedArray.of(packed.array()[order])


def redrawn_scores(accuracy, order):
    hits = accuracy.predictions.array()[order] == accuracy.labels.array()
    top5 = accuracy.hits(5)[order] | hits
    return replace(
        accuracy,
        predictions=redrawn(accuracy.predictions, order),
        margins=redrawn(accuracy.margins, order),
        top1_hits=PackedArray.of(np.packbits(hits)),
        top5_hits=PackedArray.of(np.packbits(top5)),
    )


def redrawn_times(latency, generator):
    rounds = latency.rounds_ns.array()
    order = generator.integers(0, len(rounds), len(rounds))
    reference = latency.reference_rounds_ns
    return replace(
        latency,
        rounds_ns=redrawn(latency.rounds_ns, order),
        reference_rounds_ns=None if reference is None else redrawn(reference, order),
    )


def variant_of(records, seed):
    """The records of one model, resampled together."""
    generator = np.random.default_rng(seed)
    labels = records[0].accuracy.labels.array()
    order = np.arange(len(labels))
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        order[places] = generator.choice(places, len(places))
    return [
        replace(
            record,
            accuracy=redrawn_scores(record.accuracy, order),
            emulation=None if record.emulation is None else redrawn_scores(record.emulation, order),
            latencies=tuple(redrawn_times(latency, generator) for latency in record.latencies),
            verdicts=(),
            loss_split=None,
        )
        for record in records
    ]


def environment_on(environment, device: int):
    """The environment of a type of device of the fleet: half are CPUs, the others GPUs of four architectures."""
    if device % 2 == 0:
        name = f"Synthetic CPU {device}"
        return replace(environment, cpu_model=name, device_name=name)
    capability = CAPABILITIES[device // 2 % len(CAPABILITIES)]
    return replace(
        environment,
        device="cuda:0",
        device_name=f"Synthetic GPU {device}",
        compute_capability=capability,
        driver="580.65.06",
        fast_precisions=("fp16", "int8"),
    )


def moved_to(records: list[Record], *, model: str, device: int) -> list[Record]:
    """The records of one model as those of another, on another device; a baseline of predictions serves all CPUs."""
    environment = environment_on(records[0].environment, device)
    return [
        replace(
            record,
            case=replace(record.case, model=model, device=environment.device),
            artifact=replace(record.artifact, model=model),
            environment=environment,
            latencies=tuple(
                replace(x, reference_case=x.reference_case.replace(record.case.model, model)) for x in record.latencies
            ),
        )
        for record in records
    ]


def planted(record: Record) -> Record:
    """A record of the night: one case has lost images, and one architecture is slower with a new driver."""
    if record.environment.compute_capability == PLANTED_CAPABILITY:
        slower = tuple(
            replace(x, rounds_ns=PackedArray.of(x.rounds_ns.array() * PLANTED_SLOWDOWN)) for x in record.latencies
        )
        environment = replace(record.environment, driver="580.82.07")
        record = replace(record, latencies=slower, environment=environment)
    if (record.case.id, record.environment.device_name) == PLANTED_CASE:
        labels, predictions = record.accuracy.labels.array(), record.accuracy.predictions.array().copy()
        lost = np.flatnonzero(labels == predictions)[:PLANTED_LOST]
        predictions[lost] = (predictions[lost] + 1) % record.accuracy.num_classes
        hits = PackedArray.of(np.packbits(labels == predictions))
        scores = replace(record.accuracy, predictions=PackedArray.of(predictions), top1_hits=hits)
        record = replace(record, accuracy=replace(scores, outputs_sha256="0" * 64))
    return record


def variants_of(records: list[Record]) -> list[list[Record]]:
    by_model: dict[str, list[Record]] = {}
    for record in records:
        if record.case.backend == "ort" and not record.is_reference:
            by_model.setdefault(record.case.model, []).append(record)
    models = list(by_model)
    return [variant_of(by_model[models[seed % len(models)]], seed) for seed in range(N_VARIANTS)]


def write_fleet(run: Run, records: list[Record], folder: Path, *, n_cases: int, n_devices: int) -> int:
    """Write the plan and the shards of a fleet, and return the number of its cases."""
    os.fsync = lambda descriptor: None  # of a hundred thousand small files; what is measured runs in other processes
    variants = variants_of(records)
    n_models = max(1, n_cases // (n_devices * len(variants[0])))
    shards, parts = [], []
    for device in range(n_devices):
        for model in range(n_models):
            name = f"model{model:04}"
            moved = moved_to(variants[model % len(variants)], model=name, device=device)
            shards.append(
                PlannedShard(
                    number=len(shards),
                    device=f"device{device}",
                    device_type=moved[0].environment.device_type,
                    model=name,
                    run={},
                    cases=tuple(record.case for record in moved),
                    fingerprint=moved[0].accuracy.fingerprint,
                )
            )
            parts.append(moved)
    write_plan(ShardPlan(commit=run.environment.commit, shards=tuple(shards), baseline="auto"), folder / "shards.json")
    digest = read_plan(folder / "shards.json").digest
    accepted = BaselineStore(folder / "accepted")
    for moved in parts:
        passed = [replace(record, status=Status.PASSED) for record in moved]
        accepted.accept(passed, accepted_by="benchmark", accepted_at="2026-11-20T00:00:00+00:00")
    for shard, before in zip(shards, parts, strict=True):
        moved = [planted(record) for record in before]
        host, number = f"node{shard.number % 97}", shard.number
        cards = {"cuda:0": f"GPU-{number % 40:04}"} if moved[0].case.device != "cpu" else {}
        origin = ShardOrigin(plan=digest, number=number, host=host, device_uuids=cards, is_whole=True)
        header = replace(
            run,
            baseline="auto",
            gates=GATES,
            due_gates=GATES,
            id=f"{number:05}",
            shard=origin,
            environment=replace(moved[0].environment, versions=run.environment.versions),
        )
        store = RunStore(folder / "shards", header)
        store.finish(header, moved, summary=b"{}")
        accepted.copy_to(store.folder / BASELINES_FOLDER, moved)
    return sum(len(moved) for moved in parts)


# -- steps


def in_process(script: str, *arguments: object) -> list[float]:
    """Run a script in a fresh interpreter and return the numbers it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(ROOT), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return [float(word) for word in done.stdout.split()]


def write_nights(one: Path, folder: Path, n_nights: int) -> None:
    """Write that night again and again, each with noise of its own and later."""
    import pyarrow
    from pyarrow import parquet

    (path,) = one.glob("*/*.parquet")
    table = parquet.read_table(path)
    first = table.column("value").to_numpy()
    start = datetime.date(2025, 1, 1)
    for number in range(n_nights):
        day = (start + datetime.timedelta(days=number)).isoformat()
        generator = np.random.default_rng(number)
        values = first * generator.normal(1, 0.01, table.num_rows)  # noise of its own, no random walk
        changed = {
            "value": pyarrow.array(values),
            "run_id": pyarrow.array([f"run{number}"] * table.num_rows),
            "started_at": pyarrow.array([f"{day}T01:00:00+00:00"] * table.num_rows),
        }
        for name, column in changed.items():
            table = table.set_column(table.column_names.index(name), name, column)
        place = folder / f"night={day}"
        place.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, place / "run.parquet", compression="zstd", row_group_size=ROWS_A_GROUP)


def false_red_nights(n_nights: int, n_cases: int, *, alpha: float = 0.001, moved: float = 30.0) -> int:
    """Count nights that are red by chance: of every case as many images are gained as lost, on average `moved`."""
    generator, n_red = np.random.default_rng(0), 0
    for _ in range(n_nights):
        lost, gained = generator.poisson(moved, n_cases), generator.poisson(moved, n_cases)
        p_values = np.array([mcnemar_p(int(a), int(b)) for a, b in zip(lost, gained, strict=True)])
        could = np.asarray(cases_that_could_alarm([smallest_p(int(n), 0) for n in lost + gained], alpha))
        adjusted = np.asarray(holm_p(p_values[could].tolist()))
        n_red += bool(((adjusted <= alpha) & (lost > gained)[could]).any())
    return n_red


def int8_bytes(folder: Path) -> float:
    """The bytes on disk of a case in INT8: its part of the packed records, by the size of its line packed alone."""
    sizes: dict[bool, list[int]] = {True: [], False: []}
    with gzip.open(folder / "records.jsonl.gz") as lines:
        for line in lines:
            sizes[b'"precision":"int8","recipe"' in line[:200]].append(len(zlib.compress(line, 1)))
    return sum(sizes[True]) / len(sizes[True])


def loaded_ms(page: Path) -> float:
    """How long Chromium takes until the page answers: read, laid out, its scripts run; NaN without Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return float("nan")
    probe = "<script>addEventListener('load',()=>setTimeout(()=>{document.title='ms='+performance.now()}))</script>"
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "page.html"
        copy.write_text(page.read_text() + probe)
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{copy}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"ms=([\d.]+)", done.stdout)
    return float(found[1]) if found else float("nan")


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a real run to resample")
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--null-nights", type=int, default=100)
    parser.add_argument("--nights", type=int, default=365)
    parser.add_argument("--folder", type=Path, help="where to put some GB (default: a temporary folder)")
    options = parser.parse_args()
    n_red = false_red_nights(options.null_nights, options.cases)
    low, high = clopper_pearson_interval(n_red, options.null_nights)
    print(
        f"nights of chance: {n_red} of {options.null_nights} red ({low:.2%} to {high:.2%}); stated: 0.05 %", flush=True
    )
    run, records = load_run(options.run)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="fleet-"))
    try:
        if not (folder / "shards.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            n_cases = write_fleet(run, records, folder, n_cases=options.cases, n_devices=options.devices)
            print(f"{n_cases} cases in {len(list((folder / 'shards').iterdir()))} shards", flush=True)
        shutil.rmtree(folder / "night", ignore_errors=True)
        merged = in_process(MERGE, folder, folder / "night")
        seconds, cpu, others, peak, n_records, n_red, night_s, night_cpu_s, n_bytes, page_s, page_cpu_s = merged
        print(f"merge: {seconds:.1f} s ({cpu:.1f} s of CPU in one process, {others:.1f} s on all), {peak / 1e9:.2f} GB")
        print(f"       {n_records:.0f} records, {n_red:.0f} red; planted: 1", flush=True)
        print(f"run folder: {size_of(folder / 'night') / n_records / 1e3:.1f} kB a case")
        print(f"an INT8 case: {int8_bytes(folder / 'night') / 1e3:.1f} kB")
        print(
            f"one night into history: {night_s:.1f} s ({night_cpu_s:.1f} s of CPU), {n_bytes / 1e6:.1f} MB", flush=True
        )
        page = folder / "night" / "index.html"
        print(f"page: {page_s:.1f} s ({page_cpu_s:.1f} s of CPU), {page.stat().st_size / 1e6:.2f} MB", flush=True)
        text = html.unescape(page.read_text())
        named = [PLANTED_CASE[0] in text, f"compute capability {PLANTED_CAPABILITY} since driver 580.65.06 -> " in text]
        print(f"the planted case and the planted architecture are named: {named}")
        print(f"ready to be used in Chromium after {loaded_ms(page):.0f} ms", flush=True)
        write_nights(folder / "one-night", folder / "nights", options.nights)
        took = [in_process(SERIES, folder / "nights", "model0003-ort-int8") for _ in range(3)]
        seconds, cpu, n_devices, n_runs = sorted(took)[1]
        print(f"one case over {options.nights} nights on {n_devices:.0f} device types: {seconds:.2f} s", end="")
        print(f" ({cpu:.2f} s of CPU), {n_runs:.0f} runs", flush=True)
        seconds, cpu, others, n_series, n_changes = in_process(STEPS, folder / "nights")
        print(f"the steps of all {n_series:.0f} series: {seconds:.0f} s ({cpu:.0f} s of CPU in one process, ", end="")
        print(f"{others:.0f} s on all), {n_changes:.0f} found")
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
