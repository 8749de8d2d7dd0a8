"""A fleet judges whatever a single run judges: metrics, drift, costs, pairs of processes, waivers, what did not run."""

import random
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from comparison_records import latency_with
from fleet_records import GATES, TYPES, by_shard, case_record, plan_of, shard_run
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_records import class_scores, sample_record

from harness.fleet.writing import merge_folders
from harness.gates import JudgeOptions, judge_records
from harness.records import (
    EngineFacts,
    Outcome,
    PackedArray,
    Replay,
    SampleScores,
    Status,
    TensorDrift,
    Throughput,
    TimingBasis,
)
from harness.specs import Precision, Tolerance, Waiver
from harness.store.baselines import BaselineStore
from harness.store.runs import BASELINES_FOLDER, RunStore
from harness.store.shard_plans import read_plan, write_plan

N_BUILDS = 8
FACTS = EngineFacts(
    build_ns=100_000_000,
    batch_sizes=(1,),
    engine_bytes=1_000_000,
    host_peak_bytes=200_000_000,
    cache="miss",
    options={"threads": "1"},
    versions={"onnxruntime": "1.31.1"},
)
TOLERANCE = Tolerance(
    max_slowdown=0.05, max_drift=0.05, max_build_slowdown=0.2, max_engine_growth=0.05, max_memory_growth=0.05
)
WAIVER = Waiver(case="images-*", gate="baseline", reason="known", link="https://tracker/1", expires="2026-12-31")
PRECISIONS = (Precision.FP32, Precision.INT8)
PLAIN = dict.fromkeys(("lost", "slow", "built", "grown", "drift", "fate"), 0)


def of_images(device, precision, told):
    wrong = range(20 * told["lost"] * (precision is Precision.INT8))
    record = case_record("images", precision, device, wrong=wrong, waivers=(WAIVER,) if told["fate"] == 1 else ())
    ratio = 1 + 0.1 * told["slow"]
    pairs = np.log(ratio) + np.linspace(-0.002, 0.002, 16)
    replay = Replay(
        batch_size=1,
        alpha=1e-4,
        log_ratios=PackedArray.of(pairs),
        candidate_ns=PackedArray.of(np.full(16, 100.0 * ratio)),
        control_ns=PackedArray.of(np.full(16, 100.0)),
    )
    return replace(
        record,
        latencies=(latency_with([100.0 * ratio] * 20),),
        replays=(replay,) if told["slow"] else (),
        timing_basis=TimingBasis(calibrated_at="2026-11-20", planted_slower=0.2, planted_faster=-0.2),
        throughput=(throughput(),),
        unsupported="no such kernel" if told["fate"] == 2 and precision is Precision.INT8 else "",
        error="the worker crashed" if told["fate"] == 3 and precision is Precision.INT8 else "",
    )


def throughput():
    return Throughput(
        batch_size=1,
        concurrency=2,
        how="threads over one session",
        clock="host",
        window="compute",
        rounds_images_per_s=PackedArray.of(np.full(6, 1e4)),
        latencies_ns=PackedArray.of(np.full(9, 2e5)),
        n_runs=9,
    )


def of_metric(device, precision, told):
    scores = class_scores(600, wrong=range(15 * told["lost"] * (precision is Precision.INT8)))
    return sample_record(scores, precision=precision)


def of_drift(device, precision, told):
    scores = SampleScores(task="raw", source="seeded", fingerprint="f" * 64, ids=tuple(map(str, range(32))))
    record = sample_record(scores, precision=precision)
    if precision is Precision.FP32:
        return record
    relative = np.full(32, 0.02 + 0.03 * told["drift"])
    drift = TensorDrift(
        output="y",
        against="drift-ort-fp32",
        n_samples=32,
        max_abs=1.0,
        rmse=0.1,
        cosine=0.9,
        agreement=None,
        n_reshaped=0,
        relative=PackedArray.of(relative),
    )
    return replace(record, tensor_drifts=(drift,))


KINDS = {"images": of_images, "metric": of_metric, "drift": of_drift}


