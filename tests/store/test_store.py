"""Runs on disk: what is written comes back; damage and newer schemas are named; the link points to the newest."""

import json
import zlib
from dataclasses import replace

import pytest
from render_records import make_run

from harness.errors import ConfigError, DataError
from harness.records import RECORD_SCHEMA, PackedArray, ShardOrigin
from harness.report.rows import rows_from_records
from harness.report.summary import summary_bytes, summary_from_rows
from harness.store.runs import RunStore, load_run, previous_run


@pytest.fixture
def stored(tmp_path):
    run, records = make_run(5)
    store = RunStore(tmp_path, run)
    for record in records:
        store.append(record)
    store.finish(run, records, summary=summary_bytes(run, rows_from_records(records)))
    return store.folder, run, records


def test_a_run_comes_back_as_it_was(stored):
    folder, run, records = stored
    found, again = load_run(folder)
    assert found == run
    assert again == records


def test_records_are_on_disk_before_the_run_ends(tmp_path):
    run, records = make_run(3)
    store = RunStore(tmp_path, run)
    store.append(records[0])
    assert len((store.folder / "records.jsonl").read_text().splitlines()) == 1
    assert load_run(store.folder)[1] == records[:1]


def test_latest_points_to_the_newest(stored, tmp_path):
    assert (tmp_path / "latest").resolve() == stored[0].resolve()


def test_a_damaged_line_is_named(stored):
    folder, _, _ = stored
    lines = (folder / "records.jsonl").read_bytes().splitlines()
    lines[1] = lines[1][:50]
    (folder / "records.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(DataError, match=r"records.jsonl:2: not a Record"):
        load_run(folder)


@pytest.mark.parametrize(("schema", "advice"), [(99, "upgrade the harness"), (1, "run the suite again")])
def test_another_schema_is_refused_in_one_line(stored, schema, advice):
    folder, _, _ = stored
    header = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**header, "schema": schema}))
    with pytest.raises(DataError, match=f"run.json: schema {schema}; this harness reads {RECORD_SCHEMA}; {advice}$"):
        load_run(folder)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no run"):
        load_run(tmp_path)


def test_a_report_dir_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--report-dir"):
        RunStore(tmp_path / "file", make_run(1)[0])


def test_the_summary_has_what_its_page_says(stored):
    folder, run, records = stored
    summary = json.loads((folder / "summary.json").read_text())
    assert summary.pop("digest")
    assert summary == json.loads(json.dumps(summary_from_rows(run, rows_from_records(records))))
    assert summary["schema"] == 1
    case = next(c for c, r in zip(summary["cases"], records, strict=True) if r.accuracy and r.latencies)
    record = next(r for r in records if r.accuracy and r.latencies)
    assert case["accuracy"]["top1_low"] <= case["accuracy"]["top1"] <= case["accuracy"]["top1_high"]
    latency = case["latency"][str(record.latencies[0].batch_size)]
    assert latency["n_samples"] == record.latencies[0].rounds_ns.array().size
    assert {"p50_ns", "p90_ns", "p99_ns", "clock", "window"} <= latency.keys()


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64", ">i4", "bool"])
def test_arrays_survive_packing(dtype):
    import numpy as np

    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    packed = PackedArray.of(array)
    assert np.array_equal(packed.array(), array)
    assert packed.array().dtype.itemsize == array.dtype.itemsize
    empty = PackedArray.of(array[:0])
    assert empty.array().shape == (0, 3, 4)


def test_times_take_a_fifth_less_than_their_bytes_one_after_another():
    """Source: integer nanoseconds with 5 % of noise, as a timer gives them; the bytes alone take 3.0 per number."""
    import numpy as np

    times = np.rint(3e5 * (1 + 0.05 * np.random.default_rng(0).standard_normal((20, 100))))
    plain = zlib.compress(times.astype("<f8").tobytes(), 1)
    packed = PackedArray.of(times)
    assert len(packed.data) < 0.8 * len(plain)
    assert np.array_equal(PackedArray(dtype="<f8", shape=times.shape, data=plain).array(), packed.array())


def test_the_run_before_is_the_newest_that_shares_a_case(tmp_path):
    from dataclasses import replace

    run, records = make_run(4)
    runs = {}
    for name, started, kept in (
        ("a", "2026-01-01T00:00:00+00:00", records),
        ("b", "2026-01-02T00:00:00+00:00", records),
        ("c", "2026-01-03T00:00:00+00:00", []),  # shares nothing
        ("d", "2026-01-04T00:00:00+00:00", records),
    ):
        runs[name] = replace(run, id=name, started_at=started, finished_at=started)
        RunStore(tmp_path, runs[name]).finish(runs[name], kept, summary=b"{}")
    assert previous_run(tmp_path / "d", runs["d"], records)[0][0].id == "b"
    assert previous_run(tmp_path / "a", runs["a"], records) == (None, ())
    (tmp_path / "b" / "records.jsonl").write_text("{")
    found, notes = previous_run(tmp_path / "d", runs["d"], records)
    assert found[0].id == "a"
    assert len(notes) == 1
    assert "records.jsonl: 0 of 4 records are there" in notes[0]


@pytest.mark.parametrize("changes", [{"n_shards": 4}, {"shard": ShardOrigin(plan="d", number=0)}])
def test_parts_and_wholes_of_a_fleet_s_night_are_no_previous_run(tmp_path, changes):
    run, records = make_run(3)
    older = replace(run, id="older", started_at="2020-01-01T00:00:00+00:00", **changes)
    RunStore(tmp_path, older).finish(older, records, summary=None)
    assert previous_run(tmp_path / run.id, run, records) == (None, ())


@pytest.mark.parametrize("name", ["lenet5-ort-fp32.f32", "detector-ort-fp32.zip"])
def test_raw_outputs_go_with_the_end_of_the_run(tmp_path, name):
    run, records = make_run(1)
    store = RunStore(tmp_path, run)
    (store.folder / "outputs" / name).write_bytes(b"many")
    store.finish(run, records, summary=b"{}")
    assert not (store.folder / "outputs").exists()
