"""The TensorRT engine on the fake driver: results, order, buffers, graphs, timing, close."""

import gc
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.backends._cuda.device import CudaError
from harness.backends._cuda.ring import N_SLOTS
from harness.errors import BuildError, ConfigError, MeasurementError
from harness.protocols import QueuedContext, RunsConcurrently
from harness.records import EngineFile
from harness.specs import BuildOptions

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from gpu_scoring import infer_in_turn

pytestmark = pytest.mark.usefixtures("no_leak")


def test_one_batch_of_every_size(build, images, expected):
    with build() as engine:
        for n_images in (1, 2, 4, 3, 4):
            batch = images(n_images, seed=n_images)
            assert np.allclose(engine.infer(batch), expected(batch), rtol=1e-5)


def test_the_plain_loop_agrees(build, images, expected):
    with build(profiles=((1, 1, 1), (2, 4, 8))) as engine:
        for n_images in (1, 8, 3):
            batch = images(n_images, seed=n_images)
            assert np.allclose(infer_in_turn(engine, batch), expected(batch), rtol=1e-5)
            assert np.allclose(engine.infer(batch), expected(batch), rtol=1e-5)


def test_outputs_do_not_share_memory(build, images):
    with build() as engine:
        first = engine.infer(images(4))
        kept = first.copy()
        engine.infer(images(4, seed=1))
        assert np.array_equal(first, kept)


@pytest.mark.parametrize("n_batches", [0, 1, 2, 3, 9, 25])
def test_a_stream_keeps_order_and_the_last_partial_batch(build, images, expected, n_batches):
    batches = [images(4, seed=k) for k in range(n_batches)] + [images(3, seed=99)]
    with build() as engine:
        outputs = list(engine.infer_stream(iter(batches)))
        again = list(engine.infer_stream(iter(batches)))
    assert [len(o) for o in outputs] == [4] * n_batches + [3]
    for batch, one, other in zip(batches, outputs, again, strict=True):
        assert np.allclose(one, expected(batch), rtol=1e-5)
        assert np.array_equal(one, other)


def test_what_tensorrt_logs_while_it_runs_is_in_the_facts(build, images):
    import fake_tensorrt

    with build() as engine:
        assert engine.facts.log_errors == ()
        engine.loaded.logger.log(fake_tensorrt.ILogger.Severity.ERROR, "late error")
        engine.infer(images(2))
        assert engine.facts.log_errors == ("late error",)


def test_every_batch_size_has_a_profile_tuned_for_it(build, images, expected):
    with build(batch_sizes=(1, 4, 2)) as engine:
        assert engine.facts.options["profiles"] == "1..1 (opt 1), 2..2 (opt 2), 1..4 (opt 4)"
        assert [engine._lanes.pick(n).best for n in (1, 2, 3, 4)] == [1, 2, 4, 4]
        for n in (1, 2, 3, 4):
            assert np.allclose(engine.infer(images(n)), expected(images(n)), rtol=1e-5)


def test_one_inference_stays_on_the_stream_that_is_timed(build, images, driver):
    """A context that has run on another stream was 5 % slower on its own for good."""
    with build() as engine:
        engine.infer(images(1))
        slot = engine._ring.slots[0]
        assert slot.stream is slot.compute is engine._compute
        assert len({id(slot.compute) for slot in engine._ring.slots}) == N_SLOTS


def test_an_engine_is_loaded_from_the_file_that_was_kept(build, backend, make_artifact, images, expected, tmp_path):
    with build() as engine:
        file = engine.facts.file
    with build() as engine:
        assert engine.facts.file == file  # from the cache, too
    kept = tmp_path / "kept.plan"
    kept.write_bytes(Path(file.path).read_bytes())
    kept_file, options = EngineFile(path=str(kept), sha256=file.sha256), BuildOptions()
    with backend.load(kept_file, make_artifact(), device="cuda:0", options=options) as engine:
        assert np.allclose(engine.infer(images(4)), expected(images(4)), rtol=1e-5)
        assert engine.facts.file == kept_file
    kept.write_bytes(b"other bytes")
    with pytest.raises(BuildError, match=r"kept.plan is not the one of sha256"):
        backend.load(kept_file, make_artifact(), device="cuda:0", options=options)
    kept.unlink()
    with pytest.raises(BuildError, match=r"kept.plan cannot be read \(No such file"):
        backend.load(kept_file, make_artifact(), device="cuda:0", options=options)


