"""OpenVINO: devices typed as text, options of its plug-ins, operators that a device lacks."""

import numpy as np
import onnx_nets
import pytest
from graph_nets import graph_spec, write_net
from onnx_nets import artifact_of, images

from harness.backends import load_backend
from harness.backends.openvino.compiled import is_cpu_alone, lacking_operators
from harness.errors import BuildError, ConfigError, Unsupported
from harness.options.values import HarnessOptions
from harness.protocols import TakesDevices
from harness.run.plan import Plan, device_of
from harness.run.settings import Environments
from harness.specs import BuildOptions, Case, Precision

TAKEN = ("cpu", "npu", "gpu", "gpu.1", "hetero:gpu,cpu", "hetero:gpu.0,cpu", "auto:cpu", "multi:cpu", "batch:cpu")


@pytest.fixture
def backend():
    pytest.importorskip("openvino")
    return load_backend("openvino")


@pytest.fixture
def tiny(tmp_path):
    return artifact_of(onnx_nets.tiny_net(tmp_path / "tiny.onnx"))


def build(backend, artifact, device="cpu", **settings):
    options = BuildOptions(settings={"openvino": settings} if settings else {})
    return backend.build(artifact, device=device, batch_sizes=(1, 4), options=options)


def case(device):
    return Case(model="tiny", backend="openvino", precision=Precision.FP32, recipe="none", device=device)


@pytest.mark.parametrize("device", TAKEN)
def test_a_device_of_its_own_is_taken(backend, device):
    assert isinstance(backend, TakesDevices)
    assert backend.takes_device(device)
    assert backend.supports(case(device)).supported


@pytest.mark.parametrize("device", ["cuda:0", "hetero", "hetero:", "hetero:gpu,", "tpu", "CPU", "auto:cpu;rm"])
def test_another_text_is_no_device(backend, device):
    assert not backend.takes_device(device)
    assert not backend.supports(case(device)).supported


@pytest.mark.parametrize("device", ["hetero:cpu", "auto:cpu", "multi:cpu", "batch:cpu"])
def test_virtual_devices_give_what_the_cpu_gives(backend, tiny, device):
    batch = images(7)
    with build(backend, tiny) as engine, build(backend, tiny, device) as other:
        np.testing.assert_allclose(other.infer(batch), engine.infer(batch), atol=1e-5)
        assert other.facts.options["device"] == device.upper()
        assert other.facts.options["EXECUTION_DEVICES"] == "CPU"
        assert other.timer(images(1), window="compute", launch="auto").sample(2).min() > 0


def test_a_device_that_is_not_here_is_one_line(backend, tiny):
    for device in ("hetero:tpu,cpu", "gpu.7"):
        with pytest.raises(BuildError) as caught:
            build(backend, tiny, device)
        assert "\n" not in str(caught.value)


def test_streams_hint_and_pinning_reach_the_plug_in(backend, tiny):
    with build(backend, tiny, hint="throughput", streams=2, pinning="off") as engine:
        options = engine.facts.options
        assert options["PERFORMANCE_HINT"] == "THROUGHPUT"
        assert options["ENABLE_CPU_PINNING"] == "False"
        assert int(options["NUM_STREAMS"]) in (1, 2)  # no more than there are threads for
        assert engine.infer(images(2)).shape == (2, 10)
    with pytest.raises(ConfigError, match="--openvino-streams=0: expected 1 or more"):
        HarnessOptions(settings={"openvino": {"streams": 0}})


def test_only_the_cpu_is_told_of_threads():
    assert all(map(is_cpu_alone, ("CPU", "HETERO:CPU", "AUTO:CPU")))
    assert not any(map(is_cpu_alone, ("GPU", "HETERO:GPU,CPU", "AUTO:NPU")))


class Partial:
    """A core whose device runs all but pools."""

    def __init__(self, core):
        self._core = core
        self.read_model = core.read_model

    def query_model(self, model, device):
        return {name: device for name in self._core.query_model(model, "CPU") if "Pool" not in name}


