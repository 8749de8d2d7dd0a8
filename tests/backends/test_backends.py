"""ONNX Runtime and OpenVINO adapters: what is theirs alone; the rest is in tests/contract."""

import re
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnx_nets
import pytest
from onnx_nets import ArraySet, artifact_of, images, spec_of

from harness.backends import load_backend
from harness.backends._inputs import check_images, check_output_shape
from harness.backends.openvino.layers import layer_from_rt_info
from harness.backends.ort.profile import layers_from_profile
from harness.backends.ort.runtime import BF16_PROBES, bf16_refusal, session_error
from harness.errors import BackendUnavailable, BuildError, ConfigError, MeasurementError, Unsupported
from harness.models.onnx_graph import NodeIndex, index_nodes
from harness.precision import prepare_artifact
from harness.precision.effective import effective_precision
from harness.records import TensorSpec
from harness.specs import BuildOptions, Case, Precision

RUNTIMES = {"ort": "onnxruntime", "openvino": "openvino"}


@pytest.fixture(params=RUNTIMES)
def backend(request):
    pytest.importorskip(RUNTIMES[request.param])
    return load_backend(request.param)


@pytest.fixture
def build(backend):
    engines = []

    def run(artifact, *, sizes=(1, 4), threads=1):
        options = BuildOptions(num_threads=threads)
        engines.append(backend.build(artifact, device="cpu", batch_sizes=sizes, options=options))
        return engines[-1]

    yield run
    for engine in engines:
        engine.close()


@pytest.fixture
def tiny(tmp_path):
    return onnx_nets.tiny_net(tmp_path / "tiny.onnx")


def quantized(path, tmp_path, recipe="qdq-outputs", **options):
    return prepare_artifact(
        spec_of(path),
        Precision.INT8,
        recipe,
        calibration=ArraySet(images(200)),
        cache_dir=str(tmp_path / "cache"),
        **options,
    )


def case(backend, **changes):
    known = {"model": "tiny", "backend": backend.name, "precision": Precision.INT8, "recipe": "qdq-minmax"}
    return Case(**{**known, **changes})


def test_a_missing_runtime_is_named(backend, monkeypatch, tiny):
    module = RUNTIMES[backend.name]
    monkeypatch.setitem(sys.modules, module, None)
    found = backend.probe()
    assert (found.usable, found.reason) == (False, f"{module} is not installed")
    assert found.install_hint == "pip install 'nn-engine-harness[cpu]'"
    with pytest.raises(BackendUnavailable, match=f"{module} is not installed; pip install"):
        backend.build(artifact_of(tiny), device="cpu", batch_sizes=(1,), options=BuildOptions())


def test_a_broken_runtime_says_why(backend, monkeypatch):
    def fail(name):
        raise ImportError("libfoo.so.1: cannot open shared object file\nmore")

    monkeypatch.setattr(f"harness.backends.{backend.name}.adapter.importlib.import_module", fail)
    assert backend.probe().reason.endswith("cannot be imported: libfoo.so.1: cannot open shared object file")


@pytest.mark.parametrize(("isa", "bits"), [("avx2", 7), ("avx512", 7), ("avx512_vnni", 8), ("amx", 8), ("neon_dot", 8)])
def test_weights_have_7_bits_where_kernels_saturate(backend, monkeypatch, isa, bits):
    monkeypatch.setattr("harness.backends._cpu.int8_isa", lambda: isa)
    support = backend.supports(case(backend))
    assert (support.supported, support.int8_weight_bits) == (True, bits)


def test_what_another_runtime_quantizes_is_unsupported(backend):
    support = backend.supports(case(backend, recipe="trt-entropy2"))
    assert not support.supported
    assert "trt-entropy2 quantizes inside another runtime" in support.reason
    assert not backend.supports(case(backend, device="cuda:0")).supported


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_read_back(backend, build, tiny, threads):
    options = build(artifact_of(tiny), threads=threads).facts.options
    if backend.name == "ort":
        assert options["intra_op_num_threads"] == str(threads)
        assert options["inter_op_num_threads"] == "1"
        assert options["session.intra_op.allow_spinning"] == "0"
        assert options["provider"] == "CPUExecutionProvider"
    else:
        assert int(options["INFERENCE_NUM_THREADS"]) <= threads
        assert options["NUM_STREAMS"] == "1"
        assert options["PERFORMANCE_HINT"] == "LATENCY"
        assert options["INFERENCE_PRECISION_HINT"] == "f32"