@pytest.mark.parametrize(("shares", "n_engines"), [("no", N_SLOTS), ("yes", 1)])
def test_the_contexts_that_were_made_are_counted(build, images, environment, shares, n_engines):
    environment("FAKE_TRT_SHARES", shares)
    with build(batch_sizes=(4,)) as engine:
        assert (engine.facts.n_contexts, engine.facts.n_engines) == (1, 1)
        list(engine.infer_stream(images(4, seed=k) for k in range(12)))
        assert (engine.facts.n_contexts, engine.facts.n_engines) == (N_SLOTS, n_engines)
        engine.layers()
        assert (engine.facts.n_contexts, engine.facts.n_engines) == (N_SLOTS, n_engines)


def test_contexts_given_up_again_were_made(build, images, environment):
    environment("FAKE_TRT_CONTEXTS", "3")
    with build(batch_sizes=(4,)) as engine:
        list(engine.infer_stream(images(4, seed=k) for k in range(12)))
        assert engine.facts.n_contexts == 3


def test_memory_that_runs_out_later_is_named(build, images, monkeypatch):
    with build() as engine:
        with pytest.raises(MeasurementError, match=r"[\d,]+ bytes of page-locked memory"):
            engine.host_buffers(1, 1 << 30)
        monkeypatch.setattr(engine._gpu._driver, "mem_alloc", lambda n_bytes: _no_memory())
        with pytest.raises(MeasurementError, match=r"batch 4.*12,544 bytes of device memory"):
            engine.timer(images(4), window="compute", launch="auto")
        with pytest.raises(MeasurementError, match=r"batch 4.*bytes of device memory"):
            engine.layers()


def _no_memory():
    raise CudaError("cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY")


def test_batches_are_replayed_as_graphs(build, images, driver):
    before, captures = driver.fake_calls(1), driver.fake_calls(2)
    with build() as engine:
        list(engine.infer_stream(images(4, seed=k) for k in range(20)))
        assert driver.fake_calls(2) - captures == N_SLOTS  # one graph a slot
        assert driver.fake_calls(1) - before == 20 - N_SLOTS  # each slot ran plainly once


@pytest.mark.parametrize(("shares", "n_engines"), [("no", N_SLOTS), ("yes", 1)])
def test_every_slot_has_a_context_of_its_own(build, images, expected, environment, shares, n_engines):
    import fake_tensorrt

    environment("FAKE_TRT_SHARES", shares)
    engines, contexts = len(fake_tensorrt.engines_made), len(fake_tensorrt.contexts_made)
    batches = [images(4, seed=k) for k in range(9)]
    with build(batch_sizes=(4,)) as engine:
        outputs = list(engine.infer_stream(batches))
        list(engine.infer_stream(batches))
        assert len(fake_tensorrt.engines_made) - engines == n_engines
        assert len(fake_tensorrt.contexts_made) - contexts == N_SLOTS
        assert engine.facts.options["profile_sharing"] == ("on" if shares == "yes" else "off")
        assert not any("scored" in note for note in engine.facts.notes)
    assert all(np.allclose(o, expected(b), rtol=1e-5) for o, b in zip(outputs, batches, strict=True))


