"""PyTorch: ONNX graphs as modules, the ways to run them, and what is read back."""

import importlib
import inspect
import shutil

import numpy as np
import onnx
import onnx_nets
import pytest
from onnx_chains import CHAINS, STEM, net, node
from onnx_nets import ArraySet, artifact_of, images, spec_of

from harness.backends import load_backend
from harness.backends.torch.aoti import exported_module, set_tf32
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


@pytest.mark.parametrize("name", CHAINS)
def test_a_module_computes_on_the_device_that_it_is_moved_to(name, torch, tmp_path):
    """A tensor left on the host would be refused beside one of no device."""
    path = net(tmp_path / "net.onnx", CHAINS[name])
    with torch.inference_mode():
        made = module_of(torch, load_model(path)).to("meta")(torch.from_numpy(images(5)).to("meta"))
    assert (made.device.type, len(made)) == ("meta", 5)


def test_quantization_can_be_exported_for_the_compiled_modes(torch, tmp_path):
    module, batch = module_of(torch, load_model(artifact(tmp_path, Precision.INT8, "qdq-minmax").onnx_path)), images(40)
    with torch.inference_mode():
        exported = exported_module(torch, module, 64, batch.shape[1:], "cpu").module()
        eager, found = (call(torch.from_numpy(batch)).numpy() for call in (module, exported))
    assert np.abs(found - eager).max() < 2e-2  # a value on the edge of two numbers may fall to either side
    assert (found.argmax(1) == eager.argmax(1)).all()


@pytest.mark.parametrize("zeros", [True, False])
def test_an_activation_may_be_quantized_a_channel_at_a_time(zeros, torch, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    path = net(tmp_path / "net.onnx", [STEM])
    model = load_model(path)
    made = model.graph.node[0].output[0]
    (channels,) = (tensor.dims[0] for tensor in model.graph.initializer if tensor.name == "stem.w")
    scales = np.linspace(0.01, 0.3, channels).astype(np.float32)
    given = [("scales", scales), ("zeros", np.full(channels, 100, np.uint8))][: 1 + zeros]
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in given)
    names = [name for name, _ in given]
    pair = [
        onnx.helper.make_node("QuantizeLinear", [made, *names], ["q"], axis=1),
        onnx.helper.make_node("DequantizeLinear", ["q", *names], ["rounded"], axis=1),
    ]
    for follower in model.graph.node[1:]:
        follower.input[:] = ["rounded" if name == made else name for name in follower.input]
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([nodes[0], *pair, *nodes[1:]])
    batch = images(3)
    expected = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"image": batch}
    )[0]
    with torch.inference_mode():
        np.testing.assert_allclose(module_of(torch, model)(torch.from_numpy(batch)).numpy(), expected, atol=1e-3)


def test_what_torch_cuda_asks_of_pytorch_is_there(torch):
    def parameters(function):
        return set(inspect.signature(function).parameters)

    inductor = importlib.import_module("torch._inductor")
    assert {"run_single_threaded", "device_index"} <= parameters(inductor.aoti_load_package)
    assert {"stream_ptr", "device"} <= parameters(torch.cuda.ExternalStream.__new__)
    assert parameters(torch.cuda.use_mem_pool) == {"pool", "device"}
    assert callable(torch.cuda.MemPool)
    parts = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [part.allow_tf32 for part in parts]
    try:
        for is_on in (True, False):
            set_tf32(torch, is_on)
            assert {part.allow_tf32 for part in parts} == {is_on}
            words = {parts[0].fp32_precision, parts[1].conv.fp32_precision}  # what its kernels go by
            assert ("tf32" in words) == is_on
    finally:
        for part, was_on in zip(parts, before, strict=True):
            part.allow_tf32 = was_on


def test_every_operator_is_among_them():
    assert set(OPERATORS) - {kind for steps in CHAINS.values() for kind, _, _ in steps} == {*QDQ, "Cast"}


def test_operators_that_are_missing_are_listed_by_name(tmp_path):
    path = net(tmp_path / "net.onnx", [node("Erf"), node("Relu"), node("Erf"), node("Softplus")])
    with pytest.raises(Unsupported, match=r"^case: .* has no operator Erf \(2\), Softplus \(1\)$"):
        check_operators(load_model(path), "case")


REFUSED = {
    "padding SAME_UPPER": [node("Conv", "stem.w", "stem.b", auto_pad="SAME_UPPER")],
    "uneven padding": [STEM, node("AveragePool", kernel_shape=[2, 2], pads=[0, 0, 1, 1])],
    "of all axes of size 1": [STEM, node("GlobalAveragePool"), node("Squeeze")],
    "in mode reflect": [STEM, node("Pad", "border", mode="reflect")],
    "with sizes of 0": [STEM, node("Reshape", "rows of the batch", allowzero=1)],
    "over 2 channels": [STEM, node("LRN", size=2)],
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
