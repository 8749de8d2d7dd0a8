"""PyTorch: ONNX graphs as modules, the ways to run them, and what is read back."""

import shutil

import numpy as np
import onnx_nets
import pytest
from onnx_chains import CHAINS, STEM, net, node
from onnx_nets import ArraySet, artifact_of, images, spec_of

from harness.backends import load_backend
from harness.backends.torch.graph import OPERATORS, check_operators, module_of
from harness.errors import BuildError, Unsupported
from harness.models.onnx_graph import load_model
from harness.precision import prepare_artifact
from harness.precision.effective import counted_layers
from harness.specs import BuildOptions, Precision

QDQ = {"DequantizeLinear", "QuantizeLinear"}


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def artifact(tmp_path, precision, recipe):
    path = onnx_nets.tiny_net(tmp_path / "tiny.onnx")
    return prepare_artifact(
        spec_of(path), precision, recipe, calibration=ArraySet(images(100)), cache_dir=str(tmp_path / "cache")
    )


def build(artifact, name="torch", cache="", **settings):
    options = BuildOptions(settings={"torch": settings} if settings else {}, cache_dir=str(cache))
    return load_backend(name).build(artifact, device="cpu", batch_sizes=(1, 4), options=options)


@pytest.mark.parametrize("name", CHAINS)
def test_a_module_gives_what_onnx_runtime_gives(name, torch, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    path = net(tmp_path / "net.onnx", CHAINS[name])
    batch = images(5) - np.float32(0.3)
    expected = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"image": batch})[0]
    with torch.inference_mode():
        found = module_of(torch, load_model(path))(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-5)


def test_every_operator_is_among_them():
    assert set(OPERATORS) - {kind for steps in CHAINS.values() for kind, _, _ in steps} == {*QDQ, "Cast"}


def test_operators_that_are_missing_are_listed_by_name(tmp_path):
    path = net(tmp_path / "net.onnx", [node("Erf"), node("Relu"), node("Erf"), node("Softplus")])
    with pytest.raises(Unsupported, match=r"^case: .* has no operator Erf \(2\), Softplus \(1\)$"):
        check_operators(load_model(path), "case")


REFUSED = {
    "padding SAME_UPPER": [node("Conv", "stem.w", "stem.b", auto_pad="SAME_UPPER")],
    "uneven padding": [STEM, node("AveragePool", kernel_shape=[2, 2], pads=[0, 0, 1, 1])],
    "type 7": [STEM, node("Cast", to=7)],
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_would_be_computed_otherwise_is_refused(why, torch, tmp_path):
    model = load_model(net(tmp_path / "net.onnx", REFUSED[why]))
    with pytest.raises(Unsupported, match=why):
        module_of(torch, model)(torch.from_numpy(images(2)))


@pytest.mark.parametrize("recipe", ["qdq-minmax", "qdq-outputs", "nncf"])
def test_a_qdq_file_is_emulated_as_onnx_runtime_does(recipe, torch, tmp_path):
    if recipe == "nncf":
        pytest.importorskip("nncf")
    given, batch = artifact(tmp_path, Precision.INT8, recipe), images(40)
    with build(given) as engine, build(given, "ort-emulation") as emulation:
        # A value on the edge of two numbers may fall to either side.
        assert np.abs(engine.infer(batch) - emulation.infer(batch)).max() < 2e-2
        assert (engine.infer(batch).argmax(1) == emulation.infer(batch).argmax(1)).all()
        assert {layer.precision for layer in counted_layers(engine.layers())} == {"fp32"}


FLOATS = [
    (Precision.FP32, "none", {"fp32"}),
    (Precision.FP16, "cast", {"fp16"}),
    (Precision.BF16, "cast", {"bf16", "fp32"}),  # up to the last product
    (Precision.BF16, "runtime", {"bf16"}),
]


@pytest.mark.parametrize(("precision", "recipe", "ran"), FLOATS)
def test_what_a_node_made_is_read_back(precision, recipe, ran, torch, tmp_path):
    with build(artifact(tmp_path, precision, recipe)) as engine:
        layers = counted_layers(engine.layers())
        assert {layer.precision for layer in layers} <= ran
        assert precision.value in {layer.precision for layer in layers}
        assert all(layer.time_ns > 0 for layer in layers)
        assert engine.infer(images(3)).dtype == np.float32


def test_bounds_in_bf16_are_read(torch, tmp_path):
    path = net(tmp_path / "net.onnx", CHAINS["relu 6"])
    given = prepare_artifact(spec_of(path), Precision.BF16, "cast", calibration=None, cache_dir=str(tmp_path / "cache"))
    with build(given) as engine, build(artifact_of(path)) as exact:
        assert np.abs(engine.infer(images(8)) - exact.infer(images(8))).max() < 0.5


def test_a_frozen_script_gives_the_same(torch, tmp_path):
    given, batch = artifact(tmp_path, Precision.FP32, "none"), images(7)
    with build(given) as eager, build(given, mode="script") as script:
        np.testing.assert_allclose(script.infer(batch), eager.infer(batch), atol=1e-6)
        assert (eager.facts.options["mode"], script.facts.options["mode"]) == ("eager", "script")
        assert script.facts.options["num_threads"] == "1"


def test_a_compiled_mode_without_a_compiler_is_one_line(torch, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BuildError, match=r"tiny-torch-fp32: mode aoti needs a C\+\+ compiler"):
        build(artifact(tmp_path, Precision.FP32, "none"), mode="aoti")


def test_autocast_is_for_eager_mode(torch, tmp_path):
    with pytest.raises(Unsupported, match="recipe runtime is autocast, which needs mode eager"):
        build(artifact(tmp_path, Precision.BF16, "runtime"), mode="script")


def test_weights_alone_are_computed_once(torch, tmp_path):
    module = module_of(torch, load_model(artifact(tmp_path, Precision.INT8, "qdq-minmax").onnx_path))
    seen = []
    module.observe = lambda name, kind, made: seen.append(kind)
    with torch.inference_mode():
        module(torch.from_numpy(images(1)))
    assert seen.count("QuantizeLinear") == seen.count("DequantizeLinear") == 2  # of the inputs of both products


def test_memory_that_may_not_be_written_is_read(torch, tmp_path):
    batch = images(3)
    batch.flags.writeable = False
    with build(artifact_of(onnx_nets.tiny_net(tmp_path / "tiny.onnx"))) as engine:
        assert engine.infer(batch).shape == (3, 10)
