"""Engine + a batch -> Throughput: images or samples a second with several inferences at once, and how long each takes.

A closed loop: every context runs its batch again as soon as the last run is back, by a thread of its own, or, where
runs can be begun without waiting, all by one thread: on a GPU handing Python's lock over costs as much as a small net.
A level of concurrency is a number of contexts; levels take turns round by round, so that a slow minute of the machine
hits all.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeasurementError
from harness.protocols import Batch, Context, QueuedContext, RunsConcurrently, RunsTensorsConcurrently
from harness.records import PackedArray, Throughput, ThroughputLevel

N_ROUNDS = 12  # of each level; 6 are needed for an interval of the median
ROUND_NS = 100_000_000
MIN_RUNS = 3  # of each context in a round, however slow
MAX_KEPT = 20_000  # latencies kept of a level

Look = Callable[[Context, str], None]  # at a context's outputs; the words say which
Concurrent = RunsConcurrently | RunsTensorsConcurrently


def measure_throughput(
    engine: Concurrent,
    batch: Batch,
    levels: Sequence[int],
    *,
    batch_size: int,
    look: Look,
    n_rounds: int = N_ROUNDS,
    round_ns: int = ROUND_NS,
    waiting: Callable[[int, int], None] = lambda done, total: None,
) -> Throughput:
    """Return the best of some levels of concurrency, by the median over rounds of images/s, and what all reached.

    `batch`: images, or inputs by name of an engine that runs those at once; `batch_size`: images or samples in it.
    `look` is called with every context after its warm-up and after its last round; it raises for outputs that are not
    those that were scored. `waiting` gets rounds done and in all.
    Raises: MeasurementError.
    """
    if not levels or min(levels) < 1:
        raise MeasurementError(f"levels of concurrency {tuple(levels)}: expected whole numbers of at least 1")
    contexts = {level: _contexts(engine, batch, batch_size, level) for level in sorted(set(levels))}
    rates: dict[int, list[float]] = {level: [] for level in contexts}
    latencies: dict[int, list[NDArray[np.float64]]] = {level: [] for level in contexts}
    for level, own in contexts.items():
        _round(own, round_ns=0)
        _look_at(own, look, "before they were timed", level)
    for index in range(n_rounds):
        for level, own in list(contexts.items())[:: 1 if index % 2 == 0 else -1]:
            n_runs, elapsed_ns, spans = _round(own, round_ns=round_ns)
            rates[level].append(n_runs * batch_size * 1e9 / elapsed_ns)
            latencies[level].append(spans)
        waiting(index + 1, n_rounds)
    for level, own in contexts.items():
        _look_at(own, look, "after they were timed", level)
    best = max(rates, key=lambda level: float(np.median(rates[level])))
    spans = np.concatenate(latencies[best])
    return Throughput(
        batch_size=batch_size,
        concurrency=best,
        how=engine.concurrency,
        clock="host",
        window="compute",
        rounds_images_per_s=PackedArray.of(np.asarray(rates[best])),
        latencies_ns=PackedArray.of(spans[:: -(-spans.size // MAX_KEPT)]),
        n_runs=int(spans.size),
        levels=tuple(
            ThroughputLevel(concurrency=level, images_per_s=float(np.median(found))) for level, found in rates.items()
        ),
    )


def levels_up_to(most: int) -> tuple[int, ...]:
    """Return 1, 2, 4, ... and the most contexts that are worth trying or can be had."""
    powers = [1 << power for power in range(max(1, most).bit_length())]
    return tuple(sorted({*powers, max(1, most)}))


def _contexts(engine: Concurrent, batch: Batch, batch_size: int, n_contexts: int) -> Sequence[Context]:
    if isinstance(batch, Mapping):
        if isinstance(engine, RunsTensorsConcurrently):
            return engine.bind_contexts(batch, n_contexts, batch_size=batch_size)
    elif isinstance(engine, RunsConcurrently):
        return engine.contexts(batch, n_contexts)
    raise MeasurementError(f"{type(engine).__name__} runs no such batches at once")


def _look_at(contexts: Sequence[Context], look: Look, when: str, level: int) -> None:
    for index, context in enumerate(contexts):
        look(context, f"of context {index + 1} of {level} at once, {when},")


def _round(contexts: Sequence[Context], *, round_ns: int) -> tuple[int, int, NDArray[np.float64]]:
    """Run all contexts at once for a while; return runs, the time from start to the last end, and each run's [ns].

    A context ends with the run that it has begun, so that no run is counted in part.
    """
    queued = [context for context in contexts if isinstance(context, QueuedContext)]
    return _by_one_thread(queued, round_ns) if len(queued) == len(contexts) else _by_threads(contexts, round_ns)


def _by_one_thread(contexts: Sequence[QueuedContext], round_ns: int) -> tuple[int, int, NDArray[np.float64]]:
    """Keep every context going; the one that was begun first is waited for first."""
    spans: list[int] = []
    running: deque[tuple[QueuedContext, int]] = deque()
    started = now = time.perf_counter_ns()
    for context in contexts:
        running.append((context, time.perf_counter_ns()))
        context.begin()
    while running:
        context, begun = running.popleft()
        context.wait()
        now = time.perf_counter_ns()
        spans.append(now - begun)
        if now - started < round_ns or len(spans) + len(running) < MIN_RUNS * len(contexts):
            running.append((context, now))
            context.begin()
    return len(spans), now - started, np.asarray(spans, np.float64)


def _by_threads(contexts: Sequence[Context], round_ns: int) -> tuple[int, int, NDArray[np.float64]]:
    barrier = threading.Barrier(len(contexts))

    def work(context: Context) -> tuple[int, list[int]]:
        barrier.wait()
        started = before = time.perf_counter_ns()
        spans: list[int] = []
        while before - started < round_ns or len(spans) < MIN_RUNS:
            context.run()
            now = time.perf_counter_ns()
            spans.append(now - before)
            before = now
        return started, spans

    with ThreadPoolExecutor(max_workers=len(contexts)) as pool:
        found = list(pool.map(work, contexts))
    ends = [started + sum(spans) for started, spans in found]
    elapsed = max(ends) - min(started for started, _ in found)
    spans = np.concatenate([np.asarray(spans, np.float64) for _, spans in found])
    return spans.size, elapsed, spans
