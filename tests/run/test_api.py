"""`from harness import load_run, compare, time_model`: what notebooks and scripts use."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from render_records import make_run

import harness
from harness.errors import ConfigError, DataError
from harness.store.runs import RunStore


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folders of two runs, of which the second lost a case."""
    reports = tmp_path_factory.mktemp("reports")
    run, records = make_run(6)
    for name, kept in (("first", records), ("second", records[1:])):
        store = RunStore(reports, replace(run, id=name))
        for record in kept:
            store.append(record)
        store.finish(replace(run, id=name), kept, summary=b"{}")
    return reports / "first", reports / "second"


def test_a_run_becomes_a_frame_in_one_line(folders):
    frame = harness.load_run(folders[0]).frame()
    run = harness.load_run(folders[0])
    assert set(frame["case"]) == {record.case.id for record in run.cases}
    assert run.case(run.cases[0].case.id) == run.cases[0]
    with pytest.raises(ConfigError, match=r"run first has no case 'absent'; it has "):
        run.case("absent")


def test_runs_are_compared_as_the_command_compares_them(folders):
    first, second = map(harness.load_run, folders)
    assert not harness.compare(first, first).is_failure
    found = harness.compare(first, second)
    assert found.is_failure
    assert first.cases[0].case.id in dict(found.alone)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no run"):
        harness.load_run(tmp_path)


def test_a_model_is_timed_without_data_or_a_run(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first, second = harness.time_model("mlp", "ort", precision="fp16", batch_sizes=(1, 4), n_rounds=6)
    assert (first.batch_size, second.batch_size, first.reference_case) == (1, 4, "mlp-ort-fp32")
    rounds = first.rounds_ns.array()
    assert rounds.shape[0] == 6
    assert np.isfinite(rounds).all()
    assert (rounds > 0).all()
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"backend": "opnvino"}, "did you mean openvino"),
        ({"precision": "int3"}, "precision 'int3': choose from fp32"),
        ({"recipe": "qdq-minmx", "precision": "int8"}, "qdq-minmax"),
        ({"batch_sizes": (0,)}, "whole numbers of at least 1"),
    ],
)
def test_a_wrong_request_is_one_line(words, says):
    with pytest.raises(ConfigError, match=says):
        harness.time_model("mlp", **words)


def test_the_package_itself_imports_nothing_of_it():
    code = "import harness, sys; print([name for name in sys.modules if name.startswith('harness.')], dir(harness))"
    end = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert end.stdout.startswith("[] ")
    for name in ("load_run", "compare", "time_model"):
        assert f"'{name}'" in end.stdout
    with pytest.raises(AttributeError, match="no attribute 'load_runs'"):
        _ = harness.load_runs
