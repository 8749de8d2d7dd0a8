"""The recipes for schedulers are text that works: their commands are run with stubs, and every flag in them exists."""

import os
import re
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness.options.table import all_rows
from tests.test_docs import harness_commands

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "docs" / "fleet"
YAML = ("kubernetes.yaml", "github.yml", "gitlab.yml")


@pytest.fixture
def shell(tmp_path):
    """Return a function that runs a command line with stubs of pytest and harness, and returns how they were called."""
    calls, exit_code = tmp_path / "calls", tmp_path / "exit"
    for name in ("pytest", "harness"):
        stub = tmp_path / "bin" / name
        stub.parent.mkdir(exist_ok=True)
        stub.write_text(f'#!/bin/bash\necho "{name} $*" >> {calls}\nexit $(cat {exit_code})\n')
        stub.chmod(stub.stat().st_mode | stat.S_IXUSR)

    def run(script, *, code=0, **variables):
        calls.unlink(missing_ok=True)
        exit_code.write_text(str(code))
        environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", **variables}
        done = subprocess.run(["bash", "-c", script], env=environment, cwd=tmp_path, check=False)
        return done.returncode, calls.read_text().splitlines()

    return run


def loaded(name):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return yaml.safe_load((RECIPES / name).read_text())


def test_slurm_runs_the_shard_of_its_place_and_counts_its_tries(shell):
    script = (RECIPES / "slurm.sh").read_text()
    expected = "pytest suites/ --shard=7 --shard-plan=shards.json --shard-attempt={} --report-dir=shards"
    assert shell(script, SLURM_ARRAY_TASK_ID="7") == (0, [expected.format(1)])
    assert shell(script, SLURM_ARRAY_TASK_ID="7", SLURM_RESTART_COUNT="2") == (0, [expected.format(3)])
    assert shell(script, SLURM_ARRAY_TASK_ID="7", code=1)[0] == 0, "a failed verdict is no failed job"
    assert shell(script, SLURM_ARRAY_TASK_ID="7", code=3)[0] != 0, "a shard that broke is"
    for words in re.findall(r"#     (sbatch .*)", script):
        assert subprocess.run(["bash", "-n", "-c", words], check=False).returncode == 0


def test_kubernetes_runs_the_shard_of_its_index(shell):
    job = loaded("kubernetes.yaml")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["bash", "-c"]
    (script,) = container["args"]
    first = {entry["name"]: entry["value"] for entry in container["env"]}
    code, (called,) = shell(script, **{**first, "FIRST": "40"}, JOB_COMPLETION_INDEX="2")
    assert (code, called) == (0, "pytest suites/ --shard=42 --shard-plan=/fleet/shards.json --report-dir=/fleet/shards")
    assert shell(script, **first, JOB_COMPLETION_INDEX="2", code=1)[0] == 0
    assert shell(script, **first, JOB_COMPLETION_INDEX="2", code=4)[0] != 0
    assert job["spec"]["completionMode"] == "Indexed"


def test_gitlab_runs_every_shard_once_from_the_first(shell):
    jobs = loaded("gitlab.yml")
    (script,) = jobs["h100"]["script"]
    called = [shell(script, FIRST="10", CI_NODE_INDEX=str(index))[1] for index in (1, 2)]
    assert called == [[f"pytest suites/ --shard={number} --report-dir=shards"] for number in (10, 11)]
    assert shell(script, FIRST="0", CI_NODE_INDEX="1", code=1)[0] == 0
    assert jobs["merge"]["when"] == "always"
    assert shell(jobs["merge"]["script"][0], code=1) == (1, ["harness merge shards -o reports/night"])


def test_github_merges_whatever_the_shards_did(shell):
    jobs = loaded("github.yml")["jobs"]
    assert jobs["shard"]["strategy"]["fail-fast"] is False
    assert jobs["merge"]["if"] == "always()"
    (script,) = [step["run"] for step in jobs["shard"]["steps"] if "pytest" in step.get("run", "")]
    filled = script.replace("${{ matrix.number }}", "5").replace("${{ github.run_attempt }}", "2")
    assert "${{" not in filled
    assert shell(filled, code=1) == (0, ["pytest suites/ --shard=5 --shard-attempt=2 --report-dir=shards"])
    (merge,) = [step["run"] for step in jobs["merge"]["steps"] if "harness merge" in step.get("run", "")]
    assert shell(merge, code=1)[0] == 1


def test_the_matrix_of_github_is_what_the_plan_says(tmp_path):
    import json
    import shutil

    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    from fleet_records import by_shard, night, plan_of

    from harness.store.shard_plans import write_plan

    plan = plan_of(by_shard(night()))
    measured = replace(plan.shards[1], deadline_s=1801.0)
    write_plan(replace(plan, shards=(plan.shards[0], measured, *plan.shards[2:])), tmp_path / "shards.json")
    program = re.search(r"jq -c '(.*)' shards.json", (RECIPES / "github.yml").read_text())[1]
    found = subprocess.run(["jq", "-c", program, tmp_path / "shards.json"], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout)[:2] == [
        {"number": 0, "device": "small", "minutes": 60},
        {"number": 1, "device": "small", "minutes": 31},
    ]
    assert len(json.loads(found.stdout)) == 4


def test_every_recipe_ends_a_shard_that_hangs():
    assert "#SBATCH --time=" in (RECIPES / "slurm.sh").read_text()
    assert loaded("kubernetes.yaml")["spec"]["template"]["spec"]["activeDeadlineSeconds"] > 0
    assert loaded("gitlab.yml")["h100"]["timeout"]
    assert loaded("github.yml")["jobs"]["shard"]["timeout-minutes"] == "${{ matrix.minutes }}"


@pytest.mark.parametrize("name", ["slurm.sh", *YAML])
def test_every_flag_in_a_recipe_exists(name):
    text = (RECIPES / name).read_text()
    commands, rows = harness_commands(), {row.flag for row in all_rows()}
    for line in re.sub(r"(\\\n| >-)?\n +(?=--)", " ", text).splitlines():
        for command, known in [("pytest suites/", rows), *((c, flags) for c, flags in commands.items())]:
            if command in line:
                flags = set(re.findall(r"(--[a-z][\w-]+)", line.partition(command)[2].partition("||")[0]))
                assert flags <= known, f"{name}: {line}"


def test_the_fleet_s_file_in_the_docs_can_be_planned(tmp_path):
    from harness.fleet.planning import plan_fleet

    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "fleet.md").read_text(), re.DOTALL)
    (tmp_path / "fleet.toml").write_text(text)
    plan = plan_fleet(tmp_path / "fleet.toml", root=tmp_path, models_dir=ROOT / "models")
    assert plan.devices == ("h100", "epyc")
    assert [shard.model for shard in plan.shards] == ["lenet5", "mlp"] * 2
