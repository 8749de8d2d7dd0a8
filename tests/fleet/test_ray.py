"""Real shards on a real Ray cluster of this machine: done, killed with its node, of a type that nobody has."""

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import ConfigError
from harness.fleet.run_command import run_fleet
from harness.machine.environment import collect_environment
from harness.run.stored import load_judged_run

pytest.importorskip("ray", reason="the extra `ray` is not installed")

ROOT = Path(__file__).parents[2]
FLEET = f"""
[run]
model = ["mlp", "mobilenet_digits"]
precision = ["fp32"]
backend = ["ort"]
score_images = 300
batch_size = [1]
timing_rounds = 6

[[device]]
name = "here"
type = "{collect_environment().device_type}"
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A head without devices and two nodes with one each, and a checkout with a planned fleet."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.chdir(tmp_path)
    for name in ("suites", "models"):
        (tmp_path / name).symlink_to(ROOT / name, target_is_directory=True)
    (tmp_path / "conftest.py").write_text('pytest_plugins = ("harness.plugin",)\n')
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    (tmp_path / "fleet.toml").write_text(FLEET)
    assert CliRunner().invoke(app, ["plan"]).exit_code == 0
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [made.add_node(num_cpus=1, resources={"here": 1}) for _ in range(2)]
    ray.init(address=made.address, log_to_driver=False, configure_logging=False)
    yield made, nodes
    ray.shutdown()
    made.shutdown()


def run(lines, **changes):
    values = {"ray_address": "auto", "deadline_s": 120.0, "max_attempts": 3, "echo": lines.append}
    return run_fleet(Path("shards.json"), Path("shards"), **(values | changes))


def with_children(process):
    """A node's processes: its raylet and all that this has started."""
    return [process, *process.children(recursive=True)]


def test_a_frozen_node_is_not_waited_for_and_its_late_answer_is_a_copy(cluster):
    _, nodes = cluster
    raylet = psutil.Process(nodes[0].all_processes["raylet"][0].process.pid)
    frozen, lines = [], []

    def freeze():
        time.sleep(4)
        frozen.extend(with_children(raylet))
        for process in frozen:
            process.suspend()

    threading.Thread(target=freeze).start()
    try:
        assert run(lines, deadline_s=25.0, max_attempts=9) == []
    finally:
        for process in frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
    assert any("no answer after 25 s; tried again" in line for line in lines)
    merged = CliRunner().invoke(app, ["merge", "shards", "-o", "night"])
    assert merged.exit_code == 0, merged.output


def test_a_driver_that_was_killed_leaves_nothing_running_and_goes_on_where_it_was(cluster):
    made, nodes = cluster
    made.remove_node(nodes[0], allow_graceful=False)
    words = [sys.executable, "-m", "harness", "fleet", "run", "--ray", made.address, "--report-dir=shards"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as driver:
        first = next(line for line in driver.stdout if "done" in line)
        time.sleep(3)  # the second shard has begun
        driver.kill()
    raylet = psutil.Process(nodes[1].all_processes["raylet"][0].process.pid)
    until = time.monotonic() + 60
    while running(raylet) and time.monotonic() < until:
        time.sleep(1)
    assert not running(raylet), "an orphan would be timed beside the next try"
    lines = []
    assert run(lines) == []
    assert len(lines) == 1, lines
    assert lines[0].split(" (")[0] != first.split(" (")[0]
    assert CliRunner().invoke(app, ["merge", "shards", "-o", "night"]).exit_code == 0


def running(raylet):
    """The processes of suites that a node runs."""
    found = []
    for process in with_children(raylet):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if "suites/" in process.cmdline():
                found.append(process)
    return found


def test_shards_run_on_a_cluster_and_one_is_killed_with_its_node(cluster):
    made, nodes = cluster
    lines = []
    threading.Thread(target=lambda: (time.sleep(3), made.remove_node(nodes[0], allow_graceful=False))).start()
    assert run(lines) == []
    assert sum("done" in line for line in lines) == 2
    merged = CliRunner().invoke(app, ["merge", "shards", "-o", "night"])
    assert merged.exit_code == 0, merged.output
    assert len([r for r in load_judged_run(Path("night"))[1] if not r.is_reference]) == 2
    assert run([]) == [], "nothing is left to run"

    plan = Path("shards.json").read_text()
    Path("shards.json").write_text(plan.replace('"device":"here"', '"device":"elsewhere"'))
    with pytest.raises(ConfigError, match="the plan needs elsewhere"):
        run([])
