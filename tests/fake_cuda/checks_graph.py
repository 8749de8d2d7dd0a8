"""TensorRT engines of any graph on the fake driver: named inputs of several types, profiles, timers, close."""

from dataclasses import replace

import numpy as np
import pytest

from conftest import GRAPH, feeds_of, model_tensors, sums_of
from harness.backends._cuda.device import CudaError
from harness.backends._cuda.ring import N_SLOTS
from harness.errors import BuildError, ConfigError, MeasurementError, Unsupported
from harness.measure.samples import run_samples
from harness.models.feeds import seeded_sample
from harness.protocols import KeepsOutputs, QueuedContext, RunsTensors, RunsTensorsConcurrently
from harness.records import EngineFile
from harness.specs import ModelTensors

pytestmark = pytest.mark.usefixtures("no_leak")
WINDOWS = ("compute", "h2d", "d2h", "end_to_end", "host")
COMPUTING = ("compute", "end_to_end", "host")


def agree(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_named_tensors_of_several_types_run(build_graph):
    with build_graph() as engine:
        assert isinstance(engine, RunsTensors)
        assert [(one.name, one.dtype, one.shape) for one in engine.inputs] == [
            ("ids", "int64", (None, 6)),
            ("mask", "bool", (None, 6)),
            ("shift", "float32", (None, 6)),
        ]
        assert [(one.name, one.dtype) for one in engine.outputs] == [
            ("shifted", "float32"),
            ("kept", "int32"),
            ("odd", "bool"),
        ]
        for n_samples in (1, 4, 3, 2, 4):
            feeds = feeds_of(n_samples, seed=n_samples)
            agree(engine.run(feeds), sums_of(feeds))
        assert engine.facts.n_engines == 1


def test_a_scalar_input_leaves_one_sample_a_run(build_graph):
    tensors = model_tensors(shift={"shape": (), "batch_axis": None, "free_axes": ()})
    model = {"inputs": {**GRAPH["inputs"], "shift": ["FLOAT", []]}}
    feeds = {**feeds_of(1), "shift": np.array(0.5, np.float32)}
    with build_graph(tensors=tensors, model=model) as engine:
        assert engine.facts.options["profiles"].endswith("(opt 1x6) shift scalar..scalar (opt scalar)")
        agree(engine.run(feeds), sums_of(feeds))
        timer = engine.bind(feeds, batch_size=1, window="end_to_end", launch="auto")
        timer.sample(2)
        agree(timer.outputs(), sums_of(feeds))


def test_outputs_are_fresh(build_graph):
    with build_graph() as engine:
        first = engine.run(feeds_of(4))
        kept = {name: array.copy() for name, array in first.items()}
        second = engine.run(feeds_of(4, seed=1))
        assert not any(np.shares_memory(first[name], second[name]) for name in first)
        agree(first, kept)


def test_one_profile_a_batch_size_and_any_last_batch(build_graph):
    with build_graph(batch_sizes=(1, 2, 4)) as engine:
        assert engine.facts.options["profiles"] == ", ".join(
            " ".join(f"{name} {low}x6..{high}x6 (opt {high}x6)" for name in ("ids", "mask", "shift"))
            for low, high in ((1, 1), (2, 2), (1, 4))
        )
        assert engine.facts.n_contexts == 3


def test_smallest_and_largest_shapes_make_one_profile(build_graph):
    given = {"free_axes": (0, 1), "min_shape": (1, 2), "max_shape": (1, 40)}
    tensors = model_tensors(ids=given, mask=given, shift=given)
    wide = {name: [kind, [-1] * len(shape)] for name, (kind, shape) in GRAPH["inputs"].items()}
    with build_graph(tensors=tensors, model={"inputs": wide}) as engine:
        assert engine.facts.options["profiles"].startswith("ids 1x2..4x40 (opt 4x6) mask ")
        for n_samples, width in ((1, 2), (4, 40), (3, 17)):
            feeds = feeds_of(n_samples, width=width)
            agree(engine.run(feeds), sums_of(feeds))
        with pytest.raises(MeasurementError, match=r"ids 1x41 .* lie outside .*give --min-shapes and --max-shapes"):
            engine.run(feeds_of(1, width=41))


def test_profiles_asked_for_are_in_samples(build_graph):
    with build_graph(profiles=((1, 2, 8),)) as engine:
        assert engine.facts.options["profiles"].startswith("ids 1x6..8x6 (opt 2x6)")
        agree(engine.run(feeds_of(8)), sums_of(feeds_of(8)))
    with pytest.raises(BuildError, match="batch 4 lies in no profile"):
        build_graph(profiles=((1, 2, 2),))


def test_fixed_shapes_need_no_profile(build_graph):
    fixed = {name: [kind, [abs(size) for size in shape]] for name, (kind, shape) in GRAPH["inputs"].items()}
    tensors = model_tensors(ids={"free_axes": ()}, mask={"free_axes": ()})
    with build_graph(tensors=tensors, model={"inputs": fixed}) as engine:
        agree(engine.run(feeds_of(1)), sums_of(feeds_of(1)))
        with pytest.raises(MeasurementError, match=r"shape \[2, 6\]; expected \[1, 6\]"):
            engine.run(feeds_of(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": None}, "inputs ids, shift are given; expected ids, mask, shift"),
        ({"ids": np.zeros((1, 6), np.int32)}, "input ids is int32; expected an array of int64"),
        ({"ids": np.zeros((1, 7), np.int64)}, r"shape \[1, 7\]"),
        ({"ids": np.full((1, 6), 2**31)}, "input ids holds numbers beyond int32, the engine's type"),
        ({"shift": np.full((1, 6), np.nan, np.float32)}, "input shift holds NaN"),
    ],
)
def test_wrong_inputs_are_refused(build_graph, change, message):
    feeds = {name: array for name, array in {**feeds_of(1), **change}.items() if array is not None}
    with build_graph() as engine, pytest.raises(MeasurementError, match=message):
        engine.run(feeds)


@pytest.mark.parametrize("window", WINDOWS)
def test_every_window_times_named_tensors(build_graph, window):
    feeds = feeds_of(4)
    with build_graph() as engine:
        timer = engine.bind(feeds, batch_size=4, window=window, launch="auto")
        assert (timer.batch_size, timer.window, timer.launch) == (4, window, "graph")
        assert isinstance(timer, KeepsOutputs)
        for _ in range(2):  # what was read is spoiled, so the calls in between wrote it anew
            spans = timer.sample(5)
            assert (spans > 0).all()
            if window in COMPUTING:
                agree(timer.outputs(), sums_of(feeds))
            else:
                assert timer.outputs() is None
        if window in ("compute", "h2d", "d2h"):
            assert spans == pytest.approx({"compute": 150_000, "h2d": 30_000, "d2h": 30_000}[window], rel=1e-3)


def test_outputs_that_no_call_wrote_are_spoiled(build_graph):
    with build_graph() as engine:
        timer = engine.bind(feeds_of(2), batch_size=2, window="compute", launch="enqueue")
        timer.sample(1)
        timer.outputs()
        spoiled = timer.outputs()
        assert np.isnan(spoiled["shifted"]).all()
        assert (spoiled["kept"] == -1).all()
        assert spoiled["odd"].all()


def test_timers_of_two_batches_in_turn_and_runs_between(build_graph):
    with build_graph(batch_sizes=(4,)) as engine:
        timers = [engine.bind(feeds_of(n, seed=n), batch_size=n, window="compute", launch="auto") for n in (2, 4)]
        for _ in range(2):
            for n, timer in zip((2, 4), timers, strict=True):
                timer.sample(2)
                agree(timer.outputs(), sums_of(feeds_of(n, seed=n)))
                agree(engine.run(feeds_of(3)), sums_of(feeds_of(3)))


def begin_all(contexts, n_rounds):
    for _ in range(n_rounds):
        for context in contexts:
            context.begin()
        for context in contexts:
            context.wait()


@pytest.mark.parametrize("captures", ["yes", "no"])
def test_several_inferences_of_named_inputs_are_queued_on_one_stream(build_graph, environment, captures):
    environment("FAKE_CUDA_CAPTURE", captures)
    feeds, others = feeds_of(4), feeds_of(3, seed=1)
    with build_graph(batch_sizes=(4,)) as engine:
        assert isinstance(engine, RunsTensorsConcurrently)
        four = engine.bind_contexts(feeds, engine.most_contexts, batch_size=4)
        three = engine.bind_contexts(others, 2, batch_size=3)
        assert all(isinstance(context, QueuedContext) for context in (*four, *three))
        for contexts, given in ((four, feeds), (three, others), (four, feeds)):
            begin_all(contexts, 3)
            agree(engine.run(feeds_of(1)), sums_of(feeds_of(1)))
            for context in contexts:
                agree(context.outputs(), sums_of(given))
        spoiled = four[0].outputs()
        assert np.isnan(spoiled["shifted"]).all(), "no run wrote in between"
        four[0].run()
        agree(four[0].outputs(), sums_of(feeds))
        assert engine.concurrency == "inferences queued on one stream, by one thread"


def test_named_inferences_at_once_are_replayed_as_graphs(build_graph, driver):
    with build_graph() as engine:
        contexts = engine.bind_contexts(feeds_of(4), 2, batch_size=4)
        before, captures = driver.fake_calls(1), driver.fake_calls(2)
        begin_all(contexts, 5)
        assert driver.fake_calls(1) - before == 10
        assert driver.fake_calls(2) == captures


@pytest.mark.parametrize(("n_contexts", "n_samples"), [(0, 4), (N_SLOTS + 1, 4), (2, 5)])
def test_named_inputs_that_cannot_run_at_once_are_refused(build_graph, n_contexts, n_samples):
    with build_graph(batch_sizes=(4,)) as engine, pytest.raises(MeasurementError, match=r"at once|outside"):
        engine.bind_contexts(feeds_of(n_samples), n_contexts, batch_size=n_samples)


@pytest.mark.loses_the_device
def test_a_device_fault_in_an_inference_at_once_names_it(build_graph, environment):
    engine = build_graph()
    (context,) = engine.bind_contexts(feeds_of(1), 1, batch_size=1)
    environment("FAKE_CUDA_FAULT", "yes")
    with pytest.raises(MeasurementError, match=r"an inference (could not be enqueued|failed on the device)"):
        context.run()
    with pytest.raises(CudaError):
        engine.close()


def test_a_window_or_launch_that_is_none_is_refused(build_graph):
    with build_graph() as engine:
        with pytest.raises(ConfigError, match="window 'sometimes' is none of"):
            engine.bind(feeds_of(1), batch_size=1, window="sometimes", launch="auto")
        with pytest.raises(ConfigError, match="launch 'sometimes' is none of"):
            engine.bind(feeds_of(1), batch_size=1, window="compute", launch="sometimes")


def test_a_captured_graph_goes_when_it_cannot_be_had(build_graph, environment):
    environment("FAKE_CUDA_CAPTURE", "no")
    with build_graph() as engine:
        timer = engine.bind(feeds_of(4), batch_size=4, window="compute", launch="auto")
        assert timer.launch == "enqueue"
        timer.sample(2)
        agree(timer.outputs(), sums_of(feeds_of(4)))


def test_the_layers_are_read_and_the_engine_goes_on(build_graph):
    with build_graph() as engine:
        timer = engine.bind(feeds_of(4), batch_size=4, window="compute", launch="auto")
        (layer,) = engine.layers()
        assert layer.name.startswith("conv")
        assert layer.time_ns == pytest.approx(50_000)
        timer.sample(2)
        agree(timer.outputs(), sums_of(feeds_of(4)))
        agree(engine.run(feeds_of(1)), sums_of(feeds_of(1)))


def test_plans_are_cached_by_what_goes_in(build_graph):
    with build_graph() as engine:
        assert engine.facts.cache == "miss"
    with build_graph() as engine:
        assert engine.facts.cache == "hit"
        agree(engine.run(feeds_of(4)), sums_of(feeds_of(4)))
    given = {"min_shape": (1, 6), "max_shape": (9, 6)}
    with build_graph(tensors=model_tensors(ids=given, mask=given, shift=given)) as engine:
        assert engine.facts.cache == "miss"
        agree(engine.run(feeds_of(9)), sums_of(feeds_of(9)))


def test_a_plan_is_loaded_from_a_file(build_graph):
    with build_graph() as engine:
        file = engine.facts.file
    with build_graph(load=EngineFile(path=file.path, sha256=file.sha256)) as engine:
        agree(engine.run(feeds_of(4)), sums_of(feeds_of(4)))
    other = ModelTensors(inputs=model_tensors().inputs[:2], outputs=model_tensors().outputs)
    with pytest.raises(BuildError, match=r"the engine has inputs \['ids', 'mask', 'shift'\]; the model has"):
        build_graph(tensors=other, load=EngineFile(path=file.path, sha256=file.sha256))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"shape_tensors": ["ids"]}, "input ids decides shapes by its values"),
        ({"host_tensors": ["kept"]}, "tensor kept decides shapes by its values, or is one"),
        ({"unsized": ["kept"]}, "the size of output kept depends on values"),
        ({"outputs": {"shifted": ["BF16", "ids", "shift"]}}, "tensor shifted is .* in TensorRT, which NumPy does not"),
    ],
)
def test_what_only_values_tell_is_unsupported(build_graph, model, message):
    with pytest.raises(Unsupported, match=message):
        build_graph(model=model)


