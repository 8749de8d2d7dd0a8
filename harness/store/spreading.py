"""Work on many items by the CPUs of this machine: forked processes, which see all that this one has read.

A fleet's records fill a gigabyte and more: they are not sent to processes, only what was made of them comes back.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

T = TypeVar("T")
PR_SET_PDEATHSIG = 1  # linux/prctl.h
MIN_ITEMS = 500  # fewer are done before processes have started


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """Look for no garbage in cycles meanwhile: where all that is read stays, looking takes as long as reading."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def spread(work: Callable[[int], T], n: int, *, at_a_time: int = 50, min_items: int = MIN_ITEMS) -> Iterator[T]:
    """Yield what some work gives for 0 to n - 1, in order; what it raises is raised here.

    Nothing that it writes is seen afterwards, only what it returns. `at_a_time`: items that a process takes; fewer than
    `min_items` are worked on here, and so is what is left when a process dies.
    """
    n_processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if n < min_items or n_processes < 2:
        yield from map(work, range(n))
        return
    yield work(0)  # here: what it imports is there in all of them
    n_done = 1
    gc.freeze()  # what lies in memory is shared as long as nobody touches it
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(n_processes, mp_context=context, initializer=_take, initargs=(work, os.getpid()))
    try:
        for found in pool.map(_one, range(1, n), chunksize=at_a_time):
            yield found
            n_done += 1
    except BrokenProcessPool:  # killed for want of memory, for example
        yield from map(work, range(n_done, n))
    finally:
        pool.shutdown(cancel_futures=True)
        gc.unfreeze()


_WORK: list[Callable[[int], object]] = []  # of a forked process: handed over by memory, since closures cannot be sent


def _take(work: Callable[[int], object], parent: int) -> None:
    if sys.platform == "linux":  # killed with its parent: its pipes do not end, since its like hold them open too
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what this process does about signals is not their business
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _WORK[:] = [work]


def _one(item: int) -> Any:
    return _WORK[0](item)
