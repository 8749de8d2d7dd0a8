"""`harness import`: an ONNX file and a card in a folder, or one line; a framework's crash or hang costs no more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import caffe_files as caffe
import pytest
from test_importers_caffe import SHARED, lenet_weights
from typer.testing import CliRunner

from harness.cli import app
from harness.models import find_model, load_card
from harness.models.importers import find_importer, list_importers
from harness.store.cache import sha256_of_file

ROOT = Path(__file__).parents[2]
BROKEN = """
import os, sys, time
from harness.errors import DataError
from harness.models.importers import Imported, Importer

def convert(request):
    print("half a line", end="")
    {what}

IMPORTER = Importer(name="{name}", summary="", takes="", convert=convert, required_modules={modules})
"""
WAYS = {  # to break: code, exit status, what is said
    "hangs": ("time.sleep(60)", 2, "importer hangs took longer than 1 s; raise --time-limit"),
    "crashes": ("os.abort()", 2, "importer crashes crashed (SIGABRT); the file may be damaged"),
    "exits": ("sys.stdout.flush(); os._exit(3)", 2, "importer exits ended without a result (half a line)"),
    "raises": ("[][0]", 4, "it.bin: importer raises cannot convert it (IndexError: list index out of range)"),
    "refuses": ("raise DataError('it.bin: is not for me')", 4, "it.bin: is not for me"),
    "writes_nothing": ("return Imported()", 2, "importer writes_nothing wrote no file"),
    "writes_rubbish": ("request.target.write_bytes(b'x'); return Imported()", 4, "it.bin, imported"),
}


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Return a function that runs `harness import` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(app, ["import", *map(str, arguments)])

    return run


def write_lenet(folder):
    (folder / "lenet.prototxt").write_text(caffe.LENET)
    (folder / "lenet.caffemodel").write_bytes(caffe.caffemodel(lenet_weights()))
    return "lenet.prototxt", "lenet.caffemodel"


def scored(folder, *arguments):
    """Run the suites on ONNX Runtime and return model -> top-1."""
    command = [sys.executable, "-m", "pytest", str(ROOT / "suites"), "-q", "-m", "accuracy", "-p", "no:cacheprovider"]
    command += [f"--rootdir={ROOT}", f"--report-dir={folder / 'reports'}", f"--engine-cache={folder / 'cache'}"]
    command += ["--backend=ort", "--precision=fp32", "--baseline=ignore", *arguments]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=own, timeout=200)
    summaries = list((folder / "reports").glob("2*/summary.json"))
    assert summaries, child.stdout + child.stderr
    return {case["id"]: case["accuracy"]["top1"] for case in json.loads(summaries[0].read_text())["cases"]}


def test_an_imported_net_scores_as_the_net_whose_weights_it_holds(tmp_path, call):
    result = call("caffe", *write_lenet(tmp_path), "-o", "mine", "--scale=1/255")
    assert result.exit_code == 0, result.output
    assert "input data: 1 x 28 x 28 (NCHW), scale 0.00392157; output prob: 10 classes, probabilities" in result.output
    assert "note:" not in result.output
    card = tmp_path / "mine" / "lenet.toml"
    top1 = scored(tmp_path, f"--model=lenet5,{card}", "--score-images=400")
    assert top1["lenet-ort-fp32"] == top1["lenet5-ort-fp32"] > 0.9


@pytest.mark.skipif(not (SHARED / "caffe").is_dir(), reason="Caffe's own LeNet is not in ../shared/data/caffe")
def test_caffes_own_lenet_scores_on_real_mnist(tmp_path, call):
    (tmp_path / "lenet.prototxt").write_text(caffe.LENET)
    weights = SHARED / "caffe" / "lenet_iter_10000.caffemodel"
    assert call("caffe", "lenet.prototxt", weights, "-o", "mine", "--scale=1/256").exit_code == 0
    data = ["--dataset=mnist", f"--data-dir={SHARED / 'mnist'}", "--split=train", "--score-images=1000"]
    assert scored(tmp_path, f"--model={tmp_path / 'mine' / 'lenet.toml'}", *data)["lenet-ort-fp32"] > 0.99


def test_the_card_says_what_was_imported_and_how(tmp_path, call):
    sources = write_lenet(tmp_path)
    result = call(
        "caffe", *sources, "-o", "a/b", "--name=digits", "--scale=0.5", "--mean=0.25", "--std=2", "--output-name=ip2"
    )
    assert result.exit_code == 0, result.output
    spec = load_card(tmp_path / "a" / "b" / "digits.toml")
    assert (spec.name, spec.scale, spec.mean, spec.std) == ("digits", 0.5, (0.25,), (2.0,))
    assert (spec.input_name, spec.output_name, spec.output_kind, spec.max_batch) == ("data", "ip2", "logits", None)
    assert spec.description == "LeNet, imported from caffe"
    card = (tmp_path / "a" / "b" / "digits.toml").read_text()
    for source in sources:
        assert f"{source} sha256 {sha256_of_file(tmp_path / source)[:12]}" in card
    assert find_model(str(tmp_path / "a" / "b" / "digits.onnx"), "models") == spec
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {"digits.onnx", "digits.toml"}


@pytest.mark.parametrize("end", ["", "; os.abort()"])
def test_what_a_framework_leaves_in_the_temporary_folder_goes_with_its_process(tmp_path, call, monkeypatch, end):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    (tmp_path / "ext" / "importers").mkdir(parents=True)
    what = f"import tempfile; print(tempfile.mkdtemp(prefix='home-')){end}; return Imported()"
    code = BROKEN.format(what=what, name="leaves", modules="()")
    (tmp_path / "ext" / "importers" / "leaves.py").write_text(code)
    (tmp_path / "it.bin").write_bytes(b"x")
    call("leaves", "it.bin", "-o", "mine", "--extension-dir=ext")
    assert not list(temporary.iterdir())


def test_a_source_that_does_not_tell_its_scale_is_said(tmp_path, call):
    result = call("caffe", *write_lenet(tmp_path), "-o", "mine")
    assert "note: the source does not say how pixels are scaled; the card says 1/255" in result.output


def test_nothing_is_overwritten(tmp_path, call):
    sources = write_lenet(tmp_path)
    (tmp_path / "lenet.toml").write_text("mine")
    result = call("caffe", *sources, "-o", ".")
    assert (result.exit_code, (tmp_path / "lenet.toml").read_text()) == (2, "mine")
    assert "lenet.toml exists; remove it, or choose another --name or --output" in result.output


@pytest.mark.parametrize("cut", [0, 1000, 1_700_000])
def test_a_truncated_file_is_one_line_and_leaves_nothing(tmp_path, call, cut):
    prototxt, weights = write_lenet(tmp_path)
    (tmp_path / weights).write_bytes((tmp_path / weights).read_bytes()[:cut])
    result = call("caffe", prototxt, weights, "-o", "mine")
    assert result.exit_code == 4
    assert result.stderr.startswith("ERROR: lenet.")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["kafe", "a"], "no importer is called 'kafe'; there are: caffe"),
        (["caffe", "a", "b", "--scale=1/0"], "--scale=1/0: expected numbers"),
        (["caffe", "a", "b", "--mean=x,1"], "--mean=x,1: expected numbers"),
        (["caffe", "a", "b", "--input-shape=1,x"], "--input-shape=1,x: expected whole numbers of at least 1"),
        (["caffe", "a", "b", "--python=/no/such/python"], "--python=/no/such/python: there is no such program"),
        (["caffe", "a", "b", "--name=a-b"], "--name=a-b: use letters"),
    ],
)
def test_a_wrong_request_is_one_line(tmp_path, call, arguments, expected):
    result = call(*arguments, "-o", "mine")
    assert result.exit_code == 2
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("way", WAYS)
def test_an_importer_that_breaks_costs_one_line(tmp_path, call, way):
    code, status, expected = WAYS[way]
    (tmp_path / "ext" / "importers").mkdir(parents=True)
    (tmp_path / "ext" / "importers" / f"{way}.py").write_text(BROKEN.format(what=code, name=way, modules=()))
    name = way.replace("_", "-")
    limit = ["--time-limit=1"] if way == "hangs" else []
    result = call(name, "it.bin", "-o", "mine", "--extension-dir=ext", *limit)
    assert result.exit_code == status
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "mine").exists()


def test_an_importer_without_its_framework_says_what_to_install(tmp_path, call):
    (tmp_path / "ext" / "importers").mkdir(parents=True)
    text = BROKEN.format(what="", name="absent", modules=("no_such_framework",))
    (tmp_path / "ext" / "importers" / "absent.py").write_text(text)
    result = call("absent", "it.bin", "-o", "mine", "--extension-dir=ext")
    assert result.exit_code == 2
    assert "importer absent needs no_such_framework" in result.stderr


def test_every_importer_says_what_it_takes():
    for name in list_importers():
        importer = find_importer(name)
        assert (importer.name, bool(importer.summary), bool(importer.takes)) == (name, True, True)
