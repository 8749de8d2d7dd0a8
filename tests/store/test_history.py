"""Stored runs as series: what is read, what is left out and said, which changes are found with which versions."""

import json

import numpy as np
import pytest
from render_records import make_run, write_history

from harness.errors import DataError
from harness.records import Run
from harness.report.plots import format_metric, metric_name
from harness.report.rows import rows_from_records
from harness.report.summary import summary_bytes
from harness.report.trends import trends_from_history
from harness.store.history import Metric, changed_versions, load_history
from harness.store.runs import RunStore
from harness.store.sealed import sealed

TOP1, SIZE = Metric(name="top1"), Metric(name="engine_bytes")
P50 = Metric(name="p50_ns", batch_size=1)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nights")
    return folder, write_history(folder, n_runs=60, n_cases=8)


def test_planted_changes_are_found_with_the_version_that_changed(planted):
    folder, where = planted
    history = load_history(folder)
    assert len(history.runs) == 60
    assert len(history.case_ids) == 8
    found = {(step.case_id, step.metric.name): step for step in history.steps if step.metric in (TOP1, P50, SIZE)}
    assert set(found) == {
        ("lenet5-ort-fp32", "top1"),
        ("lenet5-ort-fp16", "p50_ns"),
        ("lenet5-ort-fp16", "engine_bytes"),
    }
    loss = found["lenet5-ort-fp32", "top1"]
    assert loss.run_index == where["top1"]
    assert loss.is_worse
    assert loss.changed == {"openvino": ("2026.2.0", "2026.3.0")}
    slower = found["lenet5-ort-fp16", "p50_ns"]
    assert abs(slower.run_index - where["p50_ns"]) <= 1
    assert slower.after / slower.before == pytest.approx(1.08, rel=0.02)
    assert slower.changed == {}
    assert found["lenet5-ort-fp16", "engine_bytes"].after - 1_700_000 == 40_000
    assert [index for index, _ in history.version_changes()] == [where["top1"]]


def test_last_and_until_limit_the_runs(planted):
    folder, _ = planted
    assert [run.id for run in load_history(folder, last=3).runs] == ["night-057", "night-058", "night-059"]
    tenth = load_history(folder).runs[10]
    assert load_history(folder, until=tenth.started_at).runs[-1] == tenth
    assert load_history(folder, until="2000-01-01T00:00:00+00:00").runs == ()


def test_it_reads_what_the_store_writes(tmp_path):
    run, records = make_run(9, n_images=200)
    store = RunStore(tmp_path, run)
    for record in records:
        store.append(record)
    store.finish(run, records, summary=summary_bytes(run, rows_from_records(records)))
    history = load_history(tmp_path)
    assert [found.id for found in history.runs] == [run.id]  # and not `latest` again
    series = history.series("lenet5-ort-fp32")
    assert series[TOP1][0] == records[0].accuracy.top1
    assert set(series) >= {P50, Metric(name="p50_ns", batch_size=100)}
    assert history.series("lenet5-trt-fp16") == {}
    assert history.series("no such case") == {}
    assert isinstance(run, Run)


def test_damaged_and_newer_summaries_are_named_and_left_out(planted, tmp_path):
    write_history(tmp_path, n_runs=4, n_cases=2)
    (tmp_path / "night-001" / "summary.json").write_text('{"schema": 1, "run"')
    newer = json.loads((tmp_path / "night-002" / "summary.json").read_text()) | {"schema": 99}
    (tmp_path / "night-002" / "summary.json").write_text(json.dumps(newer))
    (tmp_path / "not a run").mkdir()
    history = load_history(tmp_path)
    assert [run.id for run in history.runs] == ["night-000", "night-003"]
    assert len(history.notes) == 2
    assert "night-001" in history.notes[0]
    assert "schema 99" in history.notes[1]


def test_accuracies_on_other_images_are_not_mixed(tmp_path):
    write_history(tmp_path, n_runs=5, n_cases=1)
    path = tmp_path / "night-001" / "summary.json"
    values = json.loads(path.read_text())
    for case in values["cases"]:
        case["accuracy"]["fingerprint"] = "other"
    del values["digest"]
    path.write_bytes(sealed(json.dumps(values).encode()))
    history = load_history(tmp_path)
    assert np.isnan(history.values[TOP1][0]).tolist() == [False, True, False, False, False]
    assert history.notes == ("1 older accuracies are left out: they were scored on other images than the newest",)


def test_a_missing_folder_is_an_error_and_an_empty_one_is_empty(tmp_path):
    assert load_history(tmp_path).runs == ()
    with pytest.raises(DataError, match="no folder of runs"):
        load_history(tmp_path / "absent")


def test_changed_versions_names_what_came_and_went():
    assert changed_versions({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}) == {
        "b": ("1", "2"),
        "c": ("1", ""),
        "d": ("", "1"),
    }


@pytest.mark.parametrize(("name", "higher", "fraction", "unit"), [("mAP", True, True, ""), ("MAE", False, False, "cm")])
def test_the_leading_metric_of_samples_is_followed_as_top1_is(tmp_path, name, higher, fraction, unit):
    """A lasting loss is found in its own direction; what was scored on other samples is left out and said."""
    generator = np.random.default_rng(0)
    values = 0.6 + 0.002 * generator.standard_normal(24)
    values[14:] += -0.05 if higher else 0.05
    for night, value in enumerate(values.tolist()):
        metric = {"name": name, "value": value, "higher_is_better": higher, "is_fraction": fraction, "unit": unit}
        samples = {"n_samples": 500, "fingerprint": "old" if night == 0 else "f", "metrics": [metric]}
        case = {"id": "net-ort-int8", "samples": samples}
        summary = {"schema": 1, "run": {"id": f"r{night:02}", "started_at": f"2026-11-{night + 1:02}T01:00:00+00:00"}}
        (tmp_path / f"r{night:02}").mkdir()
        data = sealed(json.dumps({**summary, "environment": {}, "cases": [case]}).encode())
        (tmp_path / f"r{night:02}" / "summary.json").write_bytes(data)
    history = load_history(tmp_path)
    (step,) = history.steps
    assert (step.metric.kind.higher_is_better, step.metric.of, step.run_index, step.is_worse) == (
        higher,
        name,
        14,
        True,
    )
    assert np.isnan(history.series("net-ort-int8")[step.metric][0])
    assert history.notes[-1].startswith("1 older accuracies are left out")
    trends = trends_from_history(history)
    assert metric_name(trends.metrics[0]) == name
    assert format_metric(step.metric, 0.5, 500).replace("\u00a0", " ") == ("50.0 %" if fraction else "0.500 cm")
    assert trends.figures
