"""Scoring and timing against engines, data sets and clocks that are under control."""

import hashlib
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from harness.errors import DataError, MeasurementError
from harness.measure.arms import LocalArm
from harness.measure.scoring import score_engine
from harness.measure.timing import ArmRounds, latency_from_arms, make_alike, time_arms
from harness.specs import ImageRange, TimingPlan

N = 57  # no multiple of any batch below


class Images:
    """A data set in memory."""

    name, split, num_classes, image_shape = "numbers", "test", 10, (4, 4)

    def __init__(self, n=N, label_shift=0):
        generator = np.random.default_rng(3)
        self.n_images = n
        self.pixels = generator.integers(0, 256, (n, 4, 4)).astype(np.uint8)
        self.labels = generator.integers(0, 10, n) + label_shift
        self.largest_read = 0

    def read(self, first, stop):
        self.largest_read = max(self.largest_read, stop - first)
        return self.pixels[first:stop], self.labels[first:stop]


class LinearEngine:
    """Outputs are a fixed matrix times the pixels, so the truth can be computed at once."""

    def __init__(self, spoil=None):
        self.weights = np.random.default_rng(4).standard_normal((16, 10)).astype(np.float32)
        self.spoil = spoil or (lambda outputs, call: outputs)
        self.batches = []

    def infer_stream(self, batches):
        for call, images in enumerate(batches):
            self.batches.append(len(images))
            yield self.spoil(images.reshape(len(images), -1) @ self.weights, call)


def window(first=0, stop=N):
    return ImageRange(dataset="numbers", split="test", first=first, stop=stop)


@pytest.mark.parametrize("batch_size", [1, 8, 57, 500])
def test_hits_match_numpy_at_every_batch_size(spec, batch_size):
    data, engine = Images(), LinearEngine()
    accuracy = score_engine(engine, data, spec, window(), batch_size=batch_size)
    outputs = (data.pixels.astype(np.float32) * np.float32(1 / 255)).reshape(N, -1) @ engine.weights
    order = np.argsort(-outputs, axis=1, kind="stable")
    assert np.array_equal(accuracy.hits(1), order[:, 0] == data.labels)
    assert np.array_equal(accuracy.hits(5), (order[:, :5] == data.labels[:, None]).any(axis=1))
    assert np.array_equal(accuracy.predictions.array(), order[:, 0])
    assert sum(engine.batches) == N


def test_fingerprint_does_not_depend_on_the_batches(spec):
    prints = {score_engine(LinearEngine(), Images(), spec, window(), batch_size=b).fingerprint for b in (1, 7, 57)}
    assert len(prints) == 1
    assert score_engine(LinearEngine(), Images(), spec, window(1), batch_size=7).fingerprint not in prints


def test_outputs_are_kept_and_digested(spec, tmp_path):
    path = tmp_path / "outputs.f32"
    accuracy = score_engine(LinearEngine(), Images(), spec, window(), batch_size=10, outputs_path=path)
    kept = np.fromfile(path, "<f4").reshape(N, 10)
    assert np.array_equal(kept.argmax(axis=1), accuracy.predictions.array())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == accuracy.outputs_sha256


def test_a_fixed_batch_is_padded_and_the_padding_not_scored(spec):
    engine = LinearEngine()
    accuracy = score_engine(engine, Images(), replace(spec, max_batch=10), window(), batch_size=100)
    free = score_engine(LinearEngine(), Images(), spec, window(), batch_size=100)
    assert set(engine.batches) == {10}
    assert accuracy.n_images == N
    assert np.array_equal(accuracy.hits(1), free.hits(1))


@pytest.mark.parametrize(("n_cpus", "largest"), [(2, 1000), (16, 5000)])
def test_reads_are_bounded(spec, monkeypatch, n_cpus, largest):
    monkeypatch.setattr("os.cpu_count", lambda: n_cpus)
    data = Images(n=12_000)
    score_engine(LinearEngine(), data, spec, window(0, 12_000), batch_size=100)
    assert data.largest_read == largest