def night_of(told):
    """All records of a night: `told` says of each kind of model on each type of device what became of it."""
    records = []
    for (kind, device), values in told.items():
        for precision in PRECISIONS:
            made = KINDS[kind](device, precision, values)
            facts = replace(
                FACTS,
                build_ns=FACTS.build_ns * (1 + values["built"]),
                engine_bytes=FACTS.engine_bytes + 40_000 * values["grown"],
                host_peak_bytes=FACTS.host_peak_bytes + 8_000_000 * values["grown"],
            )
            records.append(
                replace(
                    made,
                    case=replace(made.case, model=kind),
                    environment=TYPES[device],
                    engine=None if made.unsupported else facts,
                    artifact=None if made.unsupported else made.artifact,
                    accuracy=None if made.unsupported else made.accuracy,
                    latencies=() if made.unsupported else made.latencies,
                    baseline_parts=("predictions", "times") if made.unsupported else (),
                    tolerance=replace(TOLERANCE, alpha=made.tolerance.alpha, max_drop=made.tolerance.max_drop),
                )
            )
    return records


def accepted_store(folder):
    """The baselines of a night in which all held, of builds that scatter a little."""
    store = BaselineStore(folder)
    good = night_of({(kind, device): PLAIN for kind in KINDS for device in TYPES})
    for number in range(N_BUILDS):
        passed = [
            replace(
                record,
                status=Status.PASSED,
                engine=replace(record.engine, build_ns=100_000_000 + 500_000 * number),
            )
            for record in good
        ]
        store.accept(passed, accepted_by="someone", accepted_at=f"2026-11-1{number}T00:00:00+00:00")
    return store


STORE = accepted_store(Path(tempfile.mkdtemp(prefix="accepted-")))


def ledger(records):
    return {
        record.key: (record.status, record.reason, record.loss_split, record.times_void, record.verdicts)
        for record in records
        if not record.is_reference
    }


NIGHTS = st.fixed_dictionaries(
    {
        (kind, device): st.fixed_dictionaries({name: st.integers(0, 3) for name in PLAIN})
        for kind in KINDS
        for device in TYPES
    }
)


def cut(records, seed):
    """The shards of a night in some cut and order, some of them more than once."""
    generator = random.Random(seed)
    groups = {}
    for record in records:
        groups.setdefault((record.environment.device_type, generator.randrange(3)), []).append(record)
    order = [*range(len(groups)), *generator.choices(range(len(groups)), k=2)]
    return list(groups.values()), generator.sample(order, len(order))


def write_shards(root, records, groups, order):
    write_plan(plan_of(groups, digest=""), root / "shards.json")
    digest = read_plan(root / "shards.json").digest
    folders = []
    for copy, number in enumerate(order):
        group = groups[number]
        there = {record.case for record in group}
        beside = [
            replace(record, is_reference=True)
            for record in records
            if record.case.is_source
            and record.case not in there
            and record.environment.device_type == group[0].environment.device_type
        ]
        shard = shard_run(number, group, id=f"run-{number}-{copy}", baseline_dir=str(STORE.root))
        run = replace(shard.run, shard=replace(shard.run.shard, plan=digest))
        store = RunStore(root / "shards", run)
        STORE.copy_to(store.folder / BASELINES_FOLDER, group)
        store.finish(run, [*group, *beside], summary=b"{}")
        folders.append(store.folder)
    return folders


@given(told=NIGHTS, seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_a_merged_run_judges_all_that_a_single_run_judges(told, seed):
    records = night_of(told)
    groups, order = cut(records, seed)
    stored, errors = STORE.load_for(records)
    assert not errors
    alone = judge_records(records, stored, JudgeOptions(gates=frozenset(GATES), stored_in=str(STORE.root)))
    with tempfile.TemporaryDirectory(prefix="merged-") as name:
        root = Path(name)
        merged = merge_folders(write_shards(root, records, groups, order), root / "shards.json", root / "night")
    assert not merged.run.notes[1:], "nothing is refused or missing"
    assert ledger(merged.records) == ledger(alone)


def test_every_kind_can_be_seen_to_fail_in_a_merged_run(tmp_path):
    bad = {**dict.fromkeys(PLAIN, 3), "fate": 0}
    records = night_of({(kind, device): bad for kind in KINDS for device in TYPES})
    groups = by_shard(records)
    folders = write_shards(tmp_path, records, groups, range(len(groups)))
    merged = merge_folders(folders, tmp_path / "shards.json", tmp_path / "night")
    red = {v.gate for record in merged.records for v in record.verdicts if v.outcome is Outcome.REGRESSED}
    assert red >= {"baseline", "metric", "metric_baseline", "drift", "latency", "buildtime", "enginesize", "memory"}
