"""The torch-cuda adapter on the fake driver and a PyTorch of NumPy, which computes when its stream comes to it."""

import sys
from dataclasses import replace

import fake_torch
import numpy as np
import onnx
import pytest

from conftest import CLASSES
from harness.backends import load_backend
from harness.backends.torch_cuda import probe
from harness.errors import BuildError, ConfigError, MeasurementError, Unsupported
from harness.precision.effective import effective_precision
from harness.protocols import RunsConcurrently
from harness.specs import BuildOptions, Case, Precision
from harness.testing import CLAUSES, Nets

pytestmark = pytest.mark.usefixtures("no_leak")
SHAPE = (1, 4, 4)
CALL_US = 50  # Flatten, MatMul and the copy of the outputs
WEIGHTS = np.random.default_rng(3).random((16, CLASSES), np.float32)


@pytest.fixture(autouse=True)
def torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", fake_torch)
    for name, value in (("freed", ()), ("breaks", ""), ("device", None)):
        monkeypatch.setattr(fake_torch.state, name, value)
    fake_torch.problems.clear()
    yield fake_torch
    assert not fake_torch.problems
    assert (fake_torch.state.stream, fake_torch.state.pool, fake_torch.scopes) == (None, None, [])


def net(path, *, batch="n", last="MatMul"):
    helper, info = onnx.helper, onnx.helper.make_tensor_value_info
    nodes = [helper.make_node("Flatten", ["x"], ["f"], name="flat")]
    nodes.append(helper.make_node("MatMul", ["f", "w"], ["m" if last != "MatMul" else "y"], name="matmul"))
    if last != "MatMul":
        nodes.append(helper.make_node(last, ["m"], ["y"], name="last"))
    weights = [onnx.numpy_helper.from_array(WEIGHTS, "w")]
    graph = helper.make_graph(
        nodes, "g", [info("x", 1, (batch, *SHAPE))], [info("y", 1, (batch, CLASSES))], initializer=weights
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.fixture
def engine(make_artifact, tmp_path):
    """Build an engine; `net`: what the file is like, keyword arguments are options."""

    def make(*, net_is=None, batch_sizes=(1, 4), tf32=False, mode="eager", device="cuda:0", **artifact):
        made = make_artifact(path=net(tmp_path / "real.onnx", **(net_is or {})))
        options = BuildOptions(settings={"cuda": {"tf32": tf32}, "torch": {"mode": mode}})
        return load_backend("torch-cuda").build(
            replace(made, **artifact), device=device, batch_sizes=batch_sizes, options=options
        )

    return make


def batch(n_images, seed=0):
    return np.random.default_rng(seed).random((n_images, *SHAPE), np.float32)


def expected(images):
    return images.reshape(len(images), -1) @ WEIGHTS


@pytest.mark.parametrize("mode", ["eager", "script"])
def test_batches_run_on_our_stream_and_in_our_memory(engine, mode):
    batches = [batch(4, k) for k in range(20)] + [batch(3, 9)]
    with engine(mode=mode) as ours:
        first = ours.infer(batches[0])
        kept = first.copy()
        outputs = list(ours.infer_stream(batches))
        assert ours.facts.options["mode"] == mode
        np.testing.assert_array_equal(first, kept)
    for images, output in zip(batches, outputs, strict=True):
        np.testing.assert_allclose(output, expected(images), rtol=1e-6)


@pytest.mark.parametrize(
    ("window", "call_us"), [("compute", CALL_US), ("h2d", 10), ("d2h", 10), ("end_to_end", 20 + CALL_US)]
)
def test_windows_are_timed_behind_a_gate_as_graphs(engine, window, call_us):
    with engine() as ours:
        timer = ours.timer(batch(4), window=window, launch="auto")
        assert (timer.launch, timer.gated) == ("graph", True)
        assert timer.sample(3) == pytest.approx(call_us * 1000, rel=1e-4)
        if window in ("compute", "end_to_end"):
            np.testing.assert_allclose(timer.outputs(), expected(batch(4)), rtol=1e-6)
            timer.sample(1)  # a graph computes anew: what was read was spoiled
            np.testing.assert_allclose(timer.outputs(), expected(batch(4)), rtol=1e-6)
        plain = ours.timer(batch(2), window=window, launch="enqueue")
        assert plain.sample(3) == pytest.approx(call_us * 1000, rel=1e-4)


def test_several_inferences_are_queued_on_one_stream(engine):
    with engine() as ours:
        assert isinstance(ours, RunsConcurrently)
        contexts = ours.contexts(batch(2), 3)
        for context in contexts * 2:
            context.begin()
        for context in contexts:
            context.wait()
            np.testing.assert_allclose(context.outputs(), expected(batch(2)), rtol=1e-6)


@pytest.mark.parametrize(("tf32", "read"), [(False, "False"), (True, "True")])
def test_tf32_is_as_asked_and_read_back(engine, tf32, read):
    with engine(tf32=tf32) as ours:
        found = ours.facts.options
        assert (found["matmul_allow_tf32"], found["cudnn_allow_tf32"]) == (read, read)
        assert ours.facts.versions == {"torch": fake_torch.__version__, "cuda": "13.0", "cudnn": "91000"}
        assert {type(version) for version in ours.facts.versions.values()} == {str}  # nothing else can be sent


def test_nodes_tell_what_they_made_and_no_times(engine):
    with engine() as ours:
        layers = ours.layers()
        assert [(one.name, one.kind, one.precision, one.time_ns) for one in layers] == [
            ("flat", "Flatten", "fp32", None),
            ("matmul", "MatMul", "fp32", None),
        ]
        assert effective_precision(layers, Precision.INT8).by_layer == {"fp32": 1.0}
        np.testing.assert_allclose(ours.infer(batch(4)), expected(batch(4)), rtol=1e-6)


def test_bf16_by_autocast_is_of_the_gpu_and_of_eager_mode(engine, torch, monkeypatch):
    seen = []
    copy_ = torch.Tensor.copy_

    def noted(self, other):
        seen.append(tuple(torch.scopes))
        copy_(self, other)

    monkeypatch.setattr(torch.Tensor, "copy_", noted)
    asked = {"precision": Precision.BF16, "recipe": "runtime"}
    with engine(**asked) as ours:
        ours.infer(batch(1))
    assert set(seen) == {("inference", "autocast cuda torch.bfloat16")}
    with pytest.raises(Unsupported, match="autocast, which needs mode eager"):
        engine(mode="script", **asked)


def test_bad_batches_are_refused_before_pytorch_sees_them(engine, torch):
    with engine() as ours:
        seen = len(torch.work)
        for bad, words in (
            (batch(4) * np.nan, "holds NaN or Inf"),
            (batch(4).astype(np.float64), "is float64; expected a float32 array"),
            (batch(4)[..., :3], r"has shape \[4, 1, 4, 3\]; expected \[N, 1, 4, 4\]"),
            (batch(9), "batch 9 is above 8, the largest asked for"),
        ):
            with pytest.raises(MeasurementError, match=words):
                ours.infer(bad)
            with pytest.raises(MeasurementError, match=words):
                ours.timer(bad, window="compute", launch="auto")
        assert len(torch.work) == seen
    with pytest.raises(MeasurementError, match="closed"):
        ours.infer(batch(1))


def test_a_model_of_a_fixed_batch_takes_that_one(engine):
    with engine(net_is={"batch": 4}, batch_sizes=(4,)) as ours:
        np.testing.assert_allclose(ours.infer(batch(4)), expected(batch(4)), rtol=1e-6)
        with pytest.raises(MeasurementError, match="expected"):
            ours.infer(batch(3))


class _OnTheFake:
    """The backend as the contract asks it: the device is always the fake one."""

    def __init__(self, backend):
        self._backend = backend

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def build(self, artifact, *, device, **others):
        assert device == "cpu"
        return self._backend.build(artifact, device="cuda:0", **others)


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    return Nets(tmp_path_factory.mktemp("nets"))


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.__name__)
def test_the_contract_is_kept(clause, nets, monkeypatch):
    monkeypatch.setattr(probe, "probe_torch", lambda others: ({"torch": "2.13.0"}, ""))
    clause(_OnTheFake(load_backend("torch-cuda")), nets)