class ReadByOne(Images):
    """A data set that is read by one thread at a time only."""

    def __init__(self, n):
        super().__init__(n)
        self.n_reading = self.n_reads = 0

    def read(self, first, stop):
        self.n_reading += 1
        self.n_reads += 1
        time.sleep(0.002)
        assert self.n_reading == 1
        self.n_reading -= 1
        return super().read(first, stop)


@pytest.mark.parametrize("n_cpus", [2, 16])
def test_reading_ahead_is_never_by_two_threads_at_once(spec, monkeypatch, n_cpus):
    monkeypatch.setattr("os.cpu_count", lambda: n_cpus)
    data = ReadByOne(n=30_000)
    accuracy = score_engine(LinearEngine(), data, spec, window(0, 30_000), batch_size=100)
    assert accuracy.n_images == 30_000
    assert data.n_reads == {2: 30, 16: 6}[n_cpus]


def test_how_many_cpus_there_are_changes_no_result(spec, monkeypatch):
    found = []
    for n_cpus in (1, 2, 16):
        monkeypatch.setattr("os.cpu_count", lambda n_cpus=n_cpus: n_cpus)
        scored = score_engine(LinearEngine(), Images(n=12_345), spec, window(17, 12_345), batch_size=64)
        found.append(replace(scored, score_ns=0))
    assert found[0] == found[1] == found[2]


class SlowEngine(LinearEngine):
    """Looks at a batch only `behind` batches later, as an engine with work in flight does; may lend its memory."""

    def __init__(self, behind, lends):
        super().__init__()
        self.behind, self.lends = behind, lends
        self.lent, self.from_lent = [], []

    def host_buffers(self, n_buffers, n_images):
        self.lent = [np.full((n_images, 1, 4, 4), np.nan, np.float32) for _ in range(n_buffers)] if self.lends else []
        return self.lent

    def infer_stream(self, batches):
        pending = []
        for images in batches:
            pending.append(images)
            self.from_lent.append(any(np.shares_memory(images, buffer) for buffer in self.lent))
            if len(pending) > self.behind:
                yield self._outputs(pending.pop(0))
        yield from map(self._outputs, pending)

    def _outputs(self, images):
        return images.reshape(len(images), -1) @ self.weights


@pytest.mark.parametrize("lends", [False, True])
@pytest.mark.parametrize(
    ("n_cpus", "batch_size", "behind", "suffice"),
    [
        *((2, 100, 0, True), (2, 100, 3, True), (2, 600, 3, False), (2, 1000, 1, True), (2, 1000, 9, False)),
        *((16, 100, 3, True), (16, 600, 3, True), (16, 2500, 1, True), (16, 1000, 9, False)),
    ],
)
def test_images_stay_as_they_are_until_their_outputs_are_back(
    spec, monkeypatch, lends, n_cpus, batch_size, behind, suffice
):
    monkeypatch.setattr("os.cpu_count", lambda: n_cpus)
    n = 9_500 if n_cpus == 2 else 34_500
    data, engine = Images(n=n), SlowEngine(behind, lends)
    accuracy = score_engine(engine, data, spec, window(0, n), batch_size=batch_size)
    plain = score_engine(LinearEngine(), data, spec, window(0, n), batch_size=batch_size)
    assert accuracy.outputs_sha256 == plain.outputs_sha256
    assert accuracy.fingerprint == plain.fingerprint
    assert any(engine.from_lent) == lends
    assert all(engine.from_lent) == (lends and suffice)


def test_chunks_of_large_images_are_small(spec, monkeypatch):
    monkeypatch.setattr("harness.measure.scoring.MAX_CHUNK_BYTES", 250 * 16 * 4)
    data = Images(n=1000)
    engine = SlowEngine(0, lends=True)
    score_engine(engine, data, spec, window(0, 1000), batch_size=100)
    assert data.largest_read == 200
    assert {len(buffer) for buffer in engine.lent} == {200}
    score_engine(engine, data, spec, window(0, 1000), batch_size=500)
    assert data.largest_read == 500


def test_a_nan_pixel_is_an_error_with_the_image(spec):
    data = Images(n=1500)
    data.pixels = (data.pixels[:, None] / 255).astype(np.float32)
    data.pixels[1234, 0, 2, 2] = np.nan
    with pytest.raises(DataError, match="image 1234 of numbers/test holds NaN or Inf"):
        score_engine(SlowEngine(2, lends=True), data, spec, window(0, 1500), batch_size=100)