def test_a_fixed_batch_is_kept(build, tmp_path):
    engine = build(artifact_of(onnx_nets.tiny_net(tmp_path / "fixed.onnx", batch=3)), sizes=(1, 4))
    assert engine.input.shape == (3, 1, 8, 8)
    assert engine.infer(images(3)).shape == (3, 10)
    assert engine.layers()
    with pytest.raises(MeasurementError, match=r"has shape \[4, 1, 8, 8\]; expected \[3, 1, 8, 8\]"):
        engine.infer(images(4))


def test_an_operator_it_lacks_is_one_line(build, tmp_path):
    nodes = [onnx.helper.make_node("Frobnicate", ["image"], ["probabilities"], domain="acme")]
    path = onnx_nets.save_net(tmp_path / "odd.onnx", nodes, {})
    model = onnx.load(path)
    model.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    onnx.save(model, str(path))
    with pytest.raises(BuildError, match=r"Frobnicate") as caught:
        build(artifact_of(path))
    assert "\n" not in str(caught.value)
    assert "odd.onnx" in str(caught.value)


def test_another_input_type_is_refused(build, tmp_path):
    nodes = [
        onnx.helper.make_node("Cast", ["image"], ["x"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Flatten", ["x"], ["probabilities"]),
    ]
    path = onnx_nets.save_net(tmp_path / "bytes.onnx", nodes, {}, outputs=(("probabilities", ("N", 64)),))
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    onnx.save(model, str(path))
    with pytest.raises(BuildError, match=r"image is .*; expected"):
        build(artifact_of(path))


def test_an_output_that_is_no_table_is_refused(build, tmp_path):
    nodes = [onnx.helper.make_node("Relu", ["image"], ["probabilities"])]
    path = onnx_nets.save_net(tmp_path / "image.onnx", nodes, {}, outputs=(("probabilities", ("N", 1, 8, 8)),))
    with pytest.raises(MeasurementError, match=r"output has shape \[2, 1, 8, 8\] for 2 images"):
        build(artifact_of(path)).infer(images(2))


def test_another_device_is_refused(backend, tiny):
    with pytest.raises(BuildError, match="runs on cpu"):
        backend.build(artifact_of(tiny), device="cuda:0", batch_sizes=(1,), options=BuildOptions())


def test_another_launch_is_refused(build, tiny):
    with pytest.raises(ConfigError, match="launch 'graph'"):
        build(artifact_of(tiny)).timer(images(1), window="compute", launch="graph")


def test_a_timed_run_must_give_the_scored_outputs(build, tiny):
    engine = build(artifact_of(tiny))
    infer = engine.infer
    engine.infer = lambda batch: infer(batch) + np.float32(0.5)
    with pytest.raises(MeasurementError, match="not timed"):
        engine.timer(images(4), window="compute", launch="auto")


def test_a_batch_that_was_not_built_can_be_timed(build, tiny):
    assert build(artifact_of(tiny), sizes=(2,)).timer(images(5), window="compute", launch="auto").batch_size == 5


def test_fp16_says_what_it_ran_in(backend, build, tiny, tmp_path):
    artifact = prepare_artifact(spec_of(tiny), Precision.FP16, "cast", calibration=None, cache_dir=str(tmp_path))
    engine = build(artifact)
    found = effective_precision(engine.layers(), Precision.FP16)
    assert set(found.by_layer) <= {"fp16", "bf16", "fp32"}
    if found.by_layer.get("fp32") == 1.0:
        assert "requested fp16; of the compute layers ran 100% in fp32" in found.note
        if backend.name == "openvino":
            assert "asked INFERENCE_PRECISION_HINT=f16, reads back f32" in " ".join(engine.facts.notes)
    np.testing.assert_allclose(engine.infer(images(4)), build(artifact_of(tiny)).infer(images(4)), atol=5e-3, rtol=0)


def test_bf16_says_what_it_ran_in(tiny, tmp_path):
    """OpenVINO has kernels for BF16 from AVX-512 on; elsewhere the hint reads back f32."""
    pytest.importorskip("openvino")
    engines, outputs = [], []
    for precision, recipe in ((Precision.FP32, "none"), (Precision.BF16, "cast"), (Precision.BF16, "runtime")):
        artifact = prepare_artifact(spec_of(tiny), precision, recipe, calibration=None, cache_dir=str(tmp_path))
        with load_backend("openvino").build(artifact, device="cpu", batch_sizes=(4,), options=BuildOptions()) as engine:
            outputs.append(engine.infer(images(4)))
            engines.append((engine.facts, engine.layers()))
    for recipe, (facts, layers) in zip(("cast", "runtime"), engines[1:], strict=True):
        found = effective_precision(layers, Precision.BF16, has_cast_weights=recipe == "cast")
        hint = facts.options["INFERENCE_PRECISION_HINT"]
        assert found.by_layer == {{"bf16": "bf16", "f32": "fp32"}[hint]: 1.0}
        if hint == "f32":
            assert "asked INFERENCE_PRECISION_HINT=bf16, reads back f32" in " ".join(facts.notes)
            assert ("rounded to bf16" in found.note) == (recipe == "cast")
        else:
            assert "Subgraph" not in found.note  # a cast moves data, it does not compute
    np.testing.assert_allclose(outputs[1], outputs[0], atol=0.04, rtol=0)
    np.testing.assert_allclose(outputs[2], outputs[0], atol=0.04, rtol=0)


def test_onnxruntime_says_that_it_has_no_bf16(tiny, tmp_path):
    pytest.importorskip("onnxruntime")
    ort = load_backend("ort")
    for recipe, reason in (("cast", "has no BF16 Conv, Gemm, MatMul on its CPU"), ("runtime", "leaves them FP32")):
        support = ort.supports(case(ort, precision=Precision.BF16, recipe=recipe))
        assert not support.supported
        assert reason in support.reason
    artifact = prepare_artifact(spec_of(tiny), Precision.BF16, "cast", calibration=None, cache_dir=str(tmp_path))
    with pytest.raises(
        Unsupported, match=r"ONNX Runtime [\d.]+ has no BF16 Conv on its CPUExecutionProvider \(/conv/Conv\)"
    ):
        ort.build(artifact, device="cpu", batch_sizes=(1,), options=BuildOptions())


CUDA_ANSWER = (
    "[ONNXRuntimeError] : 1 : FAIL : Exception during initialization: transformer_memcpy.cc:253 void "
    "onnxruntime::TransformerMemcpyImpl::ProcessDefs(onnxruntime::Node&)\nProvider type for {} is not set."
)


@pytest.mark.parametrize(
    ("precision", "answer", "kind", "message"),
    [
        (
            "bf16",
            CUDA_ANSWER.format("MaxPool node with name '/1/MaxPool'"),
            Unsupported,
            r"no BF16 MaxPool on its X \(/1/M",
        ),
        (
            "bf16",
            "Could not find an implementation for Gemm(13) node with name ''",
            Unsupported,
            "no BF16 Gemm on its X$",
        ),
        (
            "fp16",
            CUDA_ANSWER.format("MaxPool node with name '/1/MaxPool'"),
            BuildError,
            "cannot build .*transformer_memcpy",
        ),
        ("bf16", "[ONNXRuntimeError] : 6 : Failed to allocate memory", BuildError, "cannot build .*allocate memory"),
    ],
)
def test_only_a_missing_bf16_kernel_is_unsupported(tiny, precision, answer, kind, message):
    pytest.importorskip("onnxruntime")
    artifact = replace(artifact_of(tiny), precision=Precision(precision))
    found = session_error(artifact, "net", "X", RuntimeError(answer))
    assert type(found) is kind
    assert re.search(message, str(found))


def test_the_bf16_probe_can_find_kernels(monkeypatch):
    """The same question with FP32 in it is answered with yes."""
    pytest.importorskip("onnxruntime")
    fp32 = {kind: text.replace("bfloat16", "float") for kind, text in BF16_PROBES.items()}
    monkeypatch.setattr("harness.backends.ort.runtime.BF16_PROBES", fp32)
    assert bf16_refusal("cast", "CPUExecutionProvider") == ""


def test_int8_runs_in_int8_and_agrees_with_its_emulation(build, tiny, tmp_path):
    artifact = quantized(tiny, tmp_path, weight_bits=7)
    engine = build(artifact)
    found = effective_precision(engine.layers(), Precision.INT8)
    assert found.by_layer == {"int8": 1.0}
    emulation = load_backend("ort-emulation")
    with emulation.build(artifact, device="cpu", batch_sizes=(4,), options=BuildOptions()) as reference:
        assert effective_precision(reference.layers(), Precision.INT8).by_layer == {"fp32": 1.0}
        # Two requantization steps of the logits' scale, through a softmax.
        np.testing.assert_allclose(engine.infer(images(50)), reference.infer(images(50)), atol=0.05, rtol=0)


@pytest.mark.parametrize("scale", [0.05, 0.003])
def test_the_emulation_rounds_and_clips(tmp_path, scale):
    emulation = load_backend("ort-emulation")
    artifact = artifact_of(onnx_nets.qdq_net(tmp_path / "qdq.onnx", scale=scale))
    batch = images(20)
    expected = np.clip(np.rint(batch / np.float32(scale)), -128, 127) * np.float32(scale)
    with emulation.build(artifact, device="cpu", batch_sizes=(20,), options=BuildOptions()) as engine:
        assert engine.facts.options["session.disable_quant_qdq"] == "1"
        np.testing.assert_allclose(engine.infer(batch), expected.reshape(20, -1), rtol=1e-6)


def test_layers_have_times_and_nodes(build, tiny):
    layers = {
        node: layer for layer in build(artifact_of(tiny)).layers() for node in layer.onnx_nodes if layer.is_compute
    }
    for node in ("/conv/Conv", "/fc/Gemm"):
        assert layers[node].time_ns >= 0
        assert layers[node].precision == "fp32"
        assert layers[node].kernel


def test_a_fused_kernel_is_traced_to_its_convolution(tiny):
    """ONNX Runtime names the fusion of a convolution and a Relu by the Relu's output."""
    nodes = index_nodes(onnx.load(tiny))
    layers = layers_from_profile([event("r_nchwc", "Conv", "float", 1)], n_runs=1, nodes=nodes, outputs={})
    assert layers[0].onnx_nodes == ("/conv/Conv", "/relu/Relu")
    layers = layers_from_profile([event("/pool/MaxPool", "MaxPool", "float", 1)], n_runs=1, nodes=nodes, outputs={})
    assert layers[0].onnx_nodes == ("/pool/MaxPool",)


def index(**kinds):
    return NodeIndex(names={name: name for name in kinds}, kinds=kinds, previous={})


def event(name, op, kind, duration_us):
    return {
        "cat": "Node",
        "name": f"{name}_kernel_time",
        "dur": duration_us,
        "args": {"op_name": op, "provider": "CPUExecutionProvider", "input_type_shape": [{kind: [1, 4]}]},
    }


def test_profiles_of_onnxruntime():
    """The first run warms up; names lead back by themselves or by the tensors of the optimized node."""
    slow = [event("q", "QuantizeLinear", "float", 900), event("conv_quant", "QLinearConv", "uint8", 900)]
    runs = [
        [event("q", "QuantizeLinear", "float", t), event("conv_quant", "QLinearConv", "uint8", 10 * t)] for t in (1, 3)
    ]
    noise = [{"cat": "Session", "name": "model_run", "dur": 1}, {"cat": "Node", "name": "q_fence_before", "dur": 1}]
    layers = layers_from_profile(
        [*slow, *noise, *runs[0], *runs[1]],
        n_runs=3,
        nodes=NodeIndex(
            names={"conv": "conv", "x": "input_q"},
            kinds={"conv": "Conv", "input_q": "QuantizeLinear"},
            previous={"conv": "input_q"},
        ),
        outputs={"q": ("x",)},
    )
    assert [(x.name, x.kind, x.precision, x.is_compute) for x in layers] == [
        ("q", "QuantizeLinear", "fp32", False),
        ("conv_quant", "QLinearConv", "int8", True),
    ]
    assert [x.time_ns for x in layers] == [2_000.0, 20_000.0]
    assert [x.onnx_nodes for x in layers] == [("input_q",), ("conv",)]


@pytest.mark.parametrize("events", [[], [event("a", "Conv", "float", 1)] * 3])
def test_a_profile_that_does_not_add_up_is_refused(events):
    with pytest.raises(MeasurementError, match="kernel times"):
        layers_from_profile(events, n_runs=2, nodes=index(), outputs={})


@pytest.mark.parametrize(
    ("primitive", "precision"),
    [
        ("brgconv_avx2_f32", "fp32"),
        ("brgconv_avx512_core_amx_bf16", "bf16"),
        ("brgconv_avx512_core_amx_f16", "fp16"),
        ("brgconv_avx512_I8", "int8"),
        ("jit_gemm_i8", "int8"),
        ("brgemm_avx512_u8", "int8"),
        ("something_new", ""),
    ],
)
def test_the_suffix_of_a_primitive_is_its_arithmetic(primitive, precision):
    """Even where runtimePrecision says f16, the type of compressed weights."""
    info = {
        "layerType": "Convolution",
        "primitiveType": primitive,
        "runtimePrecision": "f16",
        "originalLayersNames": "/conv/Conv/WithoutBiases,Multiply_22,/conv/Conv,c_q",
    }
    nodes = index(**{"/conv/Conv": "Conv", "c_q": "QuantizeLinear"})
    layer = layer_from_rt_info("conv", info, nodes, {"conv": 5.0})
    assert (layer.precision, layer.kernel, layer.is_compute, layer.time_ns) == (precision, primitive, True, 5.0)
    assert layer.onnx_nodes == ("/conv/Conv", "c_q")


@pytest.mark.parametrize("kind", ["FullyConnected", "Convolution", "MatMul"])
def test_a_product_that_bears_the_name_of_the_last_cast_is_a_product(kind):
    nodes = index(**{"y_cast": "Cast"})
    info = {"layerType": kind, "primitiveType": "brgemm_avx512_bf16", "originalLayersNames": "y_cast"}
    layer = layer_from_rt_info("y_cast", info, nodes, {})
    assert (layer.is_compute, layer.precision) == (True, "bf16")
    assert not layer_from_rt_info("y_cast", {**info, "layerType": "Subgraph"}, nodes, {}).is_compute


def test_quantizing_and_moving_layers_compute_nothing():
    nodes = index(**{"x_q": "QuantizeLinear", "/flatten": "Flatten"})

    def layer(kind, original):
        info = {"layerType": kind, "primitiveType": "jit_avx2_f32", "originalLayersNames": original}
        return layer_from_rt_info("n", info, nodes, {})

    assert layer("Const", "") is None
    assert not layer("Subgraph", "x_q").is_compute
    assert not layer("Reshape", "/flatten").is_compute
    assert layer("Subgraph", "/flatten").is_compute
    assert layer("Pooling", "").time_ns is None


def test_inputs_that_overflow_a_sum_are_finite():
    tensor = TensorSpec(name="x", dtype="float32", shape=(None, 4))
    check_images(np.full((3, 4), 3e38, np.float32), tensor, "e")
    bad = np.full((3, 4), 3e38, np.float32)
    bad[1, 2] = -np.inf
    with pytest.raises(MeasurementError, match="e: image 1 of the batch holds NaN or Inf"):
        check_images(bad, tensor, "e")
    with pytest.raises(MeasurementError, match="input x is list"):
        check_images([[1.0]], tensor, "e")
    with pytest.raises(MeasurementError, match=r"output has shape \[2, 3\] for 3 images"):
        check_output_shape((2, 3), 3, "e")
