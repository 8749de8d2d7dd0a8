"""Bisecting finds what made a case worse, in few steps, whatever the noise leaves of it."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from comparison_records import ENVIRONMENT, accuracy_with, latency_with, record_with
from render_records import make_run
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import ConfigError, MeasurementError
from harness.fleet.bisecting import bisect_states, locks_between
from harness.fleet.last_good import BadNight, states_between
from harness.fleet.states import states_of_commits, value_of
from harness.store.history import HistoryRun, Metric, Step
from harness.store.nights import write_night
from harness.store.runs import RunStore

CASE = "lenet5-ort-fp32"
COMMAND = "pytest suites/ --backend=ort --model=lenet5 --precision=fp32"


def machine(first_bad, *, slow=1.05, noise=0.01, seed=0):
    """A measurement of times: states from `first_bad` on are slower."""
    generator = np.random.default_rng(seed)
    return lambda state: 1e6 * (slow if state >= first_bad else 1.0) * generator.normal(1, noise)


@pytest.mark.parametrize("first_bad", range(1, 17))
def test_a_slow_wheel_among_16_is_found_in_5_steps(first_bad):
    found = bisect_states(17, machine(first_bad, seed=first_bad), metric="p50_ns")
    assert found.first_bad == first_bad
    assert len(found.steps) <= 5
    assert found.change == pytest.approx(np.log(1.05), abs=0.02)


def test_noise_costs_trials_and_hardly_a_wrong_answer():
    right = trials = 0
    for seed in range(200):
        found = bisect_states(17, machine(7, noise=0.015, seed=seed), metric="p50_ns")
        right += found.first_bad == 7
        trials += sum(step.n_trials for step in found.steps)
    assert right >= 190
    assert 25 < trials / 200 < 60


def test_lost_images_are_found_and_take_the_fewest_trials():
    found = bisect_states(17, lambda state: 0.9915 - 0.0002 * (state >= 11), metric="top1")
    assert found.first_bad == 11
    assert found.change == pytest.approx(0.0002)
    assert {step.n_trials for step in found.steps} == {5}


def test_two_states_need_one_step():
    assert len(bisect_states(2, machine(1), metric="p50_ns").steps) == 1


def test_the_state_and_the_first_one_are_measured_in_turn():
    asked = []
    bisect_states(2, lambda state: asked.append(state) or (2.0 if state else 1.0), metric="p50_ns")
    assert asked[:4] == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("measure", "n_states", "says"),
    [
        (machine(99), 17, "no worse than the first"),
        (machine(0, slow=1.2), 17, "no worse than the first"),
        (machine(1, slow=0.9), 17, "no worse than the first"),
        (lambda state: float("nan"), 17, "cannot be compared"),
        (lambda state: 0.0, 17, "are none"),
        (machine(1), 1, "a good and a bad one"),
    ],
)
def test_what_cannot_be_found_is_told(measure, n_states, says):
    with pytest.raises(MeasurementError, match=says):
        bisect_states(n_states, measure, metric="p50_ns")


def test_noise_that_hides_the_change_is_an_error_and_no_answer():
    flips = iter(range(10_000))

    def measure(state):
        return 1.0 if state == 0 else 1.0 + (0.5 if next(flips) % 2 else 0.0)

    with pytest.raises(MeasurementError, match=r"30 of 60 trials call it bad; the noise hides the change"):
        bisect_states(17, measure, metric="p50_ns")


# -- lock files


GOOD = "# locked\n--index-url=none\n" + "".join(f"wheel-{number:02}==1.{number}\n" for number in range(20))
BAD = GOOD.replace("==1.", "==2.", 16)


def test_between_two_lock_files_lie_their_changes_one_by_one():
    states = locks_between(GOOD, BAD)
    assert len(states) == 17
    assert states[1][0] == "wheel-00 1.0 -> 2.0"
    assert states[0][1].splitlines()[2:] == GOOD.splitlines()[2:]
    assert set(states[-1][1].splitlines()) == set(BAD.splitlines())
    assert states[8][1].count("==2.") == 8
    assert all(text.startswith("# locked\n--index-url=none\n") for _, text in states)


def test_packages_that_come_and_go_are_changes():
    states = locks_between("b==1\nA_x==1 ; python_version > '3'\n", "b==1\nc==2\n")
    assert [name for name, _ in states] == ["", "a-x 1 -> absent", "c absent -> 2"]
    assert [text for _, text in states] == ["A_x==1 ; python_version > '3'\nb==1\n", "b==1\n", "b==1\nc==2\n"]


# -- the command, with stubs for pip, venv and the engines


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    """A run with the case, two lock files, and processes that answer as if wheel 11 were slow."""
    monkeypatch.chdir(tmp_path)
    run, _ = make_run(1)
    RunStore(tmp_path / "reports", run).finish(run, [record_with(command=COMMAND)], summary=b"{}")
    (tmp_path / "good.txt").write_text(GOOD)
    (tmp_path / "bad.txt").write_text(BAD)
    calls = []

    def process(words, **_):
        calls.append(words)
        if words[1:3] == ["-m", "venv"]:
            python = Path(words[3]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch()
        if words[1:3] == ["-m", "pytest"]:
            given = dict(word.partition("=")[::2] for word in words if word.startswith("--"))
            lock = (Path(given["--worker-python"]).parent.parent / "requirements.txt").read_text()
            slow = 1.05 if "wheel-11==2.11" in lock else 1.0
            noise = np.random.default_rng(len(calls)).normal(1, 0.005)
            found = record_with(accuracy_with(), latencies=(latency_with(medians=[1000 * slow * noise] * 20),))
            named = replace(run, id=f"run{len(calls)}")
            RunStore(Path(given["--report-dir"]), named).finish(named, [found], summary=b"{}")
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr("harness.fleet.states.subprocess.run", process)
    return calls


def call(*words):
    return CliRunner().invoke(app, ["bisect", *words])


def test_the_command_finds_the_slow_wheel_and_makes_each_environment_once(fleet):
    result = call(CASE, "--good=good.txt", "--bad=bad.txt")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "16 changes between good.txt and bad.txt"
    assert len(lines) == 7
    assert lines[-1].startswith(f"{CASE}: time +")
    assert lines[-1].endswith("since wheel-11 1.11 -> 2.11, found in 5 steps")
    made = [words[3] for words in fleet if words[1:3] == ["-m", "venv"]]
    assert len(made) == len(set(made)) == 6, "the good state and five others"
    repeated = next(words for words in fleet if words[1:3] == ["-m", "pytest"])
    assert shlex.join(["pytest", *repeated[3:]]).startswith(COMMAND)
    assert repeated[0] == sys.executable


def write_nights(folder, run, versions_of, n=16, *, slow_from=8):
    """Nights of the case, which is slow from one of them on; `versions_of` says what each recorded."""
    for number in range(n):
        generator = np.random.default_rng(number)
        times = latency_with(medians=1000 * (1.05 if number >= slow_from else 1.0) * generator.normal(1, 0.002, 20))
        begun = f"2026-11-{number + 1:02}T01:00:00+00:00"
        named = replace(run, id=f"night{number + 1}", started_at=begun)
        environment = replace(ENVIRONMENT, **{"versions": {}, **versions_of(number)})
        record = record_with(accuracy_with(), latencies=(times,), engine=None)
        write_night(folder, named, [replace(record, environment=environment)])


def test_without_ends_the_nights_around_the_newest_step_say_what_to_try(fleet, tmp_path):
    pytest.importorskip("duckdb", reason="the extra `history` is not installed")
    run, _ = make_run(1)

    def wheels(number):
        return {"versions": {f"wheel-{place:02}": f"{1 + (number >= 8)}.{place}" for place in range(16)}}

    write_nights(tmp_path / "reports" / "history", run, wheels)
    result = call(CASE)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    told = f"{CASE} on {ENVIRONMENT.device_type}: worse since run night9 (good in night8); wheel-00 1.0 -> 2.0, "
    assert lines[0].startswith(told)
    assert lines[1].startswith("16 changes between ")
    assert lines[-1].endswith("since wheel-11 1.11 -> 2.11, found in 5 steps")


def test_nights_that_differ_in_no_package_or_commit_are_told(fleet, tmp_path):
    pytest.importorskip("duckdb", reason="the extra `history` is not installed")
    run, _ = make_run(1)
    write_nights(tmp_path / "reports" / "history", run, lambda n: {"driver": "580.82" if n >= 8 else "580.65"})
    result = call(CASE)
    assert result.exit_code == 2
    assert "driver 580.65 -> 580.82: no package or commit that could be taken back" in result.output
    held = call(CASE, "--top1")
    assert (held.exit_code, "has not become worse for good" in held.output) == (2, True)


def test_nights_of_two_commits_name_them():
    night = BadNight(
        device_type="x",
        step=Step(case_id=CASE, metric=Metric(name="top1"), run_index=1, before=1.0, after=0.9),
        before=HistoryRun(id="a", started_at="1", versions={"numpy": "2.0", "commit": "abc"}),
        after=HistoryRun(id="b", started_at="2", versions={"numpy": "2.0", "commit": "def"}),
    )
    assert states_between(night) == ("commits", ("abc", "def"))
    newer = replace(night, after=replace(night.after, versions={"numpy": "2.1", "commit": "def", "driver": "580"}))
    what, (good, bad) = states_between(newer)
    assert what == "packages", "they are tried first"
    assert set(good.splitlines()) ^ set(bad.splitlines()) == {"numpy==2.0", "numpy==2.1"}
    assert re.search(r"^msgspec==\d", good, re.MULTILINE), "what the harness itself needs is there too"
    changed = replace(night, after=replace(night.after, versions={"numpy": "2.0", "commit": "def+"}))
    with pytest.raises(ConfigError, match="no package or commit"):
        states_between(changed)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((CASE, "--good=good.txt"), "name two lock files or two commits"),
        (("mlp-ort-fp32", "--good=good.txt", "--bad=bad.txt"), "has no case mlp-ort-fp32"),
        ((CASE, "--good=good.txt", "--bad=good.txt"), "the same packages"),
        ((CASE, "--good=good.txt", "--bad=HEAD"), "two lock files or two commits"),
        ((CASE, "--good=bad.txt", "--bad=good.txt"), "nothing to find"),
        ((CASE, "--good=good.txt", "--bad=bad.txt", "--top1"), "nothing to find"),
        ((CASE, "--good=good.txt", "--bad=bad.txt", "--batch-size=7"), "was not timed: 7"),
    ],
)
def test_what_the_command_cannot_do_is_one_line(fleet, words, says):
    result = call(*words)
    assert result.exit_code == 2
    assert says in result.output


def test_a_state_that_cannot_be_run_is_told_with_the_end_of_its_output(fleet, monkeypatch):
    failed = subprocess.CompletedProcess([], 4, "", "collecting\nERROR: no backend can run here\n")
    monkeypatch.setattr("harness.fleet.states.prepare", lambda state: None)
    monkeypatch.setattr("harness.fleet.states.subprocess.run", lambda *_, **__: failed)
    result = call(CASE, "--good=good.txt", "--bad=bad.txt")
    assert result.exit_code == 2
    assert "cannot be run: collecting | ERROR: no backend can run here" in result.output


def test_a_value_that_a_run_lacks_is_told():
    record = record_with(error="the worker crashed")
    for metric in ("top1", "p50_ns"):
        with pytest.raises(MeasurementError, match="the worker crashed"):
            value_of([record], record, metric=metric, batch_size=None)
    with pytest.raises(MeasurementError, match="has no case"):
        value_of([], record, metric="top1", batch_size=None)


def test_commits_between_two_are_states_with_worktrees_of_their_own(tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    repository.mkdir()
    monkeypatch.chdir(repository)

    def git(*words):
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        return subprocess.run(["git", *identity, *words], check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    commits = []
    for number in range(4):
        (repository / "file").write_text(json.dumps(number))
        git("add", "file")
        git("commit", "-qm", f"change {number}")
        commits.append(git("rev-parse", "HEAD"))
    states = states_of_commits(commits[0], "HEAD", tmp_path / "trees")
    assert [state.name for state in states] == [commit[:12] for commit in commits]
    from harness.fleet.states import prepare

    prepare(states[1])
    assert (states[1].checkout / "file").read_text() == "1"
    prepare(states[1])
    with pytest.raises(ConfigError, match="no commit lies between"):
        states_of_commits("HEAD", "HEAD", tmp_path / "trees")
    with pytest.raises(ConfigError, match="unknown revision"):
        states_of_commits("HEAD", "nowhere", tmp_path / "trees")