@pytest.mark.parametrize("changes", [{"scale": 3e36}, {"std": (1e-40,)}, {"mean": (float("inf"),)}])
def test_a_card_that_makes_pixels_infinite_is_an_error(spec, changes):
    with pytest.raises(DataError, match="become NaN or Inf for model tiny; fix the card's"):
        score_engine(LinearEngine(), Images(), replace(spec, **changes), window(), batch_size=10)


def test_nothing_is_written_once_scoring_has_failed(spec):
    class Failing(SlowEngine):
        def infer_stream(self, batches):
            for call, images in enumerate(batches):
                if call == 7:
                    raise MeasurementError("the device is gone")
                yield self._outputs(images)

    engine, before = Failing(0, lends=True), set(threading.enumerate())
    with pytest.raises(MeasurementError, match="the device is gone") as caught:
        score_engine(engine, Images(n=9_000), spec, window(0, 9_000), batch_size=100)
    assert set(threading.enumerate()) <= before, caught  # whose traceback still holds all that failed


def test_a_fault_of_the_digest_reaches_the_caller(spec, monkeypatch):
    def fail(*arguments):
        raise DataError("images change on the way")

    monkeypatch.setattr("harness.datasets.RangeFingerprint.digest", fail)
    for n_images in (57, 3000):
        with pytest.raises(DataError, match="change on the way"):
            score_engine(LinearEngine(), Images(n=n_images), spec, window(0, n_images), batch_size=10)


def test_a_nan_output_is_an_error_with_the_image(spec):
    def spoil(outputs, call):
        if call == 2:
            outputs[3, 4] = np.nan
        return outputs

    with pytest.raises(MeasurementError, match="image 23 gives nan"):
        score_engine(LinearEngine(spoil), Images(), spec, window(), batch_size=10)


def test_an_infinite_output_is_an_error(spec):
    with pytest.raises(MeasurementError, match="image 0 gives inf"):
        score_engine(LinearEngine(lambda o, c: o + np.float32(np.inf)), Images(), spec, window(), batch_size=1)


def test_minus_infinity_rules_a_class_out_and_is_a_score(spec):
    def rule_out(outputs, call):
        outputs[outputs < 0] = -np.inf
        outputs[:, 0] = np.maximum(outputs[:, 0], 0)
        return outputs

    accuracy = score_engine(LinearEngine(rule_out), Images(), spec, window(), batch_size=10)
    assert 0 < accuracy.top1 < 1
    assert np.isfinite(accuracy.margins.array()).all()


def test_an_image_with_no_class_left_is_an_error(spec):
    def rule_out(outputs, call):
        return np.where(np.arange(len(outputs))[:, None] == 3, np.float32(-np.inf), outputs)

    with pytest.raises(MeasurementError, match="image 3 gives -inf"):
        score_engine(LinearEngine(rule_out), Images(), spec, window(), batch_size=10)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64])
def test_outputs_of_another_dtype_are_an_error(spec, dtype):
    with pytest.raises(MeasurementError, match=f"outputs are {np.dtype(dtype)}; expected float32"):
        score_engine(LinearEngine(lambda o, c: o.astype(dtype)), Images(), spec, window(), batch_size=10)


@pytest.mark.parametrize("batch_size", [1, 7, 57])
def test_repeated_images_are_known_by_their_places(spec, batch_size):
    data = Images()
    data.pixels[[9, 30, 40]] = data.pixels[[4, 4, 5]]
    accuracy = score_engine(LinearEngine(), data, spec, window(), batch_size=batch_size)
    assert accuracy.repeats.array().tolist() == [[9, 4], [30, 4], [40, 5]]
    assert score_engine(LinearEngine(), Images(), spec, window(), batch_size=batch_size).repeats is None


def test_ties_have_a_second_result(spec):
    coarse = score_engine(LinearEngine(lambda o, c: np.sign(o)), Images(), spec, window(), batch_size=10)
    assert coarse.has_many_ties
    assert not np.array_equal(coarse.hits(), coarse.hits_last())
    fine = score_engine(LinearEngine(), Images(), spec, window(), batch_size=10)
    assert fine.top1_hits_last is None
    assert np.array_equal(fine.hits(), fine.hits_last())