def test_a_large_plan_is_loaded_once(build, images, expected, monkeypatch):
    import fake_tensorrt

    monkeypatch.setattr("harness.backends.trt.lanes.LARGEST_COPY", 10)
    engines = len(fake_tensorrt.engines_made)
    batches = [images(4, seed=k) for k in range(9)]
    with build() as engine:
        for _ in range(2):
            outputs = list(engine.infer_stream(batches))
            assert all(np.allclose(o, expected(b), rtol=1e-5) for o, b in zip(outputs, batches, strict=True))
        assert len(fake_tensorrt.engines_made) - engines == 1


@pytest.mark.parametrize("shares", ["no", "yes"])
@pytest.mark.parametrize("n_contexts", [1, 2, 3])
def test_without_memory_for_contexts_the_slots_take_turns(build, images, expected, environment, n_contexts, shares):
    environment("FAKE_TRT_CONTEXTS", str(n_contexts))
    environment("FAKE_TRT_SHARES", shares)
    batches = [images(4, seed=k) for k in range(9)] + [images(2)]
    with build(batch_sizes=(4,)) as engine:
        for _ in range(2):
            outputs = list(engine.infer_stream(batches))
            assert all(np.allclose(o, expected(b), rtol=1e-5) for o, b in zip(outputs, batches, strict=True))
        (note,) = (note for note in engine.facts.notes if "scored" in note)
    assert "scored one inference at a time" in note
    assert "out of memory for a context" in note


@pytest.mark.parametrize("sizes", [(4,) * 12, (4,) * 9 + (3,), (1, 4, 2)])
def test_batches_in_lent_buffers_are_sent_from_there(build, images, expected, sizes):
    with build() as engine:
        buffers = engine.host_buffers(3, 12)
        assert [(b.shape, b.dtype) for b in buffers] == [((12, *images(1).shape[1:]), np.float32)] * 3
        assert engine.host_buffers(2, 12)[0] is buffers[0]

        def batches():
            for k, size in enumerate(sizes):
                place = buffers[k % 9 // 3][k % 3 * 4 : k % 3 * 4 + size]
                place[...] = images(size, seed=k)
                yield place

        for slot in engine._ring.slots:
            slot.host_in[...] = 0
        outputs = list(engine.infer_stream(batches()))
        assert not any(slot.host_in.any() for slot in engine._ring.slots)  # nothing went through their own memory
    for k, (size, output) in enumerate(zip(sizes, outputs, strict=True)):
        assert np.allclose(output, expected(images(size, seed=k)), rtol=1e-5)


def test_what_lies_elsewhere_is_copied_and_looked_at(build, images, expected):
    with build() as engine:
        (buffer,) = engine.host_buffers(1, 8)
        buffer[...] = images(8)
        across = buffer[::2]  # in the buffer, but not one after the other
        assert np.allclose(next(engine.infer_stream([across])), expected(images(8)[::2]), rtol=1e-5)
        with pytest.raises(MeasurementError, match="NaN"):
            list(engine.infer_stream([np.full_like(images(4), np.nan)]))
        with pytest.raises(MeasurementError, match="shape"):
            list(engine.infer_stream([buffer[:4, :, :8]]))


def test_without_capture_it_runs_plainly(build, images, expected, environment, driver):
    environment("FAKE_CUDA_CAPTURE", "no")
    before = driver.fake_calls(1)
    batches = [images(4, seed=k) for k in range(12)]
    with build() as engine:
        outputs = list(engine.infer_stream(batches))
    assert all(np.allclose(o, expected(b), rtol=1e-5) for o, b in zip(outputs, batches, strict=True))
    assert driver.fake_calls(1) == before


def test_a_stream_left_early_frees_its_slots(build, images, expected):
    with build() as engine:
        stream = engine.infer_stream(images(4, seed=k) for k in range(1000))
        next(stream)
        stream.close()
        batch = images(4, seed=5)
        assert np.allclose(engine.infer(batch), expected(batch), rtol=1e-5)


def test_an_engine_that_is_streaming_does_nothing_else(build, images, expected):
    batches = [images(4, seed=k) for k in range(9)]
    with build() as engine:
        timer = engine.timer(images(4), window="compute", launch="auto")
        stream = engine.infer_stream(batches)
        outputs = [next(stream)]
        others = (
            lambda: engine.infer(images(4)),
            lambda: infer_in_turn(engine, images(4)),
            lambda: next(engine.infer_stream(batches)),
            lambda: engine.host_buffers(1, 4),
            lambda: engine.timer(images(4), window="compute", launch="auto"),
            lambda: timer.sample(1),
            engine.layers,
        )
        for other in others:
            with pytest.raises(MeasurementError, match="batches are being streamed; end or close that stream first"):
                other()
        outputs += stream
        assert all(np.allclose(o, expected(b), rtol=1e-5) for o, b in zip(outputs, batches, strict=True))
        for other in others:
            other()


@pytest.mark.parametrize(
    ("n_contexts", "says"), [("0", "no execution context for profile 0"), ("1", "no execution context for profile 1")]
)
def test_an_engine_that_cannot_be_opened_goes_before_the_context(build, environment, n_contexts, says):
    import fake_tensorrt

    environment("FAKE_TRT_CONTEXTS", n_contexts)
    fake_tensorrt.freed.clear()
    with pytest.raises(BuildError, match=says):
        build(profiles=((1, 1, 1), (2, 4, 8)))
    kinds = [kind for kind, _ in fake_tensorrt.freed]
    assert kinds == ["IExecutionContext"] * int(n_contexts) + ["ICudaEngine", "Runtime"]
    assert all(depth > 0 for _, depth in fake_tensorrt.freed)  # the CUDA context was still there


def test_an_error_of_the_data_reaches_the_caller(build, images):
    def batches():
        yield images(4)
        raise ZeroDivisionError("broken reader")

    with build() as engine, pytest.raises(ZeroDivisionError, match="broken reader"):
        list(engine.infer_stream(batches()))


@pytest.mark.parametrize("where", ["infer", "stream"])
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda x: x.astype(np.float64), "float64"),
        (lambda x: x[:, :, :8], "shape"),
        (lambda x: np.where(x > 0.9999, np.nan, x), "NaN"),
        (lambda x: np.concatenate([x, x]), "batch 8 lies outside the engine's profiles \\(1..1, 1..4\\)"),
    ],
)
def test_bad_input_is_refused(build, images, where, spoil, says):
    with build() as engine:
        calls = {"infer": engine.infer, "stream": lambda bad: list(engine.infer_stream([images(4), bad]))}
        with pytest.raises(MeasurementError, match=says):
            calls[where](spoil(images(4)))


