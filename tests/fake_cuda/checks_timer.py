"""CUDA-event timers on the fake driver: engines timed in turn, what `auto` falls back to, the plain enqueue."""

import numpy as np
import pytest

from harness.backends._cuda.device import Gpu
from harness.backends._cuda.timer import CudaTimer
from harness.errors import ConfigError, MeasurementError
from harness.machine.clock_audit import audited
from harness.machine.clocks import CUDA_EVENT_RESOLUTION_NS, calibrate_calls
from harness.measure.arms import LocalArm
from harness.measure.timing import latency_from_arms, make_alike, time_arms
from harness.specs import TimingPlan

pytestmark = pytest.mark.usefixtures("no_leak")
PLAN = TimingPlan(n_rounds=6, round_ns=1, warmup_ns=0)


def timed(*timers, min_ns=20_000):
    arms = [LocalArm(timer, PLAN, min_ns=min_ns) for timer in timers]
    rounds, seen = time_arms(arms, PLAN)
    facts = [arm.facts for arm in arms]
    return latency_from_arms(facts, rounds, enqueue_ns=seen.enqueue_ns, reference_case="net-trt-fp32")


def timers_of(engines, batch, *, window, launch="auto"):
    """Return timers of engines, alike as far as can be."""
    timers = [engine.timer(batch, window=window, launch=launch) for engine in engines]
    make_alike([LocalArm(timer, PLAN) for timer in timers], launch)
    return timers


@pytest.fixture
def pair(build, make_artifact):
    """Two engines, one of which the library says cannot be captured."""

    def make(monkeypatch, uncapturable):
        engines = [build(), build(make_artifact(sha256="b" * 64))]
        monkeypatch.setattr(engines[uncapturable], "_can_capture", lambda: False)
        return engines

    return make


@pytest.mark.parametrize("uncapturable", [0, 1])
def test_arms_are_timed_in_the_lesser_mode(pair, images, monkeypatch, uncapturable):
    ours, reference = pair(monkeypatch, uncapturable)
    with ours, reference:
        timers = timers_of((ours, reference), images(4), window="compute")
        assert [(timer.launch, timer.gated) for timer in timers] == [("enqueue", True)] * 2
        latency = timed(*timers)
        assert (latency.launch, latency.gated) == (latency.reference_launch, latency.reference_gated)
        assert "reference_timed_otherwise" not in latency.flags
        assert latency.rounds_ns.array() == pytest.approx(50_000, rel=1e-4)
        lowered = (ours, reference)[1 - uncapturable]
        assert "timed without a CUDA graph: the engine timed in turn with it has none" in lowered.facts.notes


def test_arms_of_one_mode_keep_it(build, make_artifact, images):
    with build() as ours, build(make_artifact(sha256="b" * 64)) as reference:
        timers = timers_of((ours, reference), images(4), window="compute")
        assert [(timer.launch, timer.gated) for timer in timers] == [("graph", True)] * 2
        assert ours.facts.notes == reference.facts.notes


def test_a_lowered_timer_measures_as_one_made_so(build, images):
    with build() as engine:
        timer = engine.timer(images(4), window="h2d", launch="auto")
        timer.lower(graph=True, gate=False)
        assert (timer.launch, timer.gated) == ("graph", False)
        timer.lower(graph=False, gate=False)
        assert (timer.launch, timer.gated) == ("enqueue", False)
        assert calibrate_calls(timer, 20_000) in (2, 3)
        assert timer.sample(4) == pytest.approx(10_000, rel=1e-4)
        assert len(timer.notes) == 2


def test_calls_that_one_gate_cannot_hold_are_not_timed_and_not_recorded(build, images, driver):
    with build() as engine:
        timer = engine.timer(images(4), window="h2d", launch="gated_graph")
        latency = timed(timer, min_ns=1000 * 10_000)
        assert (latency.gated, latency.calls_per_sample) == (True, 256)
        assert latency.rounds_ns.array() == pytest.approx(10_000, rel=1e-4)
        timer.lower(graph=True, gate=False)
        latency = timed(timer, min_ns=1000 * 10_000)
        assert latency.gated is False
        assert latency.calls_per_sample in (1000, 1001)


