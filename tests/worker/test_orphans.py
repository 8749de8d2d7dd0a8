"""Whatever ends pytest, its workers and what they have started end with it, and their temporary files go."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from fault_runs import FAKES, VARIABLE, workers_below

from harness.records import Availability
from harness.worker.orphans import MARK, scratch_of
from harness.worker.process import Worker

ROOT = Path(__file__).parents[2]
STARTS = """
import sys
from harness.worker.process import Worker
worker = Worker(extension_dirs=[sys.argv[1]], label="case")
print("started", flush=True)
worker.call("probe", ("fake-fault",), tuple)
"""
PATIENCE_S = 20


def until(condition):
    ends = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < ends:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_parent_leaves_no_worker_no_grandchild_and_no_file(tmp_path, how):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, VARIABLE: "probe:child_and_hang", "TMPDIR": str(temporary)}
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTS, FAKES], env=environment, stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert parent.stdout.readline() == "started\n"
    assert until(lambda: len(list(workers_below(temporary))) == 2)  # the worker, stuck with the GIL, and its child
    parent.send_signal(how)
    parent.wait()
    parent.stdout.close()
    assert until(lambda: not list(workers_below(temporary)))
    assert until(lambda: not list(temporary.iterdir()))


def test_a_worker_that_is_closed_takes_its_children_and_files_along(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    worker = Worker(label="case")
    worker.call("probe", (), tuple[()])
    environment = {MARK: worker._mark, "TMPDIR": str(scratch_of(worker._mark)), "PATH": os.environ["PATH"]}
    child = subprocess.Popen(["sleep", "600"], env=environment)
    assert len(list(workers_below(tmp_path))) == 2
    worker.close()
    child.wait()
    assert not list(workers_below(tmp_path))
    assert not list(tmp_path.iterdir())


BACKEND = """
import importlib.util
from harness.records import Availability

class Backend:
    name, install_hint, required_modules = "looks", "", ()

    def probe(self):
        return Availability(backend="looks", usable=importlib.util.find_spec("neighbour") is not None)

BACKEND = Backend()
"""


def test_a_worker_takes_the_harness_from_here_and_nothing_that_lies_beside_it(tmp_path, monkeypatch):
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "harness").symlink_to(ROOT / "harness")
    (tmp_path / "site-packages" / "neighbour.py").write_text("")  # as the runtimes of the parent's environment do
    (tmp_path / "backends").mkdir()
    (tmp_path / "backends" / "looks.py").write_text(BACKEND)
    monkeypatch.setattr("harness.worker.process.PACKAGE_PARENT", str(tmp_path / "site-packages"))
    with closing(Worker(extension_dirs=[str(tmp_path)], label="case")) as worker:
        (found,) = worker.call("probe", ("looks",), tuple[Availability, ...])
    assert (found.usable, found.reason) == (False, "")


def test_an_interpreter_with_a_space_in_its_path_is_started(tmp_path):
    python = tmp_path / "my python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    with closing(Worker(python=str(python), label="case")) as worker:
        assert worker.call("probe", (), tuple[Availability, ...]) == ()