def test_what_cannot_be_built_is_one_line_and_leaves_nothing(engine, torch, monkeypatch):
    with pytest.raises(Unsupported, match=r"^net-torch-cuda-fp32: .* has no operator Erf \(1\)$"):
        engine(net_is={"last": "Erf"})
    with monkeypatch.context() as patch:
        patch.setattr(torch, "softmax", torch._operation(lambda value, axis: value[:, None]))
        with pytest.raises(BuildError, match=r"output has shape \[1, 1, 5\]; expected \[1, 5\]"):
            engine(net_is={"last": "Softmax"})
    with pytest.raises(ConfigError, match="is no CUDA device"):
        engine(device="cpu")
    torch.state.breaks = "to"
    with pytest.raises(BuildError, match=r"^net-torch-cuda-fp32: PyTorch fails on cuda:0: CUDA out of memory"):
        engine()
    torch.state.breaks = "operation"
    with pytest.raises(BuildError, match=r"its first batch fails: .* an illegal memory access"):
        engine()


def test_the_memory_goes_before_the_context(engine, torch):
    with engine():
        assert torch.state.freed == ()
    assert torch.state.freed == (1,)
    torch.state.breaks = "operation"
    with pytest.raises(BuildError) as failure:
        engine()
    assert failure.value.__traceback__ is not None
    assert torch.state.freed == (1, 1)


def test_an_engine_that_reads_the_file_otherwise_is_refused(engine, torch, monkeypatch):
    monkeypatch.setattr(torch, "matmul", torch._operation(lambda left, right: -(left @ right)))
    with pytest.raises(BuildError, match="8 of 8 random images get another class than from ONNX Runtime"):
        engine()


def test_work_that_cannot_be_captured_is_enqueued(engine, environment):
    with engine() as ours:
        environment("FAKE_CUDA_CAPTURE", "no")
        timer = ours.timer(batch(4), window="compute", launch="auto")
        assert timer.launch == "enqueue"
        assert timer.sample(3) == pytest.approx(CALL_US * 1000, rel=1e-4)


@pytest.mark.parametrize(("device", "supported"), [("cuda:0", True), ("cpu", False)])
def test_devices(device, supported):
    case = Case(model="net", backend="torch-cuda", precision=Precision.FP32, recipe="none", device=device)
    found = load_backend("torch-cuda").supports(case)
    assert (found.supported, bool(found.reason)) == (supported, not supported)
