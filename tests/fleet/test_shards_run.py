"""Shards as they are run: by pytest from a plan, then merged by the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.machine.environment import collect_environment
from harness.run.stored import load_judged_run
from harness.store.runs import load_run

ROOT = Path(__file__).parents[2]
FLEET = f"""
[run]
model = ["mlp"]
precision = ["fp32"]
backend = ["fake-honest"]
score_images = 200
batch_size = [1]
timing_rounds = 6
extension_dir = ["{ROOT / "tests" / "fakes"}"]

[[device]]
name = "here"
type = "{collect_environment().device_type}"

[[device]]
name = "gone"
type = "NVIDIA Gone"
"""


@pytest.fixture
def fleet(pytester):
    """Return a function that runs one shard of a planned fleet, in a folder of its own."""
    for name in ("suites", "models"):
        (pytester.path / name).symlink_to(ROOT / name, target_is_directory=True)
    pytester.makeconftest('pytest_plugins = ("harness.plugin",)')
    pytester.makeini("[pytest]\naddopts = --report-dir=shards -p no:cacheprovider --import-mode=importlib")
    (pytester.path / "fleet.toml").write_text(FLEET)
    planned = call("plan")
    assert planned.exit_code == 0, planned.output
    return lambda *args: pytester.runpytest_inprocess("suites/", *args)


def call(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def merged(pytester, name):
    """Merge all shards: the exit code, what is printed, and the cases of the run."""
    result = call("merge", "shards", "-o", f"reports/{name}")
    run, records = load_judged_run(pytester.path / "reports" / "latest")
    assert run.id == name
    return result, [(r.case.id, str(r.status), r.reason) for r in records if not r.is_reference]


def test_shards_are_run_from_the_plan_and_merge_to_a_run(fleet, pytester):
    gone = ("mlp-fake-honest-fp32", "error", "shard 1 never came (gone, mlp)")
    assert fleet("--shard=0", "-k", "not latency").ret == 0
    result, cases = merged(pytester, "half")
    assert result.exit_code == 1, "a shard of which tests were left out cannot pass"
    assert cases == [("mlp-fake-honest-fp32", "error", "shard 0 was not run to its end"), gone]

    assert fleet("--shard=0", "--shard-attempt=2").ret == 0
    (folder,) = (pytester.path / "shards").glob("*-shard0-2")
    assert not (pytester.path / "shards" / "latest").exists(), "a part of a night is not the latest run"
    run, _ = load_run(folder)
    assert (run.shard.is_whole, run.shard.attempt) == (True, 2)
    assert run.shard.host
    assert {"latency", "floor", "presence"} <= set(run.due_gates) <= set(run.gates)
    assert not {"drift", "metric", "buildtime"} & set(run.due_gates)
    result, cases = merged(pytester, "whole")
    assert result.exit_code == 1
    assert "1 planned cases never came" in result.output
    assert cases == [("mlp-fake-honest-fp32", "passed", ""), gone]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--shard=1",), "shard 1 of * is planned for NVIDIA Gone; fake-honest has * here"),
        (("--shard=2",), "--shard=2: the plan has shards 0 to 1"),
        (("--shard=-1",), "--shard counts from 0"),
        (("--shard=0", "--score-images=100"), "--score-images: the plan of the shards decides this"),
        (("--shard=0", "--model=mlp"), "--model: the plan of the shards decides this"),
        (("--shard=0", "--update-baselines"), "a shard writes no baselines"),
        (("--shard=0", "--strict-verdicts"), "--strict-verdicts: the plan"),
        (("--shard=0", "--shard-plan=nowhere.json"), "nowhere.json: no plan of shards"),
    ],
)
def test_a_shard_that_is_not_as_planned_is_refused_before_anything_is_measured(fleet, pytester, words, says):
    result = fleet(*words)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *{says.replace('[', '[[]')}*"])
    assert not list(pytester.path.glob("shards/*"))


def test_a_shard_at_another_commit_is_refused(fleet, pytester):
    plan = json.loads((pytester.path / "shards.json").read_text())
    (pytester.path / "shards.json").write_text(json.dumps({**plan, "commit": "0123456"}))
    result = fleet("--shard=0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *is planned at commit 0123456; this checkout is none*"])
