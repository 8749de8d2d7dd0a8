"""History in Parquet: every run leaves a night, and one case's series is read out of years of them."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from comparison_records import ENVIRONMENT, accuracy_with, latency_with, record_with
from render_records import make_run
from sample_records import text_scores
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import ConfigError, DataError
from harness.records import EngineFacts, PackedArray, TensorDrift, Throughput
from harness.report.plots import format_metric, metric_name
from harness.specs import Precision
from harness.store.all_series import read_changes
from harness.store.history import Metric, Step, load_history, steps_of
from harness.store.nights import FOLDER, read_series, values_of, write_night
from harness.store.runs import RunStore

pytest.importorskip("pyarrow", reason="the extra `history` is not installed")
pytest.importorskip("duckdb", reason="the extra `history` is not installed")

CASE = "lenet5-ort-fp32"
P50 = Metric(name="p50_ns", batch_size=1)
GPU = replace(ENVIRONMENT, device="cuda:0", device_name="NVIDIA H100", driver="580.65")


def night_of(number, *, slow=1.0, environment=ENVIRONMENT, wrong=(), n=1_000, fingerprint="f" * 64, **versions):
    """A run of one night and its one record."""
    run, _ = make_run(1)
    begun = f"2026-{1 + number // 28:02}-{1 + number % 28:02}T01:00:00+00:00"
    run = replace(run, id=f"run{number:03}-{environment.device_name[:3]}", started_at=begun)
    environment = replace(environment, versions={**environment.versions, **versions})
    generator = np.random.default_rng(number)
    times = latency_with(medians=1000 * slow * generator.normal(1, 0.005, 20))
    scores = replace(accuracy_with(n=n, wrong=wrong), fingerprint=fingerprint)
    engine = EngineFacts(build_ns=1, engine_bytes=4096, cache="hit")
    return run, [record_with(scores, environment=environment, latencies=(times,), engine=engine)]


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    """40 nights on two types of device; the GPU is slower from night 25 on, when its driver changed."""
    folder = tmp_path_factory.mktemp("nights")
    for number in range(40):
        write_night(folder, *night_of(number))
        late = number >= 25
        gpu = replace(GPU, driver="580.82" if late else "580.65")
        write_night(folder, *night_of(number, slow=1.05 if late else 1.0, environment=gpu))
    return folder


def test_a_case_has_a_series_on_every_type_of_device_with_its_own_steps(nights):
    found = read_series(nights, CASE)
    assert list(found) == [GPU.device_type, ENVIRONMENT.device_type]
    cpu, gpu = found[ENVIRONMENT.device_type], found[GPU.device_type]
    assert len(cpu.runs) == len(gpu.runs) == 40
    assert cpu.steps == ()
    (step,) = gpu.steps
    assert (step.metric, gpu.runs[step.run_index].id) == (P50, "run025-NVI")
    assert step.changed == {"driver": ("580.65", "580.82")}
    assert step.is_worse
    assert list(read_series(nights, CASE, device="H100")) == [GPU.device_type]
    with pytest.raises(DataError, match="on a device type like H200"):
        read_series(nights, CASE, device="H200")
    assert set(gpu.series(CASE)) == {Metric(name="top1"), P50, Metric(name="engine_bytes")}


def test_the_newest_runs_and_those_until_a_moment_are_taken(nights):
    assert len(read_series(nights, CASE, last=7)[GPU.device_type].runs) == 7
    early = read_series(nights, CASE, until="2026-01-20T23:00:00+00:00")[GPU.device_type]
    assert len(early.runs) == 20
    assert early.steps == ()


def test_a_night_written_again_replaces_itself(tmp_path):
    for slow in (1.0, 2.0):
        path = write_night(tmp_path, *night_of(3, slow=slow))
    assert [*tmp_path.glob("*/*.parquet")] == [path]
    assert path.parent.name == "night=2026-01-04"
    (history,) = read_series(tmp_path, CASE).values()
    assert history.values[P50].shape == (1, 1)
    assert history.values[P50][0, 0] == pytest.approx(2000, rel=0.01)


def test_accuracies_on_other_images_than_the_newest_are_left_out_and_told(tmp_path):
    write_night(tmp_path, *night_of(1, fingerprint="e" * 64, wrong=range(500)))
    write_night(tmp_path, *night_of(2, wrong=[1]))
    (history,) = read_series(tmp_path, CASE).values()
    assert np.isnan(history.values[Metric(name="top1")][0, 0])
    assert history.values[Metric(name="top1")][0, 1] == 0.999
    assert "1 older accuracies are left out" in history.notes[0]


def test_what_models_of_any_graph_score_and_all_costs_are_followed_too(tmp_path):
    run, (record,) = night_of(1)
    drift = TensorDrift(
        output="y",
        against=CASE.replace("fp32", "int8"),
        n_samples=9,
        max_abs=1.0,
        rmse=0.1,
        cosine=0.9,
        agreement=None,
        n_reshaped=0,
        relative=PackedArray.of(np.full(9, 0.02)),
    )
    case = replace(record.case, precision=Precision.INT8, recipe="qdq-minmax")
    engine = EngineFacts(build_ns=7, engine_bytes=4096, host_peak_bytes=10**8, device_memory_bytes=10**6, cache="hit")
    rate = Throughput(
        batch_size=8,
        concurrency=2,
        how="threads",
        clock="host",
        window="compute",
        rounds_images_per_s=PackedArray.of(np.full(6, 5e3)),
        latencies_ns=PackedArray.of(np.full(9, 2e5)),
        n_runs=9,
    )
    told = replace(
        record,
        case=case,
        accuracy=None,
        samples=text_scores([1, 0, 0, 2], metric="CER"),
        tensor_drifts=(replace(drift, against=CASE), drift),
        throughput=(rate,),
        engine=engine,
    )
    write_night(tmp_path, run, [told])
    (history,) = read_series(tmp_path, case.id).values()
    values = {metric_name(metric): float(table[0, 0]) for metric, table in history.values.items()}
    del values["latency p50, batch 1"]
    assert values == {
        "exact match": 0.5,
        "CER": 3 / 40,
        "edit distance": 0.75,
        "drift from FP32 y": 0.02,
        "throughput, batch 8": 5e3,
        "engine size": 4096,
        "peak host memory": 1e8,
        "device memory": 1e6,
    }
    texts = [format_metric(metric, float(table[0, 0])) for metric, table in history.values.items()]
    assert {"0.075", "2 %", "5,000 images/s"} <= set(texts)


@pytest.mark.parametrize(("name", "is_worse"), [("score", False), ("error", True), ("images_per_s", False)])
def test_a_step_is_worse_by_what_its_number_is(name, is_worse):
    step = Step(case_id=CASE, metric=Metric(name=name), run_index=1, before=1.0, after=2.0)
    assert step.is_worse is is_worse


def test_times_that_are_none_are_no_value():
    broken = latency_with(medians=[np.nan] * 20)
    assert values_of(record_with(latencies=(broken,), engine=None)) == ()
    assert values_of(record_with(engine=None)) == ()
    values = {value.metric: value.value for value in values_of(night_of(0)[1][0])}
    assert values[Metric(name="top1")] == 1.0
    assert values[Metric(name="engine_bytes")] == 4096


def test_a_run_of_nothing_leaves_no_night(tmp_path):
    run, _ = make_run(1)
    assert write_night(tmp_path, run, []) is None
    assert write_night(tmp_path, run, [record_with(is_reference=True)]) is None


def test_every_run_but_a_shard_writes_its_night_and_the_summaries_tell_the_same(tmp_path):
    from harness.records import ShardOrigin
    from harness.report.rows import rows_from_records
    from harness.report.summary import summary_bytes

    for number in range(3):
        run, records = night_of(number)
        RunStore(tmp_path, run).finish(run, records, summary=summary_bytes(run, rows_from_records(records)))
    shard = replace(night_of(4)[0], shard=ShardOrigin(plan="d", number=0))
    RunStore(tmp_path, shard).finish(shard, night_of(4)[1], summary=b"{}")
    assert len([*(tmp_path / FOLDER).glob("*/*.parquet")]) == 3
    (parquet,) = read_series(tmp_path / FOLDER, CASE).values()
    (tmp_path / shard.id / "summary.json").unlink()
    summaries = load_history(tmp_path)
    for metric, table in parquet.values.items():
        assert table[0] == pytest.approx(summaries.values[metric][0])


def test_without_the_extra_runs_end_as_ever_and_the_command_reads_their_summaries(tmp_path, monkeypatch):
    from harness.report.rows import rows_from_records
    from harness.report.summary import summary_bytes

    monkeypatch.setattr("harness.store.nights.has_parquet", lambda: False)
    monkeypatch.setattr("harness.fleet.series.has_parquet", lambda: False)
    run, records = night_of(0)
    RunStore(tmp_path, run).finish(run, records, summary=summary_bytes(run, rows_from_records(records)))
    assert not (tmp_path / FOLDER).exists()
    told = CliRunner().invoke(app, ["history", CASE, "--reports", str(tmp_path)])
    assert told.exit_code == 0, told.output
    assert told.output.splitlines()[0] == f"{CASE}: 1 run, 2026-01-01 to 2026-01-01"
    missing = CliRunner().invoke(app, ["history", "mlp", "--reports", str(tmp_path)])
    assert (missing.exit_code, "no run with a case mlp" in missing.output) == (2, True)


def test_without_duckdb_the_remedy_is_named(nights, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ConfigError, match=r"pip install 'nn-engine-harness\[history\]'"):
        read_series(nights, CASE)


def test_nights_that_are_none_are_named(tmp_path, nights):
    with pytest.raises(DataError, match="holds no nights"):
        read_series(tmp_path, CASE)
    with pytest.raises(DataError, match="has no case mlp-ort-fp32"):
        read_series(nights, "mlp-ort-fp32")
    (tmp_path / "night=2026-01-01").mkdir()
    (tmp_path / "night=2026-01-01" / "run.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="a file of a night is damaged"):
        read_series(tmp_path, CASE)


def test_the_command_says_level_and_changes_on_every_type_of_device(nights, tmp_path):
    (tmp_path / FOLDER).symlink_to(nights, target_is_directory=True)
    told = CliRunner().invoke(app, ["history", CASE, "--reports", str(tmp_path)])
    assert told.exit_code == 0, told.output
    lines = told.output.splitlines()
    assert lines[0] == f"{CASE} on NVIDIA H100: 40 runs, 2026-01-01 to 2026-02-12"
    assert any(line.startswith("  latency p50, batch 1: ") for line in lines)
    (change,) = [line for line in lines if "worse since" in line]
    assert change.startswith("    worse since 2026-01-26 (run run025-NVI): ")
    assert change.endswith("; driver 580.65 -> 580.82")
    assert sum("no lasting change" in line for line in lines) == 5


def test_all_series_are_looked_through_at_once_and_find_what_each_alone_does(nights, tmp_path):
    found = read_changes(nights)
    assert (found.n_series, len(found.nights)) == (6, 40)
    (change,) = found.changes
    assert (change.device_type, change.night, change.step.metric) == (GPU.device_type, "2026-01-26", P50)
    (alone,) = read_series(nights, CASE)[GPU.device_type].steps
    assert change.step == replace(alone, changed={})
    assert change.ratio == pytest.approx(1.05, abs=0.01)
    assert read_changes(nights, last=16).changes == (), "too few nights of the old level"
    assert read_changes(nights, device=ENVIRONMENT.device_type).changes == ()
    (tmp_path / FOLDER).symlink_to(nights, target_is_directory=True)
    told = CliRunner().invoke(app, ["history", "--reports", str(tmp_path)])
    lines = told.output.splitlines()
    assert lines[0] == "6 series over 40 nights, 2026-01-01 to 2026-02-12: 1 lasting change"
    assert lines[1].startswith(f"  2026-01-26 worse: {CASE} on NVIDIA H100, latency p50, batch 1: ")
    with pytest.raises(DataError, match="holds no nights"):
        read_changes(tmp_path)


def test_accuracies_on_other_images_are_no_change_of_all_series(tmp_path):
    for number in range(20):
        early = number < 10
        write_night(tmp_path, *night_of(number, fingerprint="ef"[early] * 64, wrong=range(5 + 200 * early)))
    assert [one.step.metric.name for one in read_changes(tmp_path).changes] == []


def test_a_night_says_what_may_explain_a_change(tmp_path):
    from pyarrow import parquet

    path = write_night(tmp_path, *night_of(0, environment=GPU, tensorrt="11.0"))
    (versions, *_) = set(parquet.read_table(path).column("versions").to_pylist())
    assert json.loads(versions)["tensorrt"] == "11.0"
    assert json.loads(versions)["driver"] == "580.65"


def test_a_broken_record_costs_its_own_value_only(tmp_path):
    run, (record,) = night_of(0)
    zero = replace(record.latencies[0], rounds_ns=PackedArray.of(np.zeros((20, 3))))
    write_night(tmp_path, run, [replace(record, latencies=(zero,))])
    (history,) = read_series(tmp_path, CASE).values()
    assert set(history.values) == {Metric(name="top1"), Metric(name="engine_bytes")}


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.2), (0.001, 0.011)])
@pytest.mark.parametrize("n_samples", [np.nan, 32.0])
def test_a_drift_that_begins_at_little_or_nothing_is_a_lasting_change(before, after, n_samples):
    drift = Metric(name="drift", of="y")
    table = np.array([[before] * 14 + [after] * 10])
    assert steps_of(drift, table, np.array([n_samples])) == [[14]]