def test_a_gate_is_tried_anew_without_the_graph(build, images, environment):
    with build() as engine:
        timer = engine.timer(images(4), window="compute", launch="auto")
        environment("FAKE_CUDA_WAIT", "no")
        timer.lower(graph=False, gate=True)
        assert (timer.launch, timer.gated) == ("enqueue", False)
        assert "timed without a gate" in engine.facts.notes[-1]


def test_an_uncapturable_engine_without_stream_waits_is_enqueued(build, images, environment, monkeypatch):
    environment("FAKE_CUDA_WAIT", "no")
    with build() as engine:
        monkeypatch.setattr(engine, "_can_capture", lambda: False)
        timer = engine.timer(images(4), window="compute", launch="auto")
        assert (timer.launch, timer.gated) == ("enqueue", False)
        assert [note.split(":")[0] for note in timer.notes] == ["timed without a CUDA graph", "timed without a gate"]
        assert set(timer.notes) <= set(engine.facts.notes)


@pytest.mark.parametrize("launch", ["graph", "gated_graph"])
def test_a_graph_asked_for_of_an_uncapturable_engine_is_refused(build, images, monkeypatch, launch):
    with build() as engine:
        monkeypatch.setattr(engine, "_can_capture", lambda: False)
        with pytest.raises(ConfigError, match="cannot be timed as a graph"):
            engine.timer(images(4), window="compute", launch=launch)
        assert engine.timer(images(4), window="compute", launch="gated").gated


@pytest.mark.parametrize(("launch", "became"), [("auto", "graph"), ("graph", "graph"), ("enqueue", "enqueue")])
def test_the_host_window_is_one_synchronous_call_with_its_copies(build, images, expected, driver, launch, became):
    with build() as engine:
        batch = images(4)
        timer = engine.timer(batch, window="host", launch=launch)
        assert (timer.clock, timer.window, timer.launch, timer.gated) == ("host", "host", became, False)
        kernels = driver.fake_calls(0)
        samples = timer.sample(5)
        assert (samples.shape, driver.fake_calls(0) - kernels) == ((5,), 5)
        assert (samples > 0).all()
        outputs = timer._call_and_wait()
        assert np.allclose(outputs, expected(batch), rtol=1e-5)
        assert not np.shares_memory(outputs, timer._call_and_wait())
        assert timer.enqueue_ns() is None


@pytest.mark.parametrize("launch", ["gated", "gated_graph", "sideways"])
def test_the_host_window_has_no_gate(build, images, launch):
    with build() as engine, pytest.raises(ConfigError, match="with the window host is none of auto, enqueue, graph"):
        engine.timer(images(4), window="host", launch=launch)


def test_the_host_window_goes_without_a_graph_where_fp32_has_none(pair, images, monkeypatch):
    ours, reference = pair(monkeypatch, 0)
    with ours, reference:
        timers = timers_of((ours, reference), images(4), window="host")
        assert [(timer.launch, timer.gated) for timer in timers] == [("enqueue", False)] * 2
        assert all((timer.sample(3) > 0).all() for timer in timers)


def test_the_clock_of_events_is_audited(build, images):
    with build() as engine:
        timer = engine.timer(images(4), window="compute", launch="auto")
        assert timer.empty_ns(5).tolist() == [0.0] * 5  # virtual time: nothing takes none
        audit = audited(timer, "cuda_event")
        assert (audit.clock, audit.quantum_ns, audit.empty_ns) == ("cuda_event", CUDA_EVENT_RESOLUTION_NS, 0.0)
        # A call takes 50 virtual us, and far less or more of the host's.
        assert audit.drift is not None
        assert abs(audit.drift) > 1e-3
        assert timer.sample(3) == pytest.approx(50_000, rel=1e-4)


