"""`harness calibration`: ranges of a model's tensors, written as a table, read back and compared."""

import json
import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_nets import tiny_net
from typer.testing import CliRunner

from harness.cli import app
from harness.datasets import open_dataset
from harness.models import load_card
from harness.models.importers import ImportRequest
from harness.models.importers.caffe import convert
from harness.precision.tables import read_table
from harness.specs import Precision

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture
def call(monkeypatch):
    """Return a function that runs `harness calibration` in the checkout."""
    monkeypatch.chdir(ROOT)
    return lambda *arguments: CliRunner().invoke(app, ["calibration", *map(str, arguments)])


def test_a_table_holds_the_largest_magnitude_of_every_tensor(tmp_path, call):
    result = call("export", "mlp", "-o", tmp_path / "mlp.table", "--calibration-images=40", "--calibration-from=10")
    assert result.exit_code == 0, result.output
    table = read_table(tmp_path / "mlp.table")
    session_model = onnx.load(ROOT / "models" / "mlp.onnx")
    made = [name for node in session_model.graph.node for name in node.output]
    assert list(table.ranges) == ["image", *made]
    pixels, _ = open_dataset("strokes", split="train").read(10, 50)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in session_model.graph.initializer}
    first = next(node for node in session_model.graph.node if node.op_type == "Gemm")
    flat = pixels.reshape(40, -1).astype(np.float32) / np.float32(255)
    product = flat @ weights[first.input[1]].T + weights[first.input[2]]
    assert table.ranges[first.output[0]] == pytest.approx(np.abs(product).max(), rel=1e-5)
    assert table.ranges["image"] == pytest.approx(1.0, rel=1e-6)


def test_tables_of_two_methods_are_compared(tmp_path, call):
    for method, name in (("minmax", "a.table"), ("entropy", "b.json")):
        result = call("export", "mlp", "-o", tmp_path / name, "--calibration-images=40", f"--method={method}")
        assert result.exit_code == 0, result.output
    assert call("diff", tmp_path / "a.table", tmp_path / "a.table", "--max-drift=0").exit_code == 0
    told = call("diff", tmp_path / "a.table", tmp_path / "b.json")
    assert told.exit_code == 0
    changes = [float(line.split()[-1].rstrip("%")) for line in told.output.splitlines()[2:]]
    assert changes == sorted(changes)  # least information loss only narrows
    assert changes[0] < -1
    assert call("diff", tmp_path / "a.table", tmp_path / "b.json", "--max-drift=1%").exit_code == 1
    assert call("diff", tmp_path / "a.table", tmp_path / "b.json", "--max-drift=99%").exit_code == 0


def test_tables_without_a_common_tensor_are_no_success(tmp_path, call):
    (tmp_path / "a").write_text('{"x": 1}')
    (tmp_path / "b").write_text('{"y": 1}')
    told = call("diff", tmp_path / "a", tmp_path / "b")
    assert (told.exit_code, "the tables share no tensor" in told.stderr) == (2, True)
    (tmp_path / "b").write_text('{"x": 1, "y": 1}')
    assert call("diff", tmp_path / "a", tmp_path / "b").exit_code == 0
    assert call("diff", tmp_path / "a", tmp_path / "b", "--max-drift=5%").exit_code == 1  # y is missing


def test_a_file_with_qdq_nodes_gives_the_ranges_that_it_holds(tmp_path, call):
    from harness.precision import prepare_artifact
    from harness.specs import DatasetRequest
    from harness.worker.images import DatasetCalibration

    spec, request = load_card(ROOT / "models" / "mlp.toml"), DatasetRequest(calibration_images=40)
    images = DatasetCalibration(open_dataset("strokes", split="train"), spec, request)
    artifact = prepare_artifact(
        spec, Precision.INT8, "qdq-minmax", calibration=images, cache_dir=str(tmp_path / "cache")
    )
    assert call("export", artifact.onnx_path, "-o", tmp_path / "stored.json").exit_code == 0
    assert call("export", "mlp", "-o", tmp_path / "measured.json", "--calibration-images=40").exit_code == 0
    stored, measured = (read_table(tmp_path / f"{name}.json").ranges for name in ("stored", "measured"))
    assert len(stored) > 1
    assert {name: pytest.approx(value, rel=1e-6) for name, value in stored.items()} == {n: measured[n] for n in stored}