def test_a_closed_engine_says_so(build, images):
    engine = build()
    engine.close()
    engine.close()
    for call in (engine.infer, lambda x: engine.timer(x, window="compute", launch="auto")):
        with pytest.raises(MeasurementError, match="closed"):
            call(images(1))
    with pytest.raises(MeasurementError, match="closed"):
        engine.layers()


def test_a_timer_ends_with_its_engine(build, images):
    with build() as engine:
        timer = engine.timer(images(1), window="compute", launch="auto")
    with pytest.raises(MeasurementError, match="engine of this timer is closed"):
        timer.sample(1)


def test_two_engines_share_the_device(build, make_artifact, images, expected):
    first, second = build(), build(make_artifact(sha256="b" * 64, classes=5))
    batch = images(4)
    assert np.array_equal(first.infer(batch), second.infer(batch))
    first.close()
    assert np.allclose(second.infer(batch), expected(batch), rtol=1e-5)
    second.close()


def test_several_profiles_have_one_context_each(build, images, expected):
    import fake_tensorrt

    before = len(fake_tensorrt.contexts_made)
    with build(profiles=((1, 1, 1), (2, 4, 8))) as engine:
        assert len(fake_tensorrt.contexts_made) - before == 2
        for n_images in (1, 4, 1, 8, 1, 2):
            batch = images(n_images, seed=n_images)
            assert np.allclose(engine.infer(batch), expected(batch), rtol=1e-5)
        assert engine.layers()[0].name == "conv\x1e [profile 1]"
        with pytest.raises(MeasurementError, match=r"batch 9 lies outside the engine's profiles \(1..1, 2..8\)"):
            engine.infer(images(9))