def test_operators_that_a_device_lacks_are_listed_before_anything_is_built(backend, tiny, monkeypatch):
    import openvino

    core = openvino.Core()
    assert lacking_operators(core, tiny.onnx_path, "CPU") == ()
    assert lacking_operators(core, tiny.onnx_path, "TPU") == ()  # met by compiling
    monkeypatch.setattr(openvino, "Core", lambda: Partial(core))
    with pytest.raises(Unsupported, match=r"^tiny: OpenVINO's GPU lacks /pool/MaxPool \(MaxPool\)$"):
        build(backend, tiny, "gpu")


def test_a_run_takes_what_the_backend_takes(backend):
    found = backend.probe()
    assert device_of(HarnessOptions(device="hetero:cpu"), found) == "hetero:cpu"
    with pytest.raises(ConfigError, match="--device=cuda:0: openvino supports only cpu here"):
        device_of(HarnessOptions(device="cuda:0"), found)


def test_such_a_device_is_a_type_of_its_own(backend, tmp_path):
    plan = Plan(cases=(), models={}, backends=(backend.probe(),), left_out={})
    environments = Environments(plan, tmp_path)
    types = {device: environments.of("openvino", device).device_type for device in ("cpu", "hetero:gpu,cpu", "gpu")}
    assert len(set(types.values())) == 3
    assert types["hetero:gpu,cpu"].startswith("HETERO:GPU,CPU on ")
    assert case("hetero:gpu,cpu").id == "tiny-openvino-fp32-heterogpucpu"


PASSED_ON = """
<ir_version: 8, opset_import: ["" : 13]>
g (float[n, 3] w, float[n, 3] x) => (float[n, 3] sum, float[n, 3] y)
{
  sum = Add (x, w)
  y = Dropout (x)
}
"""


def test_an_output_that_is_an_input_is_not_taken_for_it(backend, tmp_path):
    """OpenVINO calls the input of a Dropout as its output is called, and no longer by the input's own name."""
    path = write_net(tmp_path, "passed", PASSED_ON)
    tensors = graph_spec(path).tensors
    feeds = {"w": np.full((2, 3), 5, np.float32), "x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    options = BuildOptions(tensors=tensors)
    with backend.build(artifact_of(path), device="cpu", batch_sizes=(2,), options=options) as engine:
        assert [tensor.name for tensor in engine.inputs] == ["w", "x"]
        outputs = engine.run(feeds)
        np.testing.assert_array_equal(outputs["y"], feeds["x"])
        np.testing.assert_array_equal(outputs["sum"], feeds["x"] + 5)
        timer = engine.bind(feeds, batch_size=2, window="end_to_end", launch="auto")
        timer.sample(1)
        np.testing.assert_array_equal(timer.outputs()["sum"], feeds["x"] + 5)
        assert engine.layers()


# Two MatMuls of quantized values without a bias between them.
MATMULS = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[n, 8] x) => (float[n, 3] y)
<float s = {0.3}, uint8 z = {128}, float t = {0.3}, uint8 o = {128}, float u = {0.02}, int8 c = {0}>
{
  first = Constant <value = int8[8, 16] {%s}> ()
  second = Constant <value = int8[16, 3] {%s}> ()
  q = QuantizeLinear (x, s, z)
  d = DequantizeLinear (q, s, z)
  v = DequantizeLinear (first, u, c)
  m = MatMul (d, v)
  r = QuantizeLinear (m, t, o)
  e = DequantizeLinear (r, t, o)
  w = DequantizeLinear (second, u, c)
  y = MatMul (e, w)
}
"""


def test_matmuls_of_8_bits_are_right_where_they_are_not_fused(backend, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    generator = np.random.default_rng(0)
    numbers = (", ".join(map(str, generator.integers(-127, 128, size).tolist())) for size in (128, 48))
    path = write_net(tmp_path, "matmuls", MATMULS % tuple(numbers))
    feeds = {"x": generator.normal(0, 10, (4, 8)).astype(np.float32)}
    expected = ort.InferenceSession(str(path)).run(None, feeds)[0]
    options = BuildOptions(tensors=graph_spec(path).tensors, settings={"openvino": {"snippets": "off"}})
    with backend.build(artifact_of(path), device="cpu", batch_sizes=(4,), options=options) as engine:
        assert engine.facts.options["SNIPPETS_MODE"] == "DISABLE"
        np.testing.assert_allclose(engine.run(feeds)["y"], expected, rtol=1e-4, atol=1e-4)
