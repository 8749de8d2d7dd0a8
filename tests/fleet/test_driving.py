"""Driving gets every shard run once, again where one is lost or late, and goes on where an earlier driver ended."""

import stat
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from fleet_records import by_shard, night, plan_of, shard_run
from test_merge_command import write_shards
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import ConfigError
from harness.fleet.driving import Answer, Drive, attempts_so_far
from harness.fleet.local import VISIBLE, LocalExecutor
from harness.store.runs import RunStore
from harness.store.shard_plans import read_plan

PLAN = plan_of(by_shard(night()))


class Machines:
    """Machines of a made-up cluster: `answers` says how a try ends (None: never), `takes` how long [s]."""

    def __init__(self, answers=None, *, capacity=None, takes=1.0):
        self.answers, self.takes = answers or {}, takes
        self.sizes = {"small": 1, "large": 1} if capacity is None else capacity
        self.now, self.running, self.started, self.most = 0.0, {}, [], 0

    def capacity(self, device):
        return self.sizes.get(device, 0)

    def submit(self, shard, attempt):
        handle = object()
        self.started.append((shard.number, attempt))
        takes = self.takes.get(shard.number, 1.0) if isinstance(self.takes, dict) else self.takes
        self.running[id(handle)] = (self.now + takes, self.answers.get((shard.number, attempt), 0), shard.device)
        self.most = max(self.most, sum(device == shard.device for *_, device in self.running.values()))
        return handle

    def wait(self, handles, timeout_s):
        self.now += timeout_s
        ended = []
        for handle in handles:
            due, answer, _ = self.running[id(handle)]
            if answer is not None and self.now >= due:
                del self.running[id(handle)]
                ended.append((handle, Answer(exit_code=answer)))
        return ended

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def drive(machines, tmp_path, **changes):
    lines = []
    values = {"devices": ("small", "large"), "deadline_s": 10.0, "echo": lines.append}
    lost = Drive(PLAN, machines, tmp_path, **(values | changes)).run(machines.clock, machines.sleep)
    return lost, lines


def test_every_shard_runs_once_and_no_device_is_shared(tmp_path):
    machines = Machines({(1, 1): 1})
    assert drive(machines, tmp_path)[0] == []
    assert sorted(machines.started) == [(0, 1), (1, 1), (2, 1), (3, 1)], "a failed verdict is an answer"
    assert machines.most == 1
    wide = Machines(capacity={"small": 2, "large": 2}, takes=5.0)
    drive(wide, tmp_path)
    assert wide.most == 2


def test_a_shard_that_breaks_is_tried_again_and_given_up_in_the_end(tmp_path):
    machines = Machines({(2, 1): -1, (3, 1): 4, (3, 2): 4, (3, 3): 4})
    lost, lines = drive(machines, tmp_path)
    assert lost == [3]
    assert [started for started in machines.started if started[0] > 1] == [(2, 1), (3, 1), (2, 2), (3, 2), (3, 3)]
    assert "shard 3 attempt 3: exit code 4; given up" in lines


def test_a_frozen_machine_is_not_waited_for(tmp_path):
    machines = Machines({(0, 1): None}, capacity={"small": 2, "large": 1})
    lost, lines = drive(machines, tmp_path)
    assert lost == []
    assert (0, 2) in machines.started
    assert "shard 0 attempt 1: no answer after 10 s; tried again" in lines


def test_a_shard_has_the_deadline_of_what_it_took_before(tmp_path):
    machines = Machines({(0, 1): None}, takes=15.0, capacity={"small": 4, "large": 4})
    shards = tuple(replace(shard, deadline_s=40.0) for shard in PLAN.shards)
    lines = []
    drive = Drive(replace(PLAN, shards=shards), machines, tmp_path, devices=("small", "large"), echo=lines.append)
    assert drive.run(machines.clock, machines.sleep) == []
    assert [line for line in lines if "no answer" in line] == ["shard 0 attempt 1: no answer after 40 s; tried again"]


def test_a_late_answer_counts_and_spares_the_next_try(tmp_path):
    machines = Machines(takes=15.0, capacity={"small": 1, "large": 1})
    lost, _ = drive(machines, tmp_path)
    assert lost == []
    assert len({number for number, _ in machines.started}) == 4


def test_a_shard_whose_late_try_answers_after_all_is_not_lost(tmp_path):
    machines = Machines(takes={0: 45.0, 3: 80.0}, capacity={"small": 8, "large": 8})
    shards = tuple(replace(shard, deadline_s=200.0 if shard.number == 3 else 10.0) for shard in PLAN.shards)
    lines = []
    drive = Drive(replace(PLAN, shards=shards), machines, tmp_path, devices=("small", "large"), echo=lines.append)
    assert drive.run(machines.clock, machines.sleep) == []
    assert any("shard 0 attempt 3: no answer after 10 s; given up" in line for line in lines)


