"""The ort-cuda adapter on the fake driver; sessions are ONNX Runtime's own on the CPU, posing as CUDA."""

import ctypes
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from conftest import CLASSES
from harness.backends.ort_cuda.adapter import OrtCudaBackend
from harness.backends.ort_cuda.probe import PROVIDER
from harness.errors import BuildError, ConfigError, MeasurementError, Unsupported
from harness.measure.arms import LocalArm
from harness.measure.timing import make_alike
from harness.protocols import RunsConcurrently, RunsTensors, RunsTensorsConcurrently
from harness.specs import BuildOptions, ModelInput, ModelOutput, ModelTensors, Precision, TimingPlan

pytestmark = pytest.mark.usefixtures("no_leak")
REAL = onnxruntime.InferenceSession
SHAPE = (1, 4, 4)
TYPES = {"ids": np.int32, "twice": np.int32}  # of the graph; all else is float32


class _Binding:
    def __init__(self):
        self.at = {}

    def _bind(self, name, device, index, dtype, shape, address):
        assert (device, index) == ("cuda", 0)
        assert dtype == TYPES.get(name, np.float32)
        self.at[name] = (shape, address)

    bind_input = bind_output = _bind


class _Session:
    """Runs the fake kernel on the caller's stream; profiles and metadata come from the real CPU session."""

    on_cpu = ()
    loads = True
    waits = False
    refuses = ""
    freed_at = ()  # depths of the context stack when sessions went
    made = ()

    def __init__(self, path, options, providers):
        ((provider, self._cuda),) = providers
        assert provider == PROVIDER
        is_strict = _entry(options, "session.disable_cpu_ep_fallback") == "1"
        if self.on_cpu and is_strict:
            raise onnxruntime.capi.onnxruntime_pybind11_state.Fail(
                "graph nodes that have been assigned to the default CPU EP"
            )
        if self.refuses:
            raise onnxruntime.capi.onnxruntime_pybind11_state.Fail(self.refuses)
        self._real = REAL(path, options, providers=["CPUExecutionProvider"]) if not is_strict else REAL(path)
        self._stream = ctypes.c_void_p(int(self._cuda["user_compute_stream"]))
        self._shape = ctypes.c_int(0)
        self._driver = ctypes.CDLL("libcuda.so.1")

    def __del__(self):
        _Session.freed_at += (ctypes.CDLL("libcuda.so.1").fake_depth(),)

    def __getattr__(self, name):
        return getattr(self._real, name)

    def get_providers(self):
        return [PROVIDER] if self.loads else ["CPUExecutionProvider"]

    def get_provider_options(self):
        return {PROVIDER: self._cuda}

    def io_binding(self):
        return _Binding()

    def run_with_iobinding(self, binding, run_options):
        assert run_options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
        if "ids" in binding.at:
            return self._add(binding.at)
        (n_images, *shape), source = binding.at["x"]
        (_, classes), target = binding.at["y"]
        ends = ctypes.c_uint64(source), ctypes.c_uint64(target)
        self._driver.fake_kernel(self._stream, *ends, n_images, int(np.prod(shape)), classes, ctypes.byref(self._shape))
        if self.waits:
            status = self._driver.cuStreamSynchronize(self._stream)
            if status:
                raise onnxruntime.capi.onnxruntime_pybind11_state.Fail(f"stream: {status}")

    def _add(self, at):
        for target, one, other in (("sum", "a", "b"), ("twice", "ids", "ids")):
            ends = [ctypes.c_uint64(at[name][1]) for name in (one, other, target)]
            kind = 3 if target == "twice" else 0
            n = int(np.prod(at[target][0]))
            status = self._driver.fake_add(self._stream, *ends, n, n, kind, kind, kind, ctypes.byref(self._shape))
            assert status == 0

    def end_profiling(self):
        path = Path(self._real.end_profiling())
        events = json.loads(path.read_text())
        for event in events:
            if event.get("cat") == "Node" and event["name"].removesuffix("_kernel_time") not in self.on_cpu:
                event["args"]["provider"] = PROVIDER
        path.write_text(json.dumps(events))
        return str(path)


def _entry(options, key):
    try:
        return options.get_session_config_entry(key)
    except RuntimeError:
        return ""


