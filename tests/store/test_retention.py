"""Old runs are thinned out: nothing red is lost, nothing new is touched, and history stays."""

import datetime
from dataclasses import replace

import pytest
from comparison_records import ENVIRONMENT, accuracy_with, record_with
from render_records import make_run
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import DataError
from harness.records import Status
from harness.run.stored import load_judged_run
from harness.specs import Precision
from harness.store.baselines import BaselineStore
from harness.store.retention import KEPT_NOTE, red_records, tidy_runs
from harness.store.runs import BASELINES_FOLDER, RunStore, load_run

NOW = datetime.datetime(2026, 11, 26, 12, tzinfo=datetime.timezone.utc)


def records_of(*, lost=0, error=""):
    """FP32 and INT8 of two models; INT8 of one lost images, or broke."""
    found = []
    for model in ("lenet5", "mlp"):
        for precision in (Precision.FP32, Precision.INT8):
            is_bad = (model, precision) == ("mlp", Precision.INT8)
            record = record_with(accuracy_with(n=2_000, wrong=range(lost if is_bad else 0)), precision=precision)
            status = Status.FAILED if is_bad and lost else Status.ERROR if is_bad and error else Status.PASSED
            record = replace(record, error=error if is_bad else "", status=status)
            found.append(replace(record, case=replace(record.case, model=model)))
    return found


def write(reports, name, days_ago, records, **changes):
    run, _ = make_run(1)
    begun = (NOW - datetime.timedelta(days=days_ago)).isoformat()
    values = {"id": name, "started_at": begun, "finished_at": begun, "gates": ("fp32",), "environment": ENVIRONMENT}
    run = replace(run, **(values | changes))
    store = RunStore(reports, run)
    passed = [replace(record, status=Status.PASSED, error="") for record in records]
    BaselineStore(store.folder / BASELINES_FOLDER).accept(passed, accepted_by="someone", accepted_at=begun)
    store.finish(run, records, summary=None if changes.get("n_shards") else b"{}")
    (store.folder / "index.html").write_text("page")
    return store.folder


@pytest.mark.parametrize("n_shards", [0, 4])
def test_red_cases_and_their_fp32_stay_for_ever_and_all_else_for_some_nights(tmp_path, n_shards):
    green = write(tmp_path, "green", 20, records_of(), n_shards=n_shards)
    red = write(tmp_path, "red", 20, records_of(lost=400), n_shards=n_shards)
    broken = write(tmp_path, "broken", 20, records_of(error="the worker crashed"), n_shards=n_shards)
    young = write(tmp_path, "young", 13, records_of(), n_shards=n_shards)
    write(tmp_path, "newest", 1, records_of())
    lines = tidy_runs(tmp_path, now=NOW)
    assert [line.split()[0] for line in lines] == ["thinned", "emptied", "thinned"]
    assert [path.name for path in green.iterdir()] == ["summary.json"] if not n_shards else not green.exists()
    assert len(load_run(young)[1]) == 4
    for folder, status in ((red, Status.FAILED), (broken, Status.ERROR)):
        run, kept = load_judged_run(folder)
        assert [(r.case.id, r.status) for r in kept] == [("mlp-ort-fp32", Status.PASSED), ("mlp-ort-int8", status)]
        assert KEPT_NOTE in run.notes
        assert not (folder / "index.html").exists()
        assert {path.stem for path in (folder / BASELINES_FOLDER).rglob("*.json")} == {"mlp-ort-fp32", "mlp-ort-int8"}
    assert tidy_runs(tmp_path, now=NOW) == [], "once is enough"


def test_the_newest_run_stays_whole_whatever_its_age(tmp_path):
    folder = write(tmp_path, "newest", 300, records_of())
    assert tidy_runs(tmp_path, now=NOW) == []
    assert len(load_run(folder)[1]) == 4


def test_a_folder_that_cannot_be_read_is_left_alone(tmp_path):
    damaged = write(tmp_path, "damaged", 20, records_of())
    write(tmp_path, "newest", 1, records_of())
    (damaged / "records.jsonl").write_bytes(b"{")
    (line,) = tidy_runs(tmp_path, now=NOW)
    assert line.startswith(f"left alone: {damaged}")
    assert (damaged / "records.jsonl").exists()
    with pytest.raises(DataError, match="is no folder of runs"):
        tidy_runs(tmp_path / "nowhere", now=NOW)


def test_a_case_that_nobody_judged_counts_as_red():
    records = [replace(record, status=Status.NOT_JUDGED) for record in records_of()]
    assert red_records(records) == records
    assert red_records(records_of()) == []


def test_the_command_counts_nights_from_now(tmp_path):
    write(tmp_path, "old", -3_000, records_of())
    write(tmp_path, "newest", -3_001, records_of())
    told = CliRunner().invoke(app, ["tidy", str(tmp_path)])
    assert (told.exit_code, told.output) == (0, ""), "runs of the future are not old"
    assert CliRunner().invoke(app, ["tidy", str(tmp_path), "--keep-nights", "0"]).exit_code == 2
