"""`harness init` and `harness card`: an empty folder becomes a project whose run passes."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx_nets
import pytest
from graph_nets import write_net
from typer.testing import CliRunner

from harness.cli import app
from harness.models import find_model, load_card
from harness.options.file import read_toml
from harness.options.parsing import options_from_namespace
from harness.options.table import all_rows
from harness.options.template import OF_ONE_RUN, settings_text
from harness.options.values import HarnessOptions

ROOT = Path(__file__).parents[2]
QUICK = ("--backend=ort", "--precision=fp32", "--score-images=500", "--batch-size=1", "--timing-rounds=6")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return an otherwise empty folder with a model, which is the current one."""
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime")
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "models" / "mlp.onnx", tmp_path / "my.onnx")
    return tmp_path


def call(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def run(folder, *words):
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**own, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "harness", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_an_empty_folder_becomes_a_project_whose_run_passes(project):
    told = call("init", "my.onnx", "--ci=github,gitlab,jenkins")
    assert told.exit_code == 0, told.output
    files = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
    assert files == {
        *("my.onnx", "my.toml", "harness.toml", ".gitignore", "suites/baselines/README.md"),
        *(f"suites/{path.name}" for path in (ROOT / "suites").glob("test_*.py")),
        *(".github/workflows/harness.yml", ".gitlab-ci.yml", "Jenkinsfile"),
    }
    end = run(project, "run", *QUICK, f"--engine-cache={project / 'cache'}", "-p", "no:cacheprovider", "--floor=0")
    assert end.returncode == 0, end.stdout + end.stderr
    assert f"rootdir: {project}\n" in end.stdout
    accepted = run(project, "baseline", "accept")
    assert "wrote suites/baselines/predictions/strokes-test/cpu/my-ort-fp32.json" in accepted.stdout, accepted.stderr
    assert call("comment").output.startswith("<!-- nn-engine-harness -->\n## No regression: 1 of 1 case passed.")


def test_what_is_there_stays(project):
    (project / "my.toml").write_text("mine")
    (project / "suites").mkdir()
    (project / "suites" / "test_build.py").write_text("mine")
    told = call("init", "my.onnx", "--ci=none")
    assert told.exit_code == 0, told.output
    assert (project / "my.toml").read_text() == (project / "suites" / "test_build.py").read_text() == "mine"
    assert f"kept {project / 'my.toml'}, which was there" in told.output
    assert not (project / ".github").exists()
    n_suites = len(list((ROOT / "suites").glob("test_*.py")))
    assert call("init", "my.onnx", "--ci=none").output.count("kept ") == 4 + n_suites


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["init", "my.onnx", "--ci=circle"], 2, "choose from github, gitlab, jenkins, or none"),
        (["init", "absent.onnx"], 4, "absent.onnx: no such model file"),
        (["init", ROOT / "models" / "mlp.onnx"], 2, "does not lie below"),
        (["card", "my.onnx", "-o", "elsewhere/my.toml"], 2, "a card lies in the folder of its file"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(project, words, code, says):
    before = sorted(project.rglob("*"))
    told = call(*words)
    assert (told.exit_code, says in told.output) == (code, True), told.output
    assert sorted(project.rglob("*")) == before


def test_a_card_says_what_the_file_says(project):
    told = call("card", "my.onnx")
    assert told.exit_code == 0, told.output
    assert "10 classes; the output counts as probabilities, since a Softmax makes it" in " ".join(told.output.split())
    spec = find_model("my.onnx", project)
    assert spec == load_card(project / "my.toml")
    digest = hashlib.sha256((project / "my.onnx").read_bytes()).hexdigest()
    assert (spec.input_name, spec.input_shape, spec.num_classes, spec.timing_only) == ("image", (1, 28, 28), 10, False)
    assert spec.sha256 == digest, "not in the card, read from the file"
    assert digest not in (project / "my.toml").read_text()
    assert "exists" in call("card", "my.onnx").output


def test_a_card_with_a_digest_is_of_those_bytes_alone(project):
    assert call("card", "my.onnx", "--sha256").exit_code == 0
    load_card(project / "my.toml")
    (project / "my.onnx").write_bytes((project / "my.onnx").read_bytes() + b"\0")
    with pytest.raises(Exception, match="is not the"):
        load_card(project / "my.toml")


def test_a_model_that_no_bundled_data_fits_is_timed_only_and_told_so(project):
    onnx_nets.tiny_net(project / "small.onnx")
    told = call("init", "small.onnx", "--ci=none")
    assert "no bundled data set has such images" in told.output
    assert load_card(project / "small.toml").timing_only
    assert "dataset" not in read_toml(project / "harness.toml")["run"]


OF_TOLERANCE = ("alpha", "max_drop", "max_slowdown", "max_build_slowdown", "max_engine_growth", "max_memory_growth")


def test_a_card_of_any_graph_says_what_it_takes(project):
    onnx_nets.two_input_net(project / "two.onnx")
    told = call("card", "two.onnx")
    assert told.exit_code == 0, told.output
    assert "taken as a model of any graph (has 2 inputs" in told.output
    assert "classes" not in told.output
    assert "[graph]" in (project / "two.toml").read_text()
    assert load_card(project / "two.toml").graph is not None


def test_a_card_of_a_graph_with_free_axes_takes_what_its_refusal_asks_for(project):
    write_net(project, "text")
    refused = call("card", "text.onnx")
    assert (refused.exit_code, "--shapes=ids:" in refused.output) == (4, True), refused.output
    told = call("card", "text.onnx", "--shapes=ids:1x7,mask:1x7", "--input-range=ids:0..3")
    assert told.exit_code == 0, told.output
    graph = load_card(project / "text.toml").graph
    assert dict(graph.shapes) == {"ids": (1, 7), "mask": (1, 7)}
    assert dict(graph.ranges) == {"ids": (0, 3), "mask": (0, 1)}
    wrong = call("card", "text.onnx", "-o", "b.toml", "--shapes=ids")
    assert (wrong.exit_code, "--shapes=ids: expected NAME:DIMS" in wrong.output) == (2, True), wrong.output


def test_every_option_stands_in_the_settings_and_its_default_can_be_uncommented(tmp_path):
    text = settings_text({})
    lines = [line for line in text.splitlines() if line.startswith("# ") and " = " in line.partition("  # ")[0] + " "]
    keys = {line.removeprefix("# ").partition(" =")[0] for line in lines}
    assert {row.key for row in all_rows() if row.field not in OF_ONE_RUN and not row.belongs_in} <= keys
    given = [line.removeprefix("# ") for line in lines if "=  #" not in line]
    of_run = [line for line in given if line.partition(" =")[0] not in OF_TOLERANCE]
    (tmp_path / "harness.toml").write_text("\n".join(["[run]", *of_run]))
    options = options_from_namespace(object(), root=tmp_path)
    plain = HarnessOptions(
        root=str(tmp_path), report_dir=str(tmp_path / "reports"), baseline_dir=str(tmp_path / "suites/baselines")
    )
    assert len(of_run) > 30
    assert options.settings == plain.settings
    assert (options.backends, options.precisions, options.timing, options.baseline, options.strict) == (
        *(plain.backends, plain.precisions, plain.timing),
        *(plain.baseline, plain.strict),
    )
