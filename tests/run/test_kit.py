"""The CI files that `harness init` writes: of the form their systems take, and their shell steps run."""

import os
import re
import stat
import subprocess

import pytest

from harness.options.table import all_rows
from harness.run.adopting import CI_FILES, KIT
from tests.test_docs import harness_commands

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
# What the systems' own references allow at these places.
GITHUB_JOB = {"if", "runs-on", "timeout-minutes", "steps", "needs", "env", "strategy"}
GITHUB_STEP = {"uses", "with", "run", "if", "env", "name", "id"}
GITLAB_JOB = {"extends", "image", "rules", "script", "after_script", "tags", "artifacts", "stage", "variables"}


def github():
    return yaml.load((KIT / "github.yml").read_text(), Loader=yaml.BaseLoader)  # YAML 1.1 reads `on` as true


def gitlab():
    return yaml.safe_load((KIT / "gitlab.yml").read_text())


def shell_steps():
    """Return (file, name, shell text) of every step that a shell runs."""
    found = []
    for job, content in github()["jobs"].items():
        found += [("github", f"{job} {step['name']}", step["run"]) for step in content["steps"] if "run" in step]
    for job, content in gitlab().items():
        for part in ("script", "after_script"):
            found += [("gitlab", f"{job} {part} {i}", line) for i, line in enumerate(content.get(part, []))]
    text = (KIT / "Jenkinsfile").read_text()
    return found + [("jenkins", f"sh {i}", line) for i, line in enumerate(re.findall(r"sh '([^']*)'", text))]


@pytest.fixture
def shell(tmp_path):
    """Return a function that runs a step with stubs of python3, pip and harness, and returns what they were asked."""
    calls = tmp_path / "calls"
    for name in ("bin/pip", "bin/harness", "bin/python3", ".venv/bin/pip", ".venv/bin/harness"):
        stub = tmp_path / name
        stub.parent.mkdir(parents=True, exist_ok=True)
        stub.write_text(f'#!/bin/bash\necho "{stub.name} $*" >> {calls}\n')
        stub.chmod(stub.stat().st_mode | stat.S_IXUSR)

    def run(text):
        variables = {"HARNESS": "nn-engine-harness", "NUMBER": "7", "CI_MERGE_REQUEST_IID": "7"}
        variables |= {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
        end = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", text], cwd=tmp_path, env={**os.environ, **variables}, check=False
        )
        return end.returncode, calls.read_text().splitlines()

    return run


@pytest.mark.parametrize(("system", "name", "text"), shell_steps(), ids=lambda value: str(value)[:30])
def test_every_shell_step_runs_and_its_words_are_ones_we_take(system, name, text, shell):
    assert "${{" not in text, "an expression inside a shell step is how a branch's name becomes a command"
    code, calls = shell(text)
    assert (code, bool(calls)) == (0, True)
    pytests = {"--junit-xml"} | {row.flag for row in all_rows()}
    for line in calls:
        program, *words = line.split()
        if program == "harness":
            known = harness_commands()[f"harness {words[0]}"] | (pytests if words[0] == "run" else set())
            assert {word.partition("=")[0] for word in words[1:] if word.startswith("--")} <= known
        elif program == "pip":
            assert re.fullmatch(r"install nn-engine-harness\[(cpu|trt)\]", " ".join(words))


def test_every_system_drills_before_each_run():
    runs = [(name, text) for _, name, text in shell_steps() if "harness run" in text]
    drills = [text.endswith("run -m fire_drill") for _, text in runs]
    assert drills == [True, False] * 5, runs  # two jobs of GitHub, two of GitLab, one of Jenkins


def test_the_github_workflow_has_the_form_of_one():
    workflow = github()
    assert set(workflow) == {"name", "on", "permissions", "env", "jobs"}
    assert set(workflow["on"]) == {"pull_request", "schedule", "workflow_dispatch"}
    assert all(re.fullmatch(r"(\S+ ){4}\S+", entry["cron"]) for entry in workflow["on"]["schedule"])
    assert workflow["permissions"] == {"contents": "read", "pull-requests": "write"}
    for job in workflow["jobs"].values():
        assert set(job) <= GITHUB_JOB
        assert {"runs-on", "steps", "timeout-minutes"} <= set(job)
        for step in job["steps"]:
            assert set(step) <= GITHUB_STEP
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/x@v1"))
    assert workflow["jobs"]["gpu"]["runs-on"] == ["self-hosted", "gpu"]
    assert "pull_request" in workflow["jobs"]["gpu"]["if"], "a stranger's pull request runs on no machine of yours"


def test_the_gitlab_pipeline_has_the_form_of_one():
    jobs = {name: job for name, job in gitlab().items() if name != "variables"}
    for name, job in jobs.items():
        assert set(job) <= GITLAB_JOB
        assert name.startswith(".") or (job["script"] and job["extends"] in jobs)
    assert jobs[".harness"]["artifacts"]["when"] == "always", "a red night has a report too"


def test_the_jenkinsfile_is_balanced_and_keeps_the_report_of_a_red_night():
    text = re.sub(r"//.*|'[^']*'", "", (KIT / "Jenkinsfile").read_text())
    for opening, closing in ("{}", "()"):
        assert text.count(opening) == text.count(closing)
    assert re.search(r"post \{\s+always \{", text)


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.trt"])
def test_a_dockerfile_names_its_base_as_an_argument_and_what_it_copies_is_there(name):
    lines = (KIT / name).read_text().replace("\\\n", " ").splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    assert [entry[0] for entry in words][:2] == ["ARG", "FROM"]
    assert words[1] == ["FROM", "${BASE}"]
    assert {entry[0] for entry in words} <= {"ARG", "FROM", "COPY", "RUN", "WORKDIR", "CMD", "ENV"}
    for line in lines:
        if line.startswith("RUN "):
            assert subprocess.run(["bash", "-n", "-c", line.removeprefix("RUN ")], check=False).returncode == 0


def test_every_system_has_its_file():
    assert {name for name, _ in CI_FILES.values()} | {"Dockerfile.cpu", "Dockerfile.trt"} == {
        path.name for path in KIT.iterdir()
    }