@pytest.fixture
def session(monkeypatch):
    monkeypatch.setattr(onnxruntime, "InferenceSession", _Session)
    return lambda **habits: [monkeypatch.setattr(_Session, name, value) for name, value in habits.items()]


@pytest.fixture
def artifact(make_artifact, tmp_path):
    helper, path = onnx.helper, tmp_path / "real.onnx"
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "w"], ["y"], name="matmul"),
    ]
    info = helper.make_tensor_value_info
    weights = onnx.numpy_helper.from_array(np.ones((16, CLASSES), np.float32), "w")
    graph = helper.make_graph(
        nodes, "g", [info("x", 1, ("n", *SHAPE))], [info("y", 1, ("n", CLASSES))], initializer=[weights]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return make_artifact(path=path)


@pytest.fixture
def engine(artifact, session):
    def make(**habits):
        session(**habits)
        return OrtCudaBackend().build(make.artifact, device="cuda:0", batch_sizes=(1, 4), options=BuildOptions())

    make.artifact = artifact
    return make


def batch(n_images, value=0.0):
    return np.full((n_images, *SHAPE), value, np.float32)


def test_batches_run_on_our_stream(engine, expected):
    batches = [batch(4, k) for k in range(9)] + [batch(3, 9)]
    with engine() as ours:
        assert np.allclose(ours.infer(batches[0]), expected(batches[0]))
        outputs = list(ours.infer_stream(batches))
        assert ours.facts.options["use_tf32"] == "0"
    for images, output in zip(batches, outputs, strict=True):
        assert np.allclose(output, expected(images), rtol=1e-5)


def test_an_engine_that_is_streaming_does_nothing_else(engine):
    batches = [batch(4, k) for k in range(9)]
    with engine() as ours:
        timer = ours.timer(batch(4), window="compute", launch="auto")
        stream = ours.infer_stream(batches)
        next(stream)
        for other in (lambda: ours.infer(batch(4)), lambda: ours.host_buffers(1, 4), lambda: timer.sample(1)):
            with pytest.raises(MeasurementError, match="batches are being streamed"):
                other()
        stream.close()
        ours.infer(batch(4))


@pytest.mark.parametrize(("window", "call_us"), [("compute", 50), ("h2d", 10), ("d2h", 10), ("end_to_end", 70)])
def test_windows(engine, window, call_us):
    with engine() as ours:
        timer = ours.timer(batch(4), window=window, launch="auto")
        assert (timer.launch, timer.gated) == ("graph", True)
        assert timer.sample(3) == pytest.approx(call_us * 1000, rel=1e-4)


def test_layers_name_their_provider(engine):
    with engine() as ours:
        (*_, matmul) = ours.layers()
    assert matmul.kernel.startswith(PROVIDER)
    assert (matmul.precision, matmul.time_ns) == ("fp32", None)


def test_nodes_on_the_cpu_are_named_and_only_enqueued(engine):
    with engine(on_cpu=("matmul",)) as ours:
        assert ours.on_cpu == ("matmul",)
        assert "1 nodes run on the CPU: matmul" in ours.facts.notes
        timer = ours.timer(batch(4), window="compute", launch="auto")
        assert (timer.launch, timer.gated) == ("enqueue", False)
        with pytest.raises(ConfigError, match="1 nodes run on the CPU"):
            ours.timer(batch(4), window="compute", launch="graph")


def test_a_run_that_waits_for_the_stream_is_found_out(engine, monkeypatch):
    monkeypatch.setattr("harness.backends._cuda.launcher.TRIAL_TIMEOUT_S", 0.05)
    with engine(waits=True) as ours:
        timer = ours.timer(batch(4), window="compute", launch="auto")
        assert (timer.launch, timer.gated) == ("enqueue", False)
        assert len(timer.notes) == 2
        assert timer.sample(3) == pytest.approx(50_000, rel=1e-4)


def test_notes_of_the_ring_and_of_timers_reach_the_facts(engine, environment):
    with engine() as ours:
        kept = ours.timer(batch(4), window="compute", launch="auto")
        made = ours.facts.notes
        kept.lower(graph=False, gate=True)
        assert ours.facts.notes == (*made, *kept.notes)
        environment("FAKE_CUDA_CAPTURE", "no")
        environment("FAKE_CUDA_WAIT", "no")
        list(ours.infer_stream(batch(4, k) for k in range(9)))
        ours.timer(batch(1), window="compute", launch="auto")
        found = [note.split(":")[0] for note in ours.facts.notes[len(made) :]]
        assert found == [
            "timed without a CUDA graph",
            "scored without CUDA graphs",
            "timed without a CUDA graph",
            "timed without a gate",
        ]
        ours.timer(batch(4), window="compute", launch="auto")
        assert len(ours.facts.notes) == len(made) + 4


def test_a_session_on_the_cpu_lowers_the_one_beside_it(engine):
    with engine() as whole, engine(on_cpu=("matmul",)) as ours:
        timers = [one.timer(batch(4), window="compute", launch="auto") for one in (ours, whole)]
        make_alike([LocalArm(timer, TimingPlan()) for timer in timers], "auto")
        assert [(timer.launch, timer.gated) for timer in timers] == [("enqueue", False)] * 2


def test_a_provider_that_does_not_load_is_refused(engine):
    with pytest.raises(BuildError, match="asked for CUDAExecutionProvider, ONNX Runtime took"):
        engine(loads=False)


def test_a_bf16_kernel_that_is_not_there_is_unsupported(engine, artifact):
    answer = "Exception during initialization: Provider type for MaxPool node with name '/1/MaxPool' is not set."
    with pytest.raises(BuildError, match="cannot build"):
        engine(refuses=answer)
    engine.artifact = replace(artifact, precision=Precision.BF16)
    with pytest.raises(Unsupported, match=rf"no BF16 MaxPool on its {PROVIDER} \(/1/MaxPool\)"):
        engine(refuses=answer)


FAULTS = {"get_providers": lambda self: ["x", "y"], "get_outputs": lambda self: self._real.get_outputs() * 2}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_session_goes_before_its_context_when_the_build_fails(engine, monkeypatch, fault):
    monkeypatch.setattr(_Session, "freed_at", ())
    monkeypatch.setattr(_Session, fault, FAULTS[fault], raising=False)
    with pytest.raises(BuildError) as failure:
        engine()
    assert failure.value.__traceback__ is not None
    assert _Session.freed_at == (1,)


@pytest.mark.loses_the_device
def test_a_context_that_breaks_does_not_hide_what_broke_it(engine, environment):
    environment("FAKE_CUDA_FAULT", "yes")
    with pytest.raises(BuildError, match="asked for CUDAExecutionProvider"):
        engine(loads=False)


def test_a_file_that_is_gone_is_a_build_error(engine, artifact):
    Path(artifact.onnx_path).unlink()
    with pytest.raises(BuildError, match="does not exist; prepare net again"):
        engine()


def test_a_smaller_batch_than_the_fixed_one_is_refused(engine, artifact):
    model = onnx.load(artifact.onnx_path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, artifact.onnx_path)
    with engine() as ours:
        ours.infer(batch(4))
        with pytest.raises(MeasurementError, match=r"has shape \[3, 1, 4, 4\]; expected \[4, 1, 4, 4\]"):
            ours.infer(batch(3))


def test_bad_batches_are_refused(engine):
    with engine() as ours:
        with pytest.raises(MeasurementError, match="above 4"):
            ours.infer(batch(5))
        with pytest.raises(MeasurementError, match="NaN"):
            ours.infer(batch(4, np.nan))
    with pytest.raises(MeasurementError, match="closed"):
        ours.infer(batch(1))


GRAPH = ModelTensors(
    inputs=tuple(
        ModelInput(name=name, dtype=dtype, shape=(1, 3), batch_axis=0, free_axes=(0,))
        for name, dtype in (("a", "float32"), ("b", "float32"), ("ids", "int32"))
    ),
    outputs=(ModelOutput(name="sum", batch_axis=0), ModelOutput(name="twice", batch_axis=0)),
)


def graph_feeds(n_samples, seed=0):
    generator = np.random.default_rng(seed)
    feeds = {name: generator.random((n_samples, 3), np.float32) for name in ("a", "b")}
    return feeds | {"ids": generator.integers(-9, 9, (n_samples, 3)).astype(np.int32)}


def graph_sums(feeds):
    return {"sum": feeds["a"] + feeds["b"], "twice": feeds["ids"] * 2}


def agree(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.fixture
def graph_engine(make_artifact, session, tmp_path):
    """Build an engine of two float inputs and one of whole numbers."""
    helper, path = onnx.helper, tmp_path / "graph.onnx"
    kinds = {"a": 1, "b": 1, "ids": 6, "sum": 1, "twice": 6}
    values = {name: helper.make_tensor_value_info(name, kind, ("n", 3)) for name, kind in kinds.items()}
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"], name="add"),
        helper.make_node("Add", ["ids", "ids"], ["twice"], name="double"),
    ]
    ends = [values[name] for name in ("a", "b", "ids")], [values[name] for name in ("sum", "twice")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", *ends), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    onnx.save(model, path)

    def make(**habits):
        session(**habits)
        artifact, options = make_artifact(path=path), BuildOptions(tensors=GRAPH)
        return OrtCudaBackend().build(artifact, device="cuda:0", batch_sizes=(1, 4), options=options)

    return make


def test_named_tensors_run(graph_engine):
    with graph_engine() as engine:
        assert isinstance(engine, RunsTensors)
        for n_samples in (1, 4, 3):
            feeds = graph_feeds(n_samples, seed=n_samples)
            agree(engine.run(feeds), graph_sums(feeds))
        with pytest.raises(MeasurementError, match="inputs a, b are given; expected a, b, ids"):
            engine.run({name: feeds[name] for name in ("a", "b")})
        assert {layer.name for layer in engine.layers()} == {"add", "double"}
    with pytest.raises(MeasurementError, match="closed"):
        engine.run(feeds)


@pytest.mark.parametrize("window", ["compute", "h2d", "d2h", "end_to_end", "host"])
def test_named_tensors_are_timed_on_device_memory(graph_engine, window):
    feeds = graph_feeds(4)
    with graph_engine() as engine:
        timer = engine.bind(feeds, batch_size=4, window=window, launch="auto")
        assert timer.launch == "graph"
        for _ in range(2):
            assert (timer.sample(3) > 0).all()
            if window in ("h2d", "d2h"):
                assert timer.outputs() is None
            else:
                agree(timer.outputs(), graph_sums(feeds))


@pytest.mark.parametrize("on_cpu", [(), ("double",)])
def test_several_runs_of_named_tensors_are_queued_on_the_sessions_stream(graph_engine, on_cpu):
    feeds = graph_feeds(4)
    with graph_engine(on_cpu=on_cpu, waits=bool(on_cpu)) as engine:
        assert isinstance(engine, RunsTensorsConcurrently)
        contexts = engine.bind_contexts(feeds, 3, batch_size=4)
        for _ in range(2):
            for context in contexts:
                context.begin()
            for context in contexts:
                context.wait()
            engine.run(graph_feeds(1, seed=1))
            for context in contexts:
                agree(context.outputs(), graph_sums(feeds))
        assert engine.concurrency == "inferences queued on one stream, by one thread"


def test_nodes_of_a_graph_on_the_cpu_are_named_and_only_enqueued(graph_engine):
    with graph_engine(on_cpu=("double",), waits=True) as engine:
        assert engine.on_cpu == ("double",)
        timer = engine.bind(graph_feeds(2), batch_size=2, window="compute", launch="auto")
        assert timer.launch == "enqueue"
        with pytest.raises(ConfigError, match="1 nodes run on the CPU; use the launch 'enqueue'"):
            engine.bind(graph_feeds(2), batch_size=2, window="compute", launch="graph")


def test_a_library_that_holds_no_operators_is_refused_by_its_flag(graph_engine, artifact, tmp_path):
    library = tmp_path / "none.so"
    library.write_bytes(b"no library")
    options = BuildOptions(settings={"ort": {"custom_ops": (str(library),)}})
    with pytest.raises(BuildError, match=r"--ort-custom-ops=.*none\.so"):
        OrtCudaBackend().build(artifact, device="cuda:0", batch_sizes=(1,), options=options)


def test_several_inferences_are_queued_on_the_sessions_stream(engine, expected):
    batch = np.random.default_rng(5).random((2, *SHAPE), np.float32)
    with engine() as built:
        assert isinstance(built, RunsConcurrently)
        contexts = built.contexts(batch, 3)
        for _ in range(3):
            for context in contexts:
                context.begin()
            for context in contexts:
                context.wait()
        built.infer(batch[:1])
        for context in contexts:
            assert np.allclose(context.outputs(), expected(batch), rtol=1e-5)
        assert built.concurrency == "inferences queued on one stream, by one thread"