def test_a_table_becomes_json_that_is_read_again(tmp_path, call):
    (tmp_path / "t").write_text("TRT-8600-EntropyCalibration2\ndata: 3c008102\nnever: 00000000\n")
    result = call("import", tmp_path / "t", "-o", tmp_path / "t.json")
    assert "2 tensors, made by the EntropyCalibration2 of TensorRT 8600" in result.output
    ranges = json.loads((tmp_path / "t.json").read_text())
    assert ranges == {"data": struct.unpack(">f", bytes.fromhex("3c008102"))[0] * 127, "never": 1.0}


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["export", "mlp", "--method=best"], 2, "--method=best: expected one of minmax, entropy, percentile"),
        (["export", "nlp"], 4, "no model is called 'nlp'; did you mean mlp"),
        (["export", "{tmp}/cut.onnx"], 4, "cut.onnx"),
        (["export", "mlp", "--dataset={tmp}/absent"], 4, "absent"),
        (["export", "mlp", "--calibration-images=0"], 2, "--calibration-images must be at least 1"),
        (["export", "mlp", "--time-limit=0.01"], 2, "no answer in 0 s while its ranges were measured"),
        (["export", "mlp", "--header=mine"], 4, "expected TRT-VERSION-CALIBRATOR"),
        (["import", "{tmp}/cut.onnx"], 4, "cut.onnx"),
        (["diff", "{tmp}/cut.onnx", "{tmp}/cut.onnx"], 4, "cut.onnx"),
        (["diff", "{tmp}/absent", "{tmp}/absent"], 4, "absent: cannot be read"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, call, arguments, status, expected):
    tiny_net(tmp_path / "net.onnx")
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "net.onnx").read_bytes()[:100])
    output = [] if arguments[0] == "diff" else ["-o", tmp_path / "out"]
    result = call(*(argument.format(tmp=tmp_path) for argument in arguments), *output)
    assert (result.exit_code, result.stderr.count("\n")) == (status, 1), result.stderr
    assert expected in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not (SHARED / "tensorrt").is_dir(), reason="TensorRT's own table is not in ../shared/data/tensorrt")
def test_an_imported_caffe_net_has_the_tensors_of_tensorrts_own_table(tmp_path, call):
    """The table was made by an early TensorRT from Caffe's LeNet, the net that is imported here."""
    from caffe_files import LENET

    (tmp_path / "lenet.prototxt").write_text(LENET)
    sources = (str(tmp_path / "lenet.prototxt"), str(SHARED / "caffe" / "lenet_iter_10000.caffemodel"))
    convert(ImportRequest(sources=sources, target=tmp_path / "lenet.onnx"))
    data = ["--dataset=mnist", f"--data-dir={SHARED / 'mnist'}", "--calibration-images=500"]
    assert call("export", tmp_path / "lenet.onnx", "-o", tmp_path / "ours", "--method=percentile", *data).exit_code == 0
    theirs, ours = (
        read_table(SHARED / "tensorrt" / "LegacyCalibrationTable").ranges,
        read_table(tmp_path / "ours").ranges,
    )
    assert set(theirs) < set(ours)
    assert all(abs(ours[name] / theirs[name] - 1) < 0.25 for name in theirs)


def test_a_run_shows_how_its_ranges_were_chosen(tmp_path, call):
    from dataclasses import replace

    from render_records import make_run

    from harness.records import TensorCalibration
    from harness.store.runs import RunStore

    run, records = make_run(3)
    plain = next(record for record in records if record.artifact and record.artifact.calibration)
    rows = (
        TensorCalibration(
            tensor="image",
            largest=4.0,
            threshold=2.0,
            saturated_share=0.0125,
            candidates=(1.0, 2.0, 4.0),
            divergences=(0.5, 0.25, 0.75),
        ),
    )
    calibration = replace(plain.artifact.calibration, method="entropy", tensors=rows)
    shown = replace(plain, artifact=replace(plain.artifact, calibration=calibration))
    for name, kept in (("with", shown), ("without", plain)):
        store = RunStore(tmp_path, replace(run, id=name))
        store.append(kept)
        store.finish(replace(run, id=name), [kept], summary=b"{}")
    result = call("show", tmp_path / "with")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith(f"{plain.case.id}: entropy, ")
    assert lines[2].split() == ["image", "4", "2", "1.250%", "0.25", "(0.75)"]
    result = call("show", tmp_path / "without")
    assert (result.exit_code, "tells how its ranges were chosen" in result.stderr) == (2, True)
