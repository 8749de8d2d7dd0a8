"""Work on all CPUs gives what work in turn gives, in the same order, errors included."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness.store import spreading
from harness.store.spreading import spread


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)


@pytest.mark.parametrize("n", [0, 1, 7, 60, 400])
@pytest.mark.parametrize("min_items", [2, 1_000])
def test_what_comes_back_is_in_order(n, min_items):
    factors = list(range(1_000))  # seen, not sent
    assert list(spread(lambda item: 3 * factors[item], n, at_a_time=7, min_items=min_items)) == [
        3 * item for item in range(n)
    ]


def test_many_items_are_worked_on_by_other_processes_and_few_are_not():
    assert len(set(spread(lambda item: os.getpid(), 200, at_a_time=1, min_items=2)) - {os.getpid()}) >= 1
    assert set(spread(lambda item: os.getpid(), 200)) == {os.getpid()}


def test_what_is_raised_there_is_raised_here():
    def work(item):
        if item == 60:
            raise ValueError("item 60")
        return item

    with pytest.raises(ValueError, match="item 60"):
        list(spread(work, 100, min_items=2))
    assert spreading._WORK == [], "this process took no work over"


def test_it_ends_though_this_process_swallows_the_signal_that_ends_others():
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        for _ in range(20):
            assert sum(spread(lambda item: item, 40, at_a_time=3, min_items=2)) == 780
            next(spread(lambda item: item, 40, at_a_time=3, min_items=2))  # and is closed early
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_a_killed_process_leaves_is_done_here():
    here = os.getpid()

    def work(item):
        if item == 25 and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    assert list(spread(work, 60, at_a_time=5, min_items=2)) == list(range(60))


def test_garbage_in_cycles_waits_while_much_is_read():
    assert gc.isenabled()
    with spreading.without_collecting():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_after_an_error_garbage_is_looked_for_again():
    with contextlib.suppress(ValueError), spreading.without_collecting():
        raise ValueError("a damaged shard")
    assert gc.isenabled()


PARENT = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from harness.store.spreading import spread

def work(item):
    if item:
        os.write(1, f"{os.getpid()}\\n".encode())  # at once: lines of two processes would run into each other
        time.sleep(60)
    return item

list(spread(work, 4, at_a_time=1, min_items=2))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal on a parent's death is Linux's")
def test_its_processes_end_with_a_parent_that_is_killed():
    command = [sys.executable, "-c", PARENT, str(Path(__file__).parents[2])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        children = [psutil.Process(int(parent.stdout.readline())) for _ in range(2)]
        parent.kill()
        gone, living = psutil.wait_procs(children, timeout=20)
    for child in living:
        child.kill()
    assert len(gone) == 2
