"""The clock of CUDA events, looked at on one stream: what it says of nothing, and its rate over the host's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.backends._cuda.device import EventPool

NS_PER_MS = 1e6


def empty_ns(pool: EventPool, stream: Any, n: int) -> NDArray[np.float64]:
    """Return float64[n]: the time between two events with nothing between them, on an open stream [ns]."""
    pairs = pool.pairs(n)
    for start, end in pairs:
        start.record(stream)
        end.record(stream)
    stream.synchronize()
    return np.asarray([end.time_since(start) for start, end in pairs], np.float64) * NS_PER_MS


def drift(pool: EventPool, stream: Any, launch: Callable[[], object], span_ns: int) -> float:
    """Return the rate of the events' clock over the host's, less one, while work is launched for `span_ns`.

    What an event takes to be seen by the host, some 10 us, is all that is wrong of it: 1e-4 of 100 ms.
    """
    ((start, end),) = pool.pairs(1)
    start.record(stream)
    stream.synchronize()
    began = time.perf_counter_ns()
    while time.perf_counter_ns() - began < span_ns:
        launch()
        stream.synchronize()
    end.record(stream)
    stream.synchronize()
    return float(end.time_since(start)) * NS_PER_MS / (time.perf_counter_ns() - began) - 1
