"""An upgrade: the same cases under two interpreters, judged side B against side A, both versions in every line."""

import json
import re
from pathlib import Path

import pytest
from other_environments import make_environment
from typer.testing import CliRunner

from harness.cli import app
from harness.run.stored import load_judged_run

ROOT = Path(__file__).parents[2]
FAKES = ROOT / "tests" / "fakes"


@pytest.fixture(scope="module")
def environments(tmp_path_factory):
    """Return `environment(source of fake_runtime) -> its folder`, each made once."""
    known = {}

    def make(source):
        if source not in known:
            folder = tmp_path_factory.mktemp("environment") / "venv"
            make_environment(folder, modules={"fake_runtime": source} if source else {})
            known[source] = folder
        return known[source]

    return make


@pytest.fixture
def ab(tmp_path, monkeypatch, environments):
    """Return `ab(source of A's runtime, of B's, *words) -> result`, run in a folder of its own."""
    (tmp_path / "models").symlink_to(ROOT / "models", target_is_directory=True)
    monkeypatch.chdir(tmp_path)

    def run(a, b, *words):
        options = (
            *("--backend=fake-versioned", "--model=mlp", "--precision=fp32", "--score-images=300"),
            *("--batch-size=1", "--timing-rounds=6", "--engine-cache=cache", f"--extension-dir={FAKES}"),
        )
        places = (f"--a={environments(a)}", f"--b={environments(b)}")
        return CliRunner().invoke(app, ["ab", *places, *options, *words])

    return run


OLD, NEW = '__version__ = "1.0"', '__version__ = "2.0"'


def test_both_versions_stand_in_every_line_and_both_sides_run_one_file(ab, tmp_path):
    result = ab(OLD, NEW)
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("passed ")]
    assert re.match(r"passed +mlp-fake-versioned-fp32 +fake_runtime 1.0 -> 2.0 +identical  +\S+ to \S+ %$", line)
    assert "not gated: times of 1 of 1 cases: set --max-slowdown, or run harness calibrate" in result.output
    assert re.search(
        r"^side A: .*/bin/python, Python 3\.\S+: fake-versioned \(fake_runtime 1\.0\)$", result.output, re.M
    )
    (folder,) = (tmp_path / "reports" / "ab").iterdir()
    for name in ("index.html", "report.md", "summary.json"):
        text = (folder / name).read_text().replace("\\", "")
        assert re.search(r"fake_runtime 1.0 -(>|&gt;|u003e) 2.0", text), name
        assert "not gated: run harness calibrate" in text, name
    assert "1 files prepared by side A; side B ran the same ones" in (folder / "index.html").read_text()
    (case,) = json.loads((folder / "summary.json").read_text())["cases"]
    assert {verdict["upgrade"] for verdict in case["verdicts"]} == {"fake_runtime 1.0 -> 2.0"}
    paths = set()
    for letter, version in (("a", "1.0"), ("b", "2.0")):
        run, (record,) = load_judged_run(folder / letter)
        assert record.environment.versions["fake_runtime"] == version
        assert run.finished_at
        paths.add(record.artifact.onnx_path)
    assert len(paths) == 1
    assert not (folder / "latest").exists()  # no night of the history


def test_the_same_version_twice_passes(ab):
    result = ab(OLD, OLD, "--max-slowdown=50%")
    assert result.exit_code == 0, result.output
    assert re.search(
        r"^passed +mlp-fake-versioned-fp32 +fake_runtime 1.0 -> 1.0 +identical  \S+ to \S+ %, sees \S+ %$",
        result.output,
        re.M,
    )


def test_lost_images_regress(ab, tmp_path):
    result = ab(OLD, f'{NEW}\nFAULT = "loses"', "--b-label=next", "--no-timing")
    assert result.exit_code == 1, result.output
    upgrade = r"fake_runtime 1.0 -> next \(fake_runtime 2.0\)"
    assert re.search(rf"^regressed: mlp-fake-versioned-fp32: {upgrade}: top-1 .* lost", result.output, re.M)
    assert re.search(rf"^mlp-fake-versioned-fp32 regressed: {upgrade}: top-1", result.output, re.M)
    assert "batch 1" not in result.output


def test_a_slower_runtime_regresses_by_pairs_of_processes(ab, tmp_path):
    """What is slow beyond all noise is confirmed at the first look at pairs, each with the other version's process."""
    result = ab(OLD, f"{NEW}\nTIMES_SLOWER = 3", "--max-slowdown=50%", "--timing-rounds=6")
    assert result.exit_code == 1, result.output
    assert "mlp-fake-versioned-fp32: batch 1 may have changed: timed in pairs of processes" in result.output
    assert re.search(
        r"^regressed: mlp-fake-versioned-fp32: fake_runtime 1.0 -> 2.0: top-1 \S+ % unchanged, identical predictions; "
        r"batch 1: \S+ % slower than fake_runtime 1.0 timed again \(.* 4 pairs of processes\); accepted: 50.00 % ",
        result.output.replace("\N{NO-BREAK SPACE}", " "),
        re.M,
    )
    (folder,) = (tmp_path / "reports" / "ab").iterdir()
    _, (record,) = load_judged_run(folder / "b")
    (replay,) = record.replays
    assert replay.control_versions["fake_runtime"] == "1.0"
    assert replay.log_ratios.shape == (4,)
    assert not load_judged_run(folder / "a")[1][0].replays


def test_where_nothing_can_be_compared_there_is_no_verdict(ab):
    result = ab(OLD, f"{NEW}\nBREAKS = True")
    assert result.exit_code == 2, result.output
    assert "error: mlp-fake-versioned-fp32: fake_runtime 1.0 -> 2.0: side B ended in error" in result.output
    assert "ERROR: nothing could be compared" in result.output


# -- what is refused, in one line each


def only_error(result):
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("ERROR: ")]
    return line


def test_a_runtime_that_one_side_lacks_is_named_with_the_command(ab, environments):
    line = only_error(ab(OLD, ""))
    python = environments("") / "bin" / "python"
    assert line == f"ERROR: --b: {python} lacks fake-runtime: {python} -m pip install fake-runtime"


def test_a_runtime_of_another_environment_is_refused(ab, environments, tmp_path, monkeypatch):
    (site,) = environments(OLD).glob("lib/*/site-packages")
    monkeypatch.setenv("PYTHONPATH", str(site))
    line = only_error(ab(OLD, NEW))
    assert f"loads fake_runtime from {site}/fake_runtime.py, which is not in its own site-packages" in line
    assert line.startswith("ERROR: --b: ")
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--resume=latest"], "--resume means nothing between two sides of an upgrade; leave it out"),
        (["--update-baselines"], "--update-baselines means nothing between two sides"),
        (["--no-such-option"], "--no-such-option: no option of a run"),
        (["--score-images=many"], "--score-images=many: expected a whole number"),
        (["--precision"], "argument --precision: expected one argument"),
        (["mlp"], "mlp: no option of a run"),
    ],
)
def test_a_wrong_option_is_refused(ab, words, told):
    assert told in only_error(ab(OLD, NEW, *words))
