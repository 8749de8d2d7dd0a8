"""`harness time` and `time_model`: one line times any model, without a data set, a run or a report."""

import re

import numpy as np
import pytest
from graph_nets import write_net
from typer.testing import CliRunner

import harness
from harness.cli import app
from harness.errors import DataError
from harness.records import EffectivePrecision, Latency, PackedArray
from harness.report.alone import TimedCase, lines_of_times
from harness.specs import Case, Precision

FAST = ("--timing-rounds=6", "--engine-cache=cache")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def call(*words):
    result = CliRunner().invoke(app, ["time", *map(str, words)])
    return result.exit_code, result.output


def timed_case(precision=Precision.FP16, *, rounds=(100.0, 101.0), reference=(200.0, 202.0), **found):
    case = Case(model="net", backend="ort", precision=precision, recipe="cast")
    arrays = [PackedArray.of(np.array([[value] * 4 for value in values * 5])) for values in (rounds, reference)]
    latency = Latency(
        batch_size=1,
        rounds_ns=arrays[0],
        reference_rounds_ns=arrays[1],
        calls_per_sample=1,
        warmup_calls=3,
        clock="host",
        launch="call",
        gated=False,
        window="compute",
    )
    return TimedCase(case=case, latencies=(latency,), **found)


def test_any_graph_is_timed_in_every_precision_that_takes_it(folder):
    pytest.importorskip("onnxruntime")
    path = write_net(folder, "text")
    words = ("--shapes=ids:1x7,mask:1x7", "--backend", "ort", "--precision=fp32,int8", "--batch-size=1,4")
    code, told = call(path, *words, *FAST)
    assert code == 0, told
    assert len(re.findall(r"^ort +fp32 +[14] +\S+\s\S+ \(.*\) +— +fp32$", told, re.MULTILINE)) == 2
    assert re.search(r"^unsupported: text-ort-int8: model text has none of", told, re.MULTILINE)
    assert max(map(len, told.splitlines())) <= 80
    assert not (folder / "reports").exists()


def test_a_bundled_classifier_is_timed_beside_its_fp32(folder):
    pytest.importorskip("onnxruntime")
    code, told = call("mlp", "--backend=ort", "--precision=fp16", *FAST)
    assert code == 0, told
    assert re.search(r"^ort +fp16 +1 .* ~?[\d.]+× \([\d.]+–[\d.]+\) +\S+", told, re.MULTILINE)


def test_samples_of_a_data_set_are_timed_where_it_is_typed(folder):
    pytest.importorskip("onnxruntime")
    path = write_net(folder, "text")
    words = (path, "--backend=ort", "--precision=fp32", "--shapes=ids:1x7,mask:1x7", *FAST)
    # The table has 5 rows: what is timed are these ids, and no id of 900 is looked up.
    np.savez(folder / "rows.npz", ids=np.full((3, 7), 900), mask=np.ones((3, 7), np.int64))
    code, told = call(*words, "--dataset=rows.npz")
    assert code == 1, told
    assert "error: text-ort-fp32: " in told
    (folder / "harness.toml").write_text('[run]\ndataset = "./rows.npz"\n')
    code, told = call(*words)
    assert code == 0, told
    np.savez(folder / "rows.npz", ids=np.full((3, 7), 4), mask=np.ones((3, 7), np.int64))
    code, told = call(*words, "--dataset=./rows.npz", "--batch-size=1,4")
    assert code == 0, told
    np.savez(folder / "rows.npz", ids=np.full((3, 7), 4))
    code, told = call(*words, "--dataset=./rows.npz")
    assert (code, "rows.npz: sample 0: holds no mask" in told) == (2, True), told


def test_a_classifier_is_timed_on_images_where_a_data_set_is_typed(folder):
    pytest.importorskip("onnxruntime")
    code, told = call("mlp", "--backend=ort", "--precision=fp32,int8", "--dataset=strokes", *FAST)
    assert code == 0, told
    code, told = call("mlp", "--backend=ort", "--precision=fp32", "--dataset=./nowhere/", *FAST)
    assert code == 2
    assert "no data set is called 'nowhere'" in told


def test_an_error_of_a_case_costs_that_case_and_the_exit_code(folder):
    pytest.importorskip("onnxruntime")
    path = write_net(folder, "text")
    # The table has 5 rows: no id of 900 is looked up.
    code, told = call(path, "--shapes=ids:1x7,mask:1x7", "--input-range=ids:900..900", "--backend=ort", *FAST)
    assert code == 1, told
    assert "error: text-ort-fp32: " in told
    assert "error: text-ort-fp16: " in told


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "Missing argument"),
        (("--backend=ort",), 2, "give an ONNX file"),
        (("mlp", "--score-images=9"), 2, "--score-images means nothing where a model is only timed"),
        (("mlp", "--dataset=digits"), 2, "no data set is called 'digits'"),
        (("mlp", "--max-drop=1%"), 2, "--max-drop means nothing"),
        (("mlp", "--bogus"), 2, "--bogus: no option of a run"),
        (("absent.onnx",), 2, "no such model file"),
    ],
)
def test_a_wrong_request_is_one_line(words, code, says):
    found, told = call(*words)
    assert found == code
    assert says in told


def test_what_ran_and_the_speed_up_over_fp32_stand_in_the_table():
    ran = EffectivePrecision(by_layer={"fp32": 0.4, "fp16": 0.6})
    lines = lines_of_times([timed_case(effective_precision=ran)])
    assert re.fullmatch(r"ort +fp16 +1 +10\d.*\sns \(100.*–101.*\) +2\S*× \(.*\) +fp16 60%", lines[2]), lines


def test_what_cannot_be_told_is_told(folder):
    case = Case(model="net", backend="ort", precision=Precision.INT8, recipe="qdq-minmax")
    found = [
        timed_case(rounds=(float("nan"), 1.0)),
        timed_case(reference=(99.0, 102.0)),
        TimedCase(case=case, unsupported="no kernels"),
        TimedCase(case=case, error="it broke"),
    ]
    told = "\n".join(lines_of_times(found))
    assert "net-ort-fp16: batch 1: " in told
    assert "~1" in told
    assert "~ not significant" in told
    assert "unsupported: net-ort-int8: no kernels" in told
    assert "error: net-ort-int8: it broke" in told


def test_python_times_any_graph_too(folder):
    pytest.importorskip("onnxruntime")
    path = write_net(folder, "sized")
    (latency,) = harness.time_model(path, shapes={"x": (1, 1, 9, 9)}, n_rounds=6)
    assert latency.rounds_ns.array().shape[0] == 6
    with pytest.raises(DataError, match="for example --shapes=x:1x1x224x224"):
        harness.time_model(path, n_rounds=6)