def test_a_wrong_output_shape_is_an_error(spec):
    with pytest.raises(MeasurementError, match=r"outputs of shape \(10, 9\).*expected \(10, 10\)"):
        score_engine(LinearEngine(lambda o, c: o[:, :9]), Images(), spec, window(), batch_size=10)


def test_an_engine_that_swallows_a_batch_is_an_error(spec):
    class Short(LinearEngine):
        def infer_stream(self, batches):
            yield from list(super().infer_stream(batches))[:-1]

    with pytest.raises(MeasurementError, match="50 of 57 images"):
        score_engine(Short(), Images(), spec, window(), batch_size=10)


def test_labels_beyond_the_model_are_an_error(spec):
    with pytest.raises(DataError, match="label_offset"):
        score_engine(LinearEngine(), Images(label_shift=5), spec, window(), batch_size=10)


def test_images_that_were_trained_on_are_counted(spec):
    seen = replace(spec, trained_on=(ImageRange(dataset="numbers", split="test", first=0, stop=20),))
    assert score_engine(LinearEngine(), Images(), seen, window(10), batch_size=10).n_trained_on == 10


def test_a_data_set_by_its_path_is_known_as_the_one_that_was_trained_on(spec):
    """A card says the whole path; records say its end."""
    seen = replace(spec, trained_on=(ImageRange(dataset="/data/shop/train", split="test", first=0, stop=20),))
    scored = replace(window(10), dataset="shop/train")
    assert score_engine(LinearEngine(), Images(), seen, scored, batch_size=10).n_trained_on == 10


STEADY = ArmRounds(np.full((20, 5), 100.0), np.arange(20), 3)


class FakeTimer:
    """Every call advances a clock shared with the timing loop."""

    clock, launch, gated, window = "host", "call", False, "compute"

    def __init__(self, now, call_ns, batch_size=1, log=None):
        self.now, self.call_ns, self.batch_size, self.calls_per_sample, self.log = now, call_ns, batch_size, 1, log

    def sample(self, n_samples):
        if self.log is not None:
            self.log.append((self, n_samples))
        self.now[0] += n_samples * self.calls_per_sample * self.call_ns
        return np.full(n_samples, float(self.call_ns))

    def enqueue_ns(self):
        return None


def timed(*timers, plan, min_ns=1):
    def now_ns():
        return timers[0].now[0]

    return time_arms([LocalArm(timer, plan, min_ns=min_ns, now_ns=now_ns) for timer in timers], plan, now_ns=now_ns)[0]


def facts_of(*timers):
    return [LocalArm(timer, TimingPlan()).facts for timer in timers]


def test_arms_take_turns_and_the_order_alternates():
    now, log = [0], []
    a, b = FakeTimer(now, 1_000_000, log=log), FakeTimer(now, 2_000_000, log=log)
    plan = TimingPlan(n_rounds=8, round_ns=10_000_000, warmup_ns=0)
    arms = timed(a, b, plan=plan)
    assert arms[0][0].shape == (8, 10)
    assert arms[1][0].shape == (8, 5)
    rounds = ["ab"[timer is b] for timer, _ in log[-16:]]
    assert "".join(rounds) == "abba" * 4
    assert (np.diff(arms[0][1]) > 0).all()


def test_short_calls_are_grouped_until_the_clock_resolves_them():
    now = [0]
    timer = FakeTimer(now, 100)
    timed(timer, plan=TimingPlan(n_rounds=6, warmup_ns=0), min_ns=50_000)
    assert timer.calls_per_sample == 500


def test_warm_up_lasts_as_long_as_asked():
    now = [0]
    timer = FakeTimer(now, 1_000)
    (arm,) = timed(timer, plan=TimingPlan(n_rounds=6, warmup_ns=90_000))
    assert (arm.warmup_calls, arm.flags) == (90, ())


def test_a_slow_engine_gets_fewer_rounds_but_an_interval():
    now = [0]
    timer = FakeTimer(now, 600_000_000)
    (arm,) = timed(timer, plan=TimingPlan(n_rounds=20, warmup_ns=0))
    assert arm.rounds_ns.shape == (6, 1)