def test_a_device_that_is_nowhere_is_said_at_once(tmp_path):
    with pytest.raises(ConfigError, match="the plan needs large, which is nowhere here"):
        drive(Machines(capacity={"small": 1}), tmp_path)
    machines = Machines(capacity={"small": 1})
    assert drive(machines, tmp_path, devices=("small",))[0] == []
    assert {number for number, _ in machines.started} == {0, 1}


def test_devices_that_were_lost_are_waited_for_as_long_as_the_deadline(tmp_path):
    machines = Machines({(0, 1): -1, (1, 1): -1})
    submit = machines.submit

    def lose(shard, attempt):
        if shard.device == "small":
            machines.sizes["small"] = 0  # the node goes down with the first shard that it gets
        return submit(shard, attempt)

    machines.submit = lose
    lost, lines = drive(machines, tmp_path)
    assert lost == [0, 1]
    assert "shard 1: no small for 10 s; given up" in lines
    assert machines.now < 60


def test_a_driver_goes_on_where_another_ended(tmp_path):
    write_shards(tmp_path, night())
    plan = read_plan(tmp_path / "shards.json")
    half = next((tmp_path / "shards").glob("*3-1"))
    run = shard_run(3, by_shard(night())[3]).run
    half_run = replace(run, id="half", shard=replace(run.shard, plan=plan.digest, attempt=2), finished_at="")
    RunStore(tmp_path / "shards", half_run)
    (half / "run.json").write_text("{")
    assert attempts_so_far(tmp_path / "shards", plan) == {0: (1, True), 1: (1, True), 2: (1, True), 3: (2, False)}
    machines = Machines()
    assert (
        Drive(plan, machines, tmp_path / "shards", devices=("small", "large")).run(machines.clock, machines.sleep) == []
    )
    assert machines.started == [(3, 3)]


# -- the cards of this host


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """A Python that notes its card and its words, and that two of never use one card at a time."""
    log, python = tmp_path / "log", tmp_path / "python"
    python.write_text(
        f'#!/bin/bash\nmkdir "{tmp_path}/busy-${VISIBLE}" || exit 9\nsleep 0.05\n'
        f'echo "${VISIBLE} $*" >> {log}\nrmdir "{tmp_path}/busy-${VISIBLE}"\nexit $(cat {tmp_path}/code)\n'
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "code").write_text("0")
    monkeypatch.setattr(sys, "executable", str(python))
    return log


def test_a_chain_a_card_and_no_card_times_two_shards_at_once(stub, tmp_path):
    plan = plan_of([[record] for record in night([f"m{number}" for number in range(5)])[:10]])
    executor = LocalExecutor("small", tmp_path / "shards.json", tmp_path / "shards", cards=("0", "GPU-1234"))
    assert Drive(plan, executor, tmp_path / "shards", devices=("small",)).run() == []
    lines = stub.read_text().splitlines()
    assert len(lines) == 10
    assert {line.split()[0] for line in lines} == {"0", "GPU-1234"}
    assert all("--shard-attempt=1" in line for line in lines), "no card was ever busy"
    assert threading.active_count() < 50


def test_the_command_runs_the_shards_of_this_host_only(stub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path, night())
    words = ["fleet", "run", "--report-dir=new", "--device=large", "--gpus=0,1", "--attempts=1"]
    assert CliRunner().invoke(app, words).exit_code == 0
    lines = sorted(line.split(" ", 1)[1] for line in stub.read_text().splitlines())
    assert lines == [
        f"-m pytest suites/ -p no:cacheprovider --shard={number} --shard-attempt=1 "
        f"--shard-plan={tmp_path}/shards.json --report-dir=new"
        for number in (2, 3)
    ]
    (tmp_path / "code").write_text("4")
    lost = CliRunner().invoke(app, words)
    assert (lost.exit_code, "no try of the shards 2, 3 ran to its end" in lost.output) == (1, True)
    wrong = CliRunner().invoke(app, ["fleet", "run", "--device=huge"])
    assert (wrong.exit_code, "the plan has small, large" in wrong.output) == (2, True)


def test_without_ray_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    write_shards(tmp_path, night())
    told = CliRunner().invoke(app, ["fleet", "run", "--ray=auto", f"--shard-plan={tmp_path / 'shards.json'}"])
    assert (told.exit_code, "pip install 'nn-engine-harness[ray]'" in told.output) == (2, True)


def test_a_shard_on_a_node_comes_back_as_an_archive(stub, tmp_path):
    import io
    import tarfile

    from harness.fleet.ray_driver import run_shard

    python = Path(sys.executable)
    python.write_text(
        '#!/bin/bash\nfor word; do case "$word" in --report-dir=*) mkdir -p "${word#*=}/run"; '
        'echo done > "${word#*=}/run/run.json";; esac; done\necho one; echo two; echo three; echo four; exit 1\n'
    )
    exit_code, tail, archive = run_shard(b"{}", 3, 2, str(tmp_path))
    assert (exit_code, tail) == (1, "two | three | four")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        assert "run/run.json" in files.getnames()
