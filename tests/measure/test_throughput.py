"""Throughput is the best of several levels of concurrency; every context's outputs are looked at."""

import threading
import time

import numpy as np
import pytest

from harness.errors import MeasurementError
from harness.measure.throughput import levels_up_to, measure_throughput
from harness.stats.throughput import summarize_throughput

IMAGES = np.zeros((10, 4), np.float32)
SLEEP_S = 0.004


class FakeContexts:
    """So many inferences sleep side by side; more take turns."""

    concurrency, most_contexts = "sleeps", None

    def __init__(self, at_once):
        self.gate, self.lock = threading.Semaphore(at_once), threading.Lock()
        self.made, self.running, self.most = [], 0, {}

    def contexts(self, images, n_contexts):
        self.made.append((len(images), n_contexts))
        return tuple(FakeContext(self, n_contexts, index) for index in range(n_contexts))


class FakeContext:
    def __init__(self, engine, level, index):
        self.engine, self.level, self.index, self.n_runs = engine, level, index, 0

    def run(self):
        with self.engine.gate:
            with self.engine.lock:
                self.engine.running += 1
                self.engine.most[self.level] = max(self.engine.most.get(self.level, 0), self.engine.running)
            time.sleep(SLEEP_S)
            with self.engine.lock:
                self.engine.running -= 1
        self.n_runs += 1


def test_the_best_level_is_told_with_all_that_were_tried():
    engine, looked = FakeContexts(at_once=2), []
    found = measure_throughput(
        engine,
        IMAGES,
        (2, 1),
        batch_size=10,
        look=lambda c, which: looked.append(which),
        n_rounds=6,
        round_ns=20_000_000,
    )
    assert engine.made == [(10, 1), (10, 2)]
    assert engine.most == {1: 1, 2: 2}, "the contexts of a level run at once, those of another not meanwhile"
    assert (found.batch_size, found.concurrency, found.how) == (10, 2, "sleeps")
    assert (found.clock, found.window) == ("host", "compute")
    assert [level.concurrency for level in found.levels] == [1, 2]
    assert found.rounds_images_per_s.shape == (6,)
    assert found.levels[1].images_per_s == np.median(found.rounds_images_per_s.array())
    assert np.median(found.latencies_ns.array()) >= SLEEP_S * 1e9
    assert looked == [
        f"of context {index} of {level} at once, {when} they were timed,"
        for when in ("before", "after")
        for level in (1, 2)
        for index in range(1, level + 1)
    ]


class FakeTensorContexts(FakeContexts):
    def bind_contexts(self, feeds, n_contexts, *, batch_size):
        self.made.append((feeds, n_contexts, batch_size))
        return tuple(FakeContext(self, n_contexts, index) for index in range(n_contexts))


def test_named_inputs_are_bound_and_their_samples_counted():
    engine, feeds = FakeTensorContexts(at_once=2), {"ids": np.zeros((3, 7), np.int64)}
    found = measure_throughput(
        engine, feeds, (2,), batch_size=3, look=lambda c, which: None, n_rounds=6, round_ns=20_000_000
    )
    assert engine.made == [(feeds, 2, 3)]
    assert (found.batch_size, found.concurrency) == (3, 2)
    assert (found.rounds_images_per_s.array() <= 2 * 3 / SLEEP_S).all()


def test_an_engine_of_images_alone_is_given_no_named_inputs():
    with pytest.raises(MeasurementError, match="FakeContexts runs no such batches at once"):
        measure_throughput(FakeContexts(1), {"ids": IMAGES}, (1,), batch_size=10, look=lambda c, which: None)


def test_a_run_that_was_begun_is_counted_whole():
    slow = FakeContexts(at_once=1)
    found = measure_throughput(slow, IMAGES, (1,), batch_size=10, look=lambda c, which: None, n_rounds=6, round_ns=1)
    assert found.n_runs == 6 * 3
    assert (found.rounds_images_per_s.array() <= 10 / SLEEP_S).all()