def test_a_clock_that_stands_still_is_an_error():
    with pytest.raises(MeasurementError, match="positive"):
        timed(FakeTimer([0], 0), plan=TimingPlan(warmup_ns=0))


def test_a_drifting_engine_is_flagged():
    rounds = np.linspace(100, 120, 20)[:, None] * np.ones((1, 5))
    steady = np.full((20, 5), 100.0)
    timer = FakeTimer([0], 1)
    starts = np.arange(20)
    assert "drift" in latency_from_arms(facts_of(timer), [ArmRounds(rounds, starts, 3)]).flags
    assert latency_from_arms(facts_of(timer), [ArmRounds(steady, starts, 3)]).flags == ()


def test_an_engine_that_waits_for_its_host_is_flagged():
    timer = FakeTimer([0], 1)
    assert "enqueue_bound" in latency_from_arms(facts_of(timer), [STEADY], enqueue_ns=95.0).flags


class ModeTimer(FakeTimer):
    """A timer of one launch and gate, which it can do without or not."""

    def __init__(self, launch, gated, can_lower=True):
        super().__init__([0], 50_000)
        self.launch, self.gated = launch, gated
        if can_lower:
            self.lower = self._lower

    def _lower(self, *, graph, gate):
        if not graph and self.launch == "graph":
            # As of an engine whose plain work waits for the stream, which a gate would hang.
            self.launch, self.gated = "enqueue", self.gated and self.call_ns != 1
        self.gated = self.gated and gate


def modes(*timers, launch="auto"):
    make_alike([LocalArm(timer, TimingPlan()) for timer in timers], launch)
    return [(timer.launch, timer.gated) for timer in timers]


@pytest.mark.parametrize(
    ("ours", "reference", "common"),
    [
        (("graph", True), ("graph", True), ("graph", True)),
        (("graph", True), ("enqueue", True), ("enqueue", True)),
        (("graph", True), ("graph", False), ("graph", False)),
        (("enqueue", True), ("graph", False), ("enqueue", False)),
        (("enqueue", False), ("graph", True), ("enqueue", False)),
        (("call", False), ("call", False), ("call", False)),
    ],
)
def test_arms_are_lowered_to_what_both_can(ours, reference, common):
    assert modes(ModeTimer(*ours), ModeTimer(*reference)) == [common, common]


def test_an_arm_that_loses_its_gate_with_its_graph_takes_the_others_along():
    waits = ModeTimer("graph", True)
    waits.call_ns = 1
    assert modes(waits, ModeTimer("enqueue", True)) == [("enqueue", False)] * 2


def test_a_launch_asked_for_is_left_alone():
    assert modes(ModeTimer("graph", True), ModeTimer("enqueue", True), launch="graph") == [
        ("graph", True),
        ("enqueue", True),
    ]


def test_arms_that_stay_unlike_are_flagged_and_give_no_ratio():
    timers = [ModeTimer("graph", True), ModeTimer("enqueue", True, can_lower=False)]
    assert modes(*timers) == [("enqueue", True)] * 2
    timers = [ModeTimer("graph", True, can_lower=False), ModeTimer("enqueue", True)]
    modes(*timers)
    latency = latency_from_arms(facts_of(*timers), [STEADY, STEADY], reference_case="fp32")
    assert (latency.launch, latency.reference_launch, latency.reference_gated) == ("graph", "enqueue", True)
    assert "reference_timed_otherwise" in latency.flags
    assert latency.reference_rounds_ns is not None
    assert latency.paired_rounds_ns is None


@pytest.mark.parametrize(
    ("window", "enqueue_ns", "is_bound"),
    [("compute", 81.0, True), ("compute", 79.0, False), ("end_to_end", 81.0, True), ("h2d", 200.0, False)],
)
def test_enqueue_bound_is_trtexecs_rule_on_windows_with_compute(window, enqueue_ns, is_bound):
    timer = ModeTimer("graph", True)
    timer.window = window
    latency = latency_from_arms(facts_of(timer), [STEADY], enqueue_ns=enqueue_ns)
    assert latency.enqueue_ns == enqueue_ns
    assert ("enqueue_bound" in latency.flags) == is_bound
