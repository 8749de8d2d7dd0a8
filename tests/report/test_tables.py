"""All records as a table: one row a case and batch size, units in the names, nothing missing turned into a number."""

import dataclasses
import sys

import numpy as np
import pandas as pd
import pytest
from render_records import make_run

from harness.errors import ConfigError
from harness.records import EngineFacts, Status
from harness.report.rows import rows_from_records
from harness.report.summary import summary_from_rows
from harness.report.tables import COLUMNS, frame_from_rows, write_csv, write_parquet, write_table


@pytest.fixture(scope="module")
def records():
    return make_run(18, n_images=500)[1]


def test_one_row_a_case_and_batch_size(records):
    frame = frame_from_rows(rows_from_records(records))
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame) == sum(max(len(record.latencies), 1) for record in records)
    row = frame[(frame.case == "lenet5-openvino-int8") & (frame.batch_size == 1)].iloc[0]
    record = next(record for record in records if record.case.id == "lenet5-openvino-int8")
    assert row.top1 == record.accuracy.top1
    assert row.n_images == 500
    assert (row.lost_fp32, row.gained_fp32) == (14, 0)
    assert row.p50_ns == np.median(np.median(record.latencies[0].rounds_ns.array(), axis=1))
    assert (row.verdict, row.gate) == ("regressed", "fp32")


def test_what_is_missing_is_missing(records):
    frame = frame_from_rows(rows_from_records(records))
    error = frame[frame.status == Status.ERROR.value].iloc[0]
    for name in ("top1", "n_images", "p50_ns", "speed_up", "engine_bytes", "lost_fp32", "batch_size", "ran_as"):
        assert pd.isna(error[name]), name
    assert frame_from_rows(rows_from_records([])).dtypes.to_dict() == frame.dtypes.to_dict()


COSTS = {
    "import_ns": 120_000_000,
    "build_ns": 38_000_000,
    "load_ns": 7_000_000,
    "first_inference_ns": 640_000,
    "engine_bytes": 1_700_000,
    "device_memory_bytes": 4_096,
    "host_peak_bytes": 200 << 20,
}


def test_cold_costs_are_in_the_table_and_the_summary_and_a_missing_one_is_missing():
    run, records = make_run(18, n_images=500)[:2]
    whole = dataclasses.replace(records[0], engine=dataclasses.replace(records[0].engine, cache="hit", **COSTS))
    part = dataclasses.replace(records[1], engine=EngineFacts(build_ns=1))
    rows = rows_from_records([whole, part])
    frame = frame_from_rows(rows).drop_duplicates("case")
    summary = summary_from_rows(run, rows)["cases"]
    for name, value in COSTS.items():
        assert frame[name].iloc[0] == summary[0][name] == value
        if name != "build_ns":
            assert pd.isna(frame[name].iloc[1]), name
            assert summary[1][name] is None, name
    assert [case["engine_cache"] for case in summary] == list(frame.engine_cache) == ["hit", "none"]


def test_csv_keeps_the_values_and_defuses_formulas(records, tmp_path):
    evil = dataclasses.replace(records[0], reason='=HYPERLINK("http://evil")', flags=("@x",))
    write_csv(rows_from_records([evil, *records[1:]]), tmp_path / "r.csv")
    back = pd.read_csv(tmp_path / "r.csv")
    assert back.reason[0] == '\'=HYPERLINK("http://evil")'
    assert back["flags"][0] == "'@x"
    np.testing.assert_allclose(back.top1, frame_from_rows(rows_from_records(records)).top1)


def test_parquet_keeps_values_and_kinds(records, tmp_path):
    pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    write_table(rows_from_records(records), tmp_path / "r.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "r.parquet"), frame_from_rows(rows_from_records(records)))


def test_without_pyarrow_the_remedy_is_named(records, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'nn-engine-harness\[parquet\]'"):
        write_parquet(rows_from_records(records), tmp_path / "r.parquet")
    assert not (tmp_path / "r.parquet").exists()


@pytest.mark.parametrize("name", ["records.xlsx", "records"])
def test_other_endings_are_refused(records, tmp_path, name):
    with pytest.raises(ConfigError, match=r"name a \.csv or \.parquet file"):
        write_table(rows_from_records(records), tmp_path / name)