@pytest.mark.parametrize("recipe", ["trt-entropy2", "trt-ranges"])
def test_calibration_inside_tensorrt_takes_images_alone(build_graph, recipe):
    with pytest.raises(Unsupported, match=f"recipe {recipe} calibrates with batches of images"):
        build_graph(recipe=recipe, precision="int8")


def test_a_state_goes_from_run_to_run_in_the_inputs_type(build_graph):
    """The engine's output is int32, the input that it feeds int64."""
    tensors = model_tensors(ids={"state": "kept"})
    assert tensors.has_state
    found = []
    with build_graph(tensors=tensors, batch_sizes=(1,)) as engine:
        samples = [seeded_sample(tensors, index) for index in range(3)]
        run_samples(engine, tensors, iter(samples), batch_size=1, each=found.append, n_samples=3)
    assert np.array_equal(found[-1]["kept"].ravel(), sum(sample["mask"].astype(np.int64) for sample in samples).ravel())


def test_a_closed_engine_and_a_bad_model_say_so(build_graph):
    engine = build_graph()
    engine.close()
    engine.close()
    with pytest.raises(MeasurementError, match="closed"):
        engine.run(feeds_of(1))
    renamed = replace(model_tensors().inputs[0], name="tokens")
    tensors = ModelTensors(inputs=(renamed, *model_tensors().inputs[1:]), outputs=model_tensors().outputs)
    with pytest.raises(BuildError, match="input ids of TensorRT is no input of the model"):
        build_graph(tensors=tensors)
