"""The torch-trt adapter on the fake driver: what Torch-TensorRT is asked, and what is told of what it made."""

import sys
import types
from dataclasses import replace

import fake_torch
import numpy as np
import pytest
from checks_torch_cuda import batch, expected, net, torch  # noqa: F401 - a fixture

from harness.backends import load_backend
from harness.errors import BuildError, MeasurementError
from harness.precision.effective import effective_precision
from harness.specs import BuildOptions, Case, Precision

pytestmark = pytest.mark.usefixtures("no_leak")


def part(*targets):
    nodes = [types.SimpleNamespace(op="placeholder", target="x")]
    nodes += [types.SimpleNamespace(op="call_function", target=target) for target in targets]
    return types.SimpleNamespace(graph=types.SimpleNamespace(nodes=nodes))


class Compiled:
    """Runs the module that it was compiled from."""

    parts = (("_run_on_acc_0", part()),)

    def __init__(self, exported):
        self._module = exported.module

    def named_children(self):
        return self.parts

    def __call__(self, images):
        return self._module(images)


@pytest.fixture
def asked(monkeypatch):
    """What Torch-TensorRT was asked last."""
    found = {}

    def compile_program(exported, **options):
        assert fake_torch.scopes == ["no_grad"]
        found.update(options, sizes=exported.sizes)
        return Compiled(exported)

    package = types.SimpleNamespace(
        __version__="2.13.0",
        Input=lambda **options: options,
        dynamo=types.SimpleNamespace(compile=compile_program),
    )
    monkeypatch.setitem(sys.modules, "torch_tensorrt", package)
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="11.0.0"))
    return found


@pytest.fixture
def engine(make_artifact, tmp_path, asked):
    def make(*, tf32=False, batch_sizes=(1, 4), net_is=None, **artifact):
        made = make_artifact(path=net(tmp_path / "real.onnx", **(net_is or {})))
        return load_backend("torch-trt").build(
            replace(made, **artifact),
            device="cuda:0",
            batch_sizes=batch_sizes,
            options=BuildOptions(settings={"cuda": {"tf32": tf32}}),
        )

    return make


def test_batches_run_on_our_stream_as_a_graph(engine):
    batches = [batch(4, k) for k in range(9)] + [batch(3, 9)]
    with engine() as ours:
        for images, output in zip(batches, ours.infer_stream(batches), strict=True):
            np.testing.assert_allclose(output, expected(images), rtol=1e-6)
        timer = ours.timer(batch(4), window="compute", launch="auto")
        assert (timer.launch, timer.gated) == ("graph", True)
        with pytest.raises(MeasurementError, match="holds NaN"):
            ours.infer(batch(4) * np.nan)


@pytest.mark.parametrize("tf32", [True, False])
def test_it_is_compiled_for_the_batches_asked_for(engine, asked, tf32):
    with engine(tf32=tf32, batch_sizes=(1, 32)) as ours:
        (source,) = asked["arg_inputs"]
        assert [source[end] for end in ("min_shape", "opt_shape", "max_shape")] == [
            (1, 1, 4, 4),
            (32, 1, 4, 4),
            (32, 1, 4, 4),
        ]
        assert asked["sizes"] == ({0: ("n", {"min": 1, "max": 32})},)
        assert (asked["disable_tf32"], asked["device"], asked["min_block_size"]) == (not tf32, "cuda:0", 1)
        versions = ours.facts.versions
        assert (versions["torch_tensorrt"], versions["tensorrt"]) == ("2.13.0", "11.0.0")


def test_a_fixed_batch_is_compiled_as_such(engine, asked):
    with engine(net_is={"batch": 4}, batch_sizes=(4,)):
        assert asked["arg_inputs"] == [{"shape": (4, 1, 4, 4), "dtype": fake_torch.float32}]
        assert asked["sizes"] is None


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ((("_run_on_acc_0", part()),), "TensorRT runs 1 engines, PyTorch nothing"),
        (
            (("_run_on_acc_0", part()), ("_run_on_gpu_1", part("aten.lrn", "aten.cat")), ("_run_on_acc_2", part())),
            "TensorRT runs 2 engines, PyTorch 2 operators: aten.lrn, aten.cat",
        ),
        ((("_run_on_gpu_0", part(*"abcdefg")),), "TensorRT runs 0 engines, PyTorch 7 operators: a, b, c, d, e, ..."),
    ],
)
def test_what_is_left_to_pytorch_is_named(engine, monkeypatch, parts, told):
    monkeypatch.setattr(Compiled, "parts", parts)
    with engine() as ours:
        assert told in ours.facts.notes
        layers = ours.layers()
        assert {layer.name for layer in layers} == {"flat", "matmul"}
        assert effective_precision(layers, Precision.FP32).by_layer == {"unknown": 1.0}


def test_a_compilation_that_fails_is_one_line(engine, monkeypatch):
    def fails(exported, **options):
        raise RuntimeError("Failed to build the engine\nand more")

    monkeypatch.setattr(sys.modules["torch_tensorrt"].dynamo, "compile", fails)
    with pytest.raises(BuildError, match=r"^net-torch-trt-fp32: PyTorch fails on cuda:0: Failed to build the engine$"):
        engine()


@pytest.mark.parametrize(("precision", "recipe"), [("int8", "qdq-minmax"), ("bf16", "cast"), ("bf16", "runtime")])
def test_what_it_does_not_take_is_refused(precision, recipe):
    case = Case(model="net", backend="torch-trt", precision=Precision(precision), recipe=recipe, device="cuda:0")
    found = load_backend("torch-trt").supports(case)
    assert not found.supported
    assert "`trt`" in found.reason
