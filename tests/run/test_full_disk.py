"""A disk that is full, or a report folder that goes under way, is told in one line; nothing half-written stays."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from comparison_records import accuracy_with, latency_with, record_with
from render_records import make_run

from harness.errors import ConfigError
from harness.options.values import HarnessOptions
from harness.records import Status
from harness.report.files import report_of_run, write_reports
from harness.run.plan import plan_run
from harness.run.session import RunSession
from harness.specs import DatasetRequest, Precision, TimingPlan
from harness.store.baselines import BaselineStore
from harness.store.cache import ContentCache
from harness.store.runs import RunStore, load_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def full(monkeypatch):
    """Return a function after whose call every file that is written finds the disk full."""

    def fill():
        def refuse(*_, **__):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("os.fsync", refuse)
        monkeypatch.setattr("harness.store.cache.tempfile.mkdtemp", refuse)

    return fill


def test_a_full_disk_is_one_line_whatever_is_written(tmp_path, full):
    run, records = make_run(3)
    record = record_with(accuracy_with(n=40), latencies=(latency_with(),))
    store = RunStore(tmp_path / "reports", run)
    store.append(records[0])
    report = report_of_run(store.folder, run, records)
    full()
    writers = (
        lambda: store.append(records[1]),
        lambda: RunStore(tmp_path / "more", run),
        lambda: write_reports(store.folder, report),
        lambda: BaselineStore(tmp_path / "b").accept([record], accepted_by="me", accepted_at="2026-01-01T00:00:00Z"),
        lambda: ContentCache(tmp_path / "cache", "plans").put({"a": 1}, b"plan", name="p", meta={}),
    )
    for write in writers:
        with pytest.raises(ConfigError, match=r"^[^\n]*No space left on device[^\n]*$"):
            write()
    assert load_run(store.folder)[1][0] == records[0]
    assert not [path for path in tmp_path.rglob(".*") if path.is_file() and path.stat().st_size]
    assert not list((tmp_path / "b").rglob("*.json"))


def session_of(folder):
    options = HarnessOptions(
        backends=("fake-honest",),
        precisions=(Precision.FP32, Precision.FP16),
        models=("mlp",),
        extension_dirs=(str(ROOT / "tests" / "fakes"),),
        data=DatasetRequest(score_images=200, calibration_images=100),
        timing=TimingPlan(batch_sizes=(4,), n_rounds=6, round_ns=500_000, warmup_ns=0),
        report_dir=str(folder / "reports"),
        engine_cache=str(folder / "cache"),
        root=str(folder),
    )
    plan = plan_run(options, models_dir=ROOT / "models", probe=False)
    return RunSession(options, plan, command="pytest suites/", gates={"chance", "fp32"})


def test_a_report_folder_that_is_removed_under_way_costs_what_lay_in_it(tmp_path):
    session = session_of(tmp_path)
    first, second = session.plan.cases
    run = session.open_case(first)
    run.accuracy()
    session.close_case(run)
    shutil.rmtree(tmp_path / "reports")
    run = session.open_case(second)
    run.accuracy()
    session.close_case(run)
    session.answer(second, "fp32")
    session.finish(clean=False)
    folder = tmp_path / "reports" / session.run.id
    assert (folder / "index.html").exists()
    kept = {record.case.precision: record for record in load_run(folder)[1] if not record.is_reference}
    assert kept[Precision.FP16].status is not Status.PASSED
    assert "are gone" in kept[Precision.FP16].error
    assert kept[Precision.FP32].accuracy is not None