@pytest.mark.parametrize("launch", ["auto", "graph", "gated", "enqueue"])
def test_the_enqueue_is_the_plain_call_on_a_drained_stream(build, images, driver, launch):
    with build() as engine:
        timer = engine.timer(images(4), window="compute", launch=launch)
        kernels, graphs, waits = (driver.fake_calls(kind) for kind in (0, 1, 3))
        assert timer.enqueue_ns() > 0
        assert driver.fake_calls(0) - kernels >= 32
        assert (driver.fake_calls(1), driver.fake_calls(3)) == (graphs, waits)
        assert timer.sample(2) == pytest.approx(50_000, rel=1e-4)


def test_the_stream_is_drained_between_enqueues():
    gpu = Gpu(0)
    stream, target, source = gpu.stream(), gpu.device_memory(64), gpu.pinned((16,), np.float32)
    waiting = []

    def work():
        waiting.append(not gpu.api.cuStreamQuery(gpu.api.CUstream(stream.handle))[0])
        gpu.copy_in(target, source, stream)

    timer = CudaTimer(
        gpu, stream, work=work, bind=lambda: 0, batch_size=1, window="compute", launch="gated", entries_per_call=1
    )
    waiting.clear()
    timer.enqueue_ns()
    assert len(waiting) >= 32
    assert all(waiting)
    timer.close()
    gpu.close()


def test_a_shape_that_cannot_be_captured_any_more_is_told(build, images, environment):
    with build() as engine:
        timer = engine.timer(images(4), window="compute", launch="auto")
        environment("FAKE_CUDA_CAPTURE", "no")
        engine.infer(images(2))
        assert timer.sample(3) == pytest.approx(50_000, rel=1e-4)
        assert (timer.launch, timer.gated) == ("enqueue", True)
        assert "timed without a CUDA graph" in engine.facts.notes[-1]


@pytest.mark.parametrize("launch", ["gated_graph", "graph", "gated", "enqueue"])
def test_a_planted_slowdown_is_as_large_as_asked(build, images, launch):
    with build() as engine:
        found = {}
        for fraction in (0.0, 0.01, 0.5):
            timer = engine.timer(images(4), window="compute", launch=launch)
            timer.slow_down(fraction)
            found[fraction] = float(np.median(timer.sample(5)))
            timer.close()
    assert found[0.0] == pytest.approx(51_000, rel=2e-5)  # the kernel that waits for nothing takes 1 us
    assert found[0.01] - found[0.0] == pytest.approx(0.01 * 50_000, rel=0.01)
    assert found[0.5] - found[0.0] == pytest.approx(0.5 * 50_000, rel=0.01)


def test_a_card_that_takes_no_kernel_of_ours_says_so(build, images, monkeypatch):
    monkeypatch.setenv("FAKE_CUDA_MODULE", "no")
    with build() as engine:
        timer = engine.timer(images(4), window="compute", launch="auto")
        with pytest.raises(MeasurementError, match="batch 4 cannot be slowed down: cuModuleLoadData failed"):
            timer.slow_down(0.01)


@pytest.mark.parametrize("window", ["compute", "end_to_end"])
def test_outputs_are_read_back_from_the_timers_own_buffers(build, images, window):
    with build() as engine:
        timer = engine.timer(images(4), window=window, launch="auto")
        expected = engine.infer(images(4))
        for _ in range(2):  # spoiled with NaN in between: the second reading shows what the calls since wrote
            timer.sample(2)
            np.testing.assert_array_equal(timer.outputs(), expected)
        assert np.isnan(timer.outputs()).all()


@pytest.mark.parametrize("window", ["h2d", "d2h"])
def test_a_window_of_copies_has_no_outputs(build, images, window):
    with build() as engine:
        assert engine.timer(images(4), window=window, launch="auto").outputs() is None