@pytest.mark.parametrize("launch", ["auto", "enqueue", "graph", "gated", "gated_graph"])
@pytest.mark.parametrize(("window", "call_us"), [("compute", 50), ("h2d", 10), ("d2h", 10), ("end_to_end", 70)])
def test_every_window_and_launch(build, images, launch, window, call_us):
    with build() as engine:
        timer = engine.timer(images(4), window=window, launch=launch)
        assert timer.clock == "cuda_event"
        assert timer.window == window
        assert timer.launch == ("enqueue" if launch in ("enqueue", "gated") else "graph")
        assert timer.gated == (launch in ("auto", "gated", "gated_graph"))
        assert timer.calls_per_sample == 1
        timer.calls_per_sample = 3
        samples = timer.sample(7)
        assert samples.shape == (7,)
        assert samples == pytest.approx(call_us * 1000, rel=1e-4)
        assert timer.enqueue_ns() > 0


@pytest.mark.parametrize(("launch", "calls"), [("gated", 23), ("gated_graph", 256), ("enqueue", 1000)])
def test_a_gated_sample_has_no_more_calls_than_one_gate_holds(build, images, launch, calls):
    with build() as engine:
        timer = engine.timer(images(1), window="compute", launch=launch)
        timer.calls_per_sample = 1000
        assert timer.calls_per_sample == calls
        assert timer.sample(2) == pytest.approx(50_000, rel=1e-4)


def test_timers_of_two_batches_in_turn(build, images, expected, driver):
    with build() as engine:
        small, large = (engine.timer(images(n), window="compute", launch="auto") for n in (1, 4))
        for _ in range(3):
            assert small.sample(2) == pytest.approx(50_000, rel=1e-4)
            assert large.sample(2) == pytest.approx(50_000, rel=1e-4)
            batch = images(3, seed=3)
            assert np.allclose(engine.infer(batch), expected(batch), rtol=1e-5)


@pytest.mark.parametrize(
    ("variable", "launch", "is_gated", "note"),
    [
        ("FAKE_CUDA_WAIT", "graph", False, "without a gate"),
        ("FAKE_CUDA_CAPTURE", "enqueue", True, "without a CUDA graph"),
    ],
)
def test_auto_falls_back_and_says_so(build, images, environment, variable, launch, is_gated, note):
    environment(variable, "no")
    with build() as engine:
        timer = engine.timer(images(1), window="compute", launch="auto")
        assert (timer.launch, timer.gated) == (launch, is_gated)
        assert note in timer.notes[0]
        assert timer.notes[0] in engine.facts.notes
        assert timer.sample(3) == pytest.approx(50_000, rel=1e-4)
        with pytest.raises(ConfigError, match="cannot be timed"):
            engine.timer(images(1), window="compute", launch="gated_graph")


@pytest.mark.parametrize(("window", "launch"), [("kernel", "auto"), ("compute", "call")])
def test_an_unknown_window_or_launch_is_refused(build, images, window, launch):
    with build() as engine, pytest.raises(ConfigError, match="is none of"):
        engine.timer(images(1), window=window, launch=launch)


def test_layers_have_times_and_the_engine_runs_on(build, images, expected):
    with build() as engine:
        (layer,) = engine.layers()
        assert (layer.kind, layer.precision, layer.time_ns) == ("CaskConvolution", "fp16", pytest.approx(50_000))
        batch = images(4)
        assert np.allclose(engine.infer(batch), expected(batch), rtol=1e-5)
        assert len(engine.layers()) == 1