def test_a_context_that_raises_ends_it():
    def look(context, which):
        raise MeasurementError(f"outputs {which} are wrong")

    with pytest.raises(MeasurementError, match="outputs of context 1 of 1 at once, before"):
        measure_throughput(FakeContexts(1), IMAGES, (1,), batch_size=10, look=look, n_rounds=6, round_ns=1)


@pytest.mark.parametrize("levels", [(), (0,), (2, -1)])
def test_levels_that_are_none_are_refused(levels):
    with pytest.raises(MeasurementError, match="levels of concurrency"):
        measure_throughput(FakeContexts(1), IMAGES, levels, batch_size=10, look=lambda c, which: None)


@pytest.mark.parametrize(("most", "levels"), [(0, (1,)), (1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))])
def test_levels_double_up_to_what_there_is(most, levels):
    assert levels_up_to(most) == levels


def test_a_summary_has_intervals_only_where_samples_suffice():
    few = summarize_throughput(np.arange(1.0, 6.0), np.full(298, 5.0))
    assert (few.images_per_s, few.low, few.p99_ns, few.p99_low_ns) == (3.0, None, None, None)
    many = summarize_throughput(np.arange(1.0, 13.0), np.arange(1.0, 1001.0))
    assert many.low < many.images_per_s == 6.5 < many.high
    assert many.p99_low_ns <= many.p99_ns <= many.p99_high_ns


@pytest.mark.parametrize(("rates", "spans"), [([], [1.0]), ([1.0], []), ([0.0], [1.0]), ([1.0], [-1.0])])
def test_rates_that_are_none_are_refused(rates, spans):
    with pytest.raises(MeasurementError, match="greater than 0"):
        summarize_throughput(np.asarray(rates), np.asarray(spans))


class Queue:
    """A device that works off runs one after the other; whoever waits for one has waited for those before."""

    concurrency, most_contexts = "a queue", 2

    def __init__(self):
        self.thread, self.log, self.free_at = threading.get_ident(), [], 0

    def contexts(self, images, n_contexts):
        return tuple(QueuedRun(self, f"{n_contexts}.{index}") for index in range(n_contexts))


class QueuedRun:
    def __init__(self, queue, name):
        self.queue, self.name, self.ends = queue, name, 0

    def begin(self):
        assert threading.get_ident() == self.queue.thread
        self.queue.log.append(("begin", self.name))
        self.queue.free_at = self.ends = max(self.queue.free_at, time.perf_counter_ns()) + 2_000_000

    def wait(self):
        self.queue.log.append(("wait", self.name))
        time.sleep(max(0, self.ends - time.perf_counter_ns()) / 1e9)

    def run(self):
        raise AssertionError("runs that can be begun are not run one by one")

    def outputs(self):
        return None


def test_runs_that_can_be_begun_are_kept_going_by_one_thread():
    queue = Queue()
    found = measure_throughput(
        queue, IMAGES, (2,), batch_size=10, look=lambda c, which: None, n_rounds=6, round_ns=20_000_000
    )
    assert found.n_runs == sum(kind == "wait" for kind, _ in queue.log) - 2 * 3, "the warm-up does not count"
    rounds = queue.log[2 * 2 * 3 :]
    assert rounds[:5] == [("begin", "2.0"), ("begin", "2.1"), ("wait", "2.0"), ("begin", "2.0"), ("wait", "2.1")]
    assert rounds[-2:] in ([("wait", "2.0"), ("wait", "2.1")], [("wait", "2.1"), ("wait", "2.0")])
    latency, rate = np.median(found.latencies_ns.array()), np.median(found.rounds_images_per_s.array())
    assert latency >= 2 * 2_000_000 * 0.99, "two in a queue wait for each other"
    assert rate <= 10 / 0.002


def test_an_odd_run_is_counted_whole_too():
    found = measure_throughput(Queue(), IMAGES, (1,), batch_size=10, look=lambda c, which: None, n_rounds=6, round_ns=1)
    assert found.n_runs == 6 * 3
