"""OpenVINO IR is kept as it is, guarded by a digest over both files, and runs on OpenVINO alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx_nets
import pytest
from onnx_nets import ArraySet, images
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import DataError, Unsupported
from harness.models import find_model, load_card
from harness.precision import prepare_artifact
from harness.specs import Precision

ov = pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'nn-engine-harness[cpu]'")
ROOT = Path(__file__).parents[2]


def write_ir(source, target, *, fp16=False):
    ov.save_model(ov.Core().read_model(str(source)), str(target), compress_to_fp16=fp16)
    return target


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Return a function that runs `harness import openvino-ir` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(
        app, ["import", "openvino-ir", *map(str, arguments), "-o", "mine", "--scale=1/255"]
    )


@pytest.fixture
def tiny(tmp_path, call):
    """An imported IR model of a small net."""
    write_ir(onnx_nets.tiny_net(tmp_path / "net.onnx"), tmp_path / "net.xml")
    result = call("net.xml", "--name=tiny")
    assert result.exit_code == 0, result.output
    return tmp_path / "mine"


def test_both_files_and_a_card_are_written(tiny):
    assert {path.name for path in tiny.iterdir()} == {"tiny.xml", "tiny.bin", "tiny.toml"}
    spec = load_card(tiny / "tiny.toml")
    assert (spec.input_name, spec.input_shape, spec.layout) == ("image", (1, 8, 8), "NCHW")
    assert (spec.output_name, spec.num_classes, spec.output_kind) == ("probabilities", 10, "probabilities")
    assert (spec.max_batch, spec.is_onnx) == (None, False)
    assert find_model(str(tiny / "tiny.xml"), "models") == spec


@pytest.mark.parametrize("name", ["tiny.xml", "tiny.bin"])
def test_the_digest_is_of_both_files(tiny, name):
    content = bytearray((tiny / name).read_bytes())
    content[-3] ^= 1
    (tiny / name).write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"tiny\.xml: sha256 .* is not the .* of its card tiny\.toml"):
        load_card(tiny / "tiny.toml")
    (tiny / name).unlink()
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        load_card(tiny / "tiny.toml")


def test_an_ir_file_without_a_card_is_told_what_to_do(tmp_path, tiny):
    with pytest.raises(DataError, match=r"net\.xml: OpenVINO IR needs a card; `harness import openvino-ir` writes it"):
        find_model(str(tmp_path / "net.xml"), "models")


def test_no_recipe_converts_it(tmp_path, tiny):
    spec, cache = load_card(tiny / "tiny.toml"), str(tmp_path / "cache")
    artifact = prepare_artifact(spec, Precision.FP32, "none", calibration=None, cache_dir=cache)
    assert (artifact.onnx_path, artifact.sha256) == (spec.onnx_path, spec.sha256)
    for precision, recipe in ((Precision.FP16, "cast"), (Precision.INT8, "qdq-minmax")):
        with pytest.raises(Unsupported, match=f"model tiny is OpenVINO IR, which recipe {recipe} cannot convert"):
            prepare_artifact(spec, precision, recipe, calibration=ArraySet(images(20)), cache_dir=cache)


def test_it_scores_on_openvino_as_the_onnx_file_does_and_elsewhere_not_at_all(tmp_path, call):
    write_ir(ROOT / "models" / "lenet5.onnx", tmp_path / "lenet5_ir.xml")
    assert call("lenet5_ir.xml").exit_code == 0
    command = [sys.executable, "-m", "pytest", str(ROOT / "suites"), "-q", "-m", "accuracy", "-p", "no:cacheprovider"]
    command += [f"--rootdir={ROOT}", f"--report-dir={tmp_path / 'reports'}", f"--engine-cache={tmp_path / 'cache'}"]
    command += ["--backend=ort,openvino", "--precision=fp32,int8", "--baseline=ignore", "--score-images=2000"]
    command += [f"--model=lenet5,{tmp_path / 'mine' / 'lenet5_ir.toml'}"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=own, timeout=200)
    assert child.returncode == 0, child.stdout + child.stderr
    (summary,) = (tmp_path / "reports").glob("2*/summary.json")
    cases = {case["id"]: case for case in json.loads(summary.read_text())["cases"]}
    imported, original = cases["lenet5_ir-openvino-fp32"], cases["lenet5-openvino-fp32"]
    assert (imported["status"], imported["accuracy"]["top1"]) == ("passed", original["accuracy"]["top1"])
    assert {name: cases[name]["reason"] for name in cases if cases[name]["status"] == "unsupported"} == {
        "lenet5_ir-ort-fp32": "ort reads onnx; model lenet5_ir is openvino-ir",
        "lenet5_ir-ort-int8": "ort reads onnx; model lenet5_ir is openvino-ir",
        "lenet5_ir-openvino-int8": "model lenet5_ir is OpenVINO IR, which recipe qdq-minmax cannot convert",
    }


def test_weights_stored_in_fp16_and_a_fixed_batch_are_taken(tmp_path, call):
    write_ir(onnx_nets.tiny_net(tmp_path / "net.onnx", batch=3, softmax=False), tmp_path / "net.xml", fp16=True)
    assert call("net.xml").exit_code == 0
    spec = load_card("mine/net.toml")
    assert (spec.max_batch, spec.output_kind) == (3, "logits")


@pytest.mark.parametrize(
    ("cut", "expected"),
    [("net.xml", "OpenVINO cannot read it"), ("net.bin", "OpenVINO cannot read it"), ("", "do not lie beside it")],
)
def test_a_damaged_ir_file_is_one_line(tmp_path, call, cut, expected):
    write_ir(onnx_nets.tiny_net(tmp_path / "net.onnx"), tmp_path / "net.xml")
    if cut:
        (tmp_path / cut).write_bytes((tmp_path / cut).read_bytes()[:200])
    else:
        (tmp_path / "net.bin").unlink()
    result = call("net.xml")
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1), result.stderr
    assert expected in result.stderr
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (onnx_nets.two_headed_net, "has 1 inputs and 2 outputs; expected one of each"),
        (onnx_nets.two_input_net, "has 2 inputs and 1 outputs; expected one of each"),
    ],
)
def test_a_net_that_is_no_classifier_of_one_input_is_refused(tmp_path, call, make, expected):
    write_ir(make(tmp_path / "net.onnx"), tmp_path / "net.xml")
    result = call("net.xml")
    assert (result.exit_code, expected in result.stderr) == (4, True), result.stderr


def test_another_file_is_refused(tmp_path, call):
    for name, expected in (("net.onnx", "expected one file, MODEL.xml"), ("absent.xml", "no such file")):
        result = call(name)
        assert (result.exit_code, expected in result.stderr) == (4, True), result.stderr
