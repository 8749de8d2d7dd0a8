"""One run at a time measures a device: the others of the same user wait for their turn."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

WAIT_S = 0.2  # between two signs of life while waiting
VISIBLE = "CUDA_VISIBLE_DEVICES"


@contextmanager
def turn_on(device: str, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a device until the end of the block; `waiting` is called again and again until it is free.

    Where the lock's file cannot be made, nobody waits.
    """
    try:
        folder = Path(platformdirs.user_cache_dir("nn-engine-harness")) / "locks"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', device_of(device))}.lock", mode=0o600)
        while True:
            try:
                lock.acquire(timeout=WAIT_S)
                break
            except Timeout:
                waiting()
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()


def device_of(device: str) -> str:
    """Return what a device is called by all processes: `cuda:0` is another where others are visible."""
    kind, _, index = device.partition(":")
    visible = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return f"{kind}:{visible[int(index)]}" if index.isdigit() and int(index) < len(visible) else device