@pytest.mark.loses_the_device
@pytest.mark.parametrize("what", ["timer", "sample", "enqueue_ns", "layers"])
def test_a_fault_while_timing_or_profiling_is_named(build, images, monkeypatch, what):
    engine = build()
    timer = engine.timer(images(2), window="compute", launch="auto")
    calls = {
        "timer": lambda: engine.timer(images(1), window="compute", launch="auto"),
        "sample": lambda: timer.sample(2),
        "enqueue_ns": timer.enqueue_ns,
        "layers": engine.layers,
    }
    monkeypatch.setenv("FAKE_CUDA_FAULT", "yes")
    with pytest.raises(MeasurementError, match="failed on the device"):
        calls[what]()
    with pytest.raises(CudaError, match="the CUDA context is broken"):
        engine.close()


@pytest.mark.loses_the_device
def test_a_fault_on_the_device_is_named_and_ends_the_engine(build, images, monkeypatch):
    engine = build()
    monkeypatch.setenv("FAKE_CUDA_FAULT", "yes")
    with pytest.raises(MeasurementError, match="batch 2 failed on the device"):
        engine.infer(images(2))
    with pytest.raises(CudaError, match=r"the CUDA context is broken .*go on in a new process"):
        engine.close()
    engine.close()


def begin_all(contexts, n_rounds):
    for _ in range(n_rounds):
        for context in contexts:
            context.begin()
        for context in contexts:
            context.wait()


@pytest.mark.parametrize("shares", ["no", "yes"])
def test_several_inferences_at_once_have_a_context_and_a_stream_each(build, images, expected, environment, shares):
    environment("FAKE_TRT_SHARES", shares)
    batch, other = images(4), images(4, seed=1)
    with build(batch_sizes=(4,)) as engine:
        assert isinstance(engine, RunsConcurrently)
        pairs, all_at_once = engine.contexts(batch, 2), engine.contexts(batch, engine.most_contexts)
        assert all(isinstance(context, QueuedContext) for context in (*pairs, *all_at_once))
        for contexts in (pairs, all_at_once, pairs):
            begin_all(contexts, 3)
        engine.infer(other)
        list(engine.infer_stream([other] * 9))
        begin_all(pairs, 2)
        for context in (*pairs, *all_at_once):
            assert np.allclose(context.outputs(), expected(batch), rtol=1e-5)
        assert engine.concurrency == "execution contexts with a stream each, by one thread"
        assert len({id(context._slot.compute) for context in all_at_once}) == N_SLOTS
        assert all_at_once[0]._slot.compute is engine._compute
        assert engine.facts.n_contexts == N_SLOTS


def test_inferences_at_once_are_replayed_as_graphs(build, images, driver):
    with build(batch_sizes=(4,)) as engine:
        contexts = engine.contexts(images(4), 2)
        begin_all(contexts, 2)  # plainly, then captured
        before, captures = driver.fake_calls(1), driver.fake_calls(2)
        begin_all(contexts, 5)
        assert driver.fake_calls(1) - before == 10
        assert driver.fake_calls(2) == captures


@pytest.mark.parametrize("n_contexts", [1, 2])
def test_inferences_at_once_take_turns_without_memory_for_contexts(build, images, expected, environment, n_contexts):
    gc.collect()  # contexts of earlier tests count
    environment("FAKE_TRT_CONTEXTS", str(n_contexts))
    with build(batch_sizes=(4,)) as engine:
        contexts = engine.contexts(images(4), 3)
        begin_all(contexts, 3)
        for context in contexts:
            assert np.allclose(context.outputs(), expected(images(4)), rtol=1e-5)
        assert engine.concurrency == "inferences queued on one stream, by one thread"


@pytest.mark.parametrize(("n", "batch"), [(0, 4), (N_SLOTS + 1, 4), (2, 5)])
def test_what_cannot_run_at_once_is_refused(build, images, n, batch):
    with build(batch_sizes=(4,)) as engine, pytest.raises(MeasurementError, match=r"at once; expected 1 to 6|batch 5"):
        engine.contexts(images(batch), n)
