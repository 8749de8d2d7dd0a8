"""The BF16 files: what is cast, what stays FP32, how numbers are rounded, what is refused."""

import numpy as np
import onnx
import onnx_nets
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_nets import images, save_net, spec_of

from harness.errors import BuildError
from harness.models.onnx_graph import load_model
from harness.precision import prepare_artifact, recipe_names
from harness.precision.recipe import ConversionRequest
from harness.precision.recipes.bf16 import BF16_MAX, bf16_from_float32, convert
from harness.specs import Case, Precision

FLOAT, BF16 = TensorProto.FLOAT, TensorProto.BFLOAT16


@pytest.fixture
def cast(tmp_path):
    """Write the BF16 file of a net and return its artifact, model and types by tensor."""

    def run(path):
        artifact = prepare_artifact(
            spec_of(path), Precision.BF16, "cast", calibration=None, cache_dir=str(tmp_path / "cache")
        )
        model = onnx.shape_inference.infer_shapes(onnx.load(artifact.onnx_path), strict_mode=True)
        graph = model.graph
        types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
        return artifact, model, {**types, **{t.name: t.data_type for t in graph.initializer}}

    return run


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs, [output], name=f"/{output}", **attributes)


def net(path, middle, weights=None, **options):
    """Write a net: a product, what is asked about, a product. `middle` reads "a" and writes "z"."""
    weights = {"w1": np.eye(64, dtype=np.float32), "w2": np.ones((64, 10), np.float32), **(weights or {})}
    nodes = [
        node("Flatten", ["image"], "f"),
        node("MatMul", ["f", "w1"], "a"),
        *middle,
        node("MatMul", ["z", "w2"], "probabilities"),
    ]
    return save_net(path, nodes, weights, **options)


def kinds(model):
    return [n.op_type for n in model.graph.node]


def test_recipes_and_case_ids():
    assert recipe_names(Precision.BF16) == ("cast", "runtime", "given")
    case = {"model": "m", "backend": "openvino", "precision": Precision.BF16}
    assert Case(**case, recipe="cast").id == "m-openvino-bf16"
    assert Case(**case, recipe="runtime").id == "m-openvino-bf16-runtime"


def test_the_runtime_recipe_keeps_the_file(tmp_path):
    spec = spec_of(onnx_nets.tiny_net(tmp_path / "tiny.onnx"))
    artifact = prepare_artifact(spec, Precision.BF16, "runtime", calibration=None, cache_dir=str(tmp_path))
    assert (artifact.onnx_path, artifact.sha256, artifact.is_qdq) == (spec.onnx_path, spec.sha256, False)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_all_up_to_the_last_product_is_bf16(tmp_path, cast, batch_norm):
    artifact, model, types = cast(onnx_nets.tiny_net(tmp_path / "tiny.onnx", batch_norm=batch_norm))
    names = ["Cast", "Conv", *(["BatchNormalization"] if batch_norm else []), "Relu", "MaxPool", "Flatten", "Gemm"]
    assert kinds(model) == [*names, "Cast", "Softmax"]
    assert types["image"] == types["probabilities"] == FLOAT
    assert {types[name] for n in model.graph.node[1:-2] for name in (*n.input, *n.output)} == {BF16}
    assert types[model.graph.node[-1].input[0]] == FLOAT
    assert [n.name for n in model.graph.node if n.op_type in ("Conv", "Gemm")] == ["/conv/Conv", "/fc/Gemm"]
    assert (model.opset_import[0].version, model.ir_version) == (22, 10)
    assert (artifact.weight_bits, artifact.warnings) == (16, ())


def test_weights_are_rounded_to_the_nearest(tmp_path, cast):
    path = onnx_nets.tiny_net(tmp_path / "tiny.onnx")
    _, model, _ = cast(path)
    before = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    for tensor in model.graph.initializer:
        bits = np.frombuffer(tensor.raw_data, "<u2").astype(np.uint32) << 16
        expected = before[tensor.name.removesuffix("_bf16")].ravel()
        np.testing.assert_allclose(bits.view(np.float32), expected, rtol=2.0**-8, atol=0)
    assert len(model.graph.initializer) == len(before)


def test_rounding_agrees_with_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    random = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    halves = (np.arange(0x3F80, 0x4080, dtype=np.uint32) << 16 | 0x8000).view(np.float32)  # ties go to even
    values = np.concatenate([random, halves, np.float32([0, -0.0, 1, np.inf, -np.inf, 1e-40, -1e-45])])
    values = values[(np.abs(values) <= BF16_MAX) | np.isinf(values)]  # ml_dtypes rounds the largest ones to Inf
    assert (bf16_from_float32(values) == values.astype(ml_dtypes.bfloat16).view(np.uint16)).all()


def test_what_is_finite_stays_finite_and_nan_stays_nan():
    largest = np.finfo(np.float32).max
    assert bf16_from_float32(np.float32([largest, -largest, BF16_MAX])).tolist() == [0x7F7F, 0xFF7F, 0x7F7F]
    nans = np.array([0x7F800001, 0xFFFFFFFF, 0x7FC00000], np.uint32).view(np.float32)
    bits = bf16_from_float32(nans).astype(np.uint32) << 16
    assert np.isnan(bits.view(np.float32)).all()


def test_clipped_weights_are_told(tmp_path, cast):
    limits = {"low": np.float32(-1), "high": np.array(np.finfo(np.float32).max)}
    artifact, _, _ = cast(net(tmp_path / "clip.onnx", [node("Clip", ["a", "low", "high"], "z")], limits))
    assert artifact.warnings == ("1 weights of high overflow BF16 and are clipped to 3.39e+38",)


@pytest.mark.parametrize("kind", ["Celu", "HardSwish"])
def test_an_operator_without_bf16_stays_fp32_between_casts(tmp_path, cast, kind):
    """Celu has no BF16 in ONNX, HardSwish none in TensorRT."""
    artifact, model, types = cast(net(tmp_path / "odd.onnx", [node(kind, ["a"], "z")]))
    assert kinds(model) == ["Cast", "Flatten", "MatMul", "Cast", kind, "Cast", "MatMul", "Cast"]
    odd = next(n for n in model.graph.node if n.op_type == kind)
    assert types[odd.input[0]] == types[odd.output[0]] == FLOAT
    assert artifact.warnings == (f"no BF16 for {kind} in ONNX or TensorRT: FP32 between casts",)


def test_an_operator_of_another_domain_stays_fp32(tmp_path, cast):
    path = net(tmp_path / "own.onnx", [helper.make_node("Magic", ["a"], ["z"], name="/z", domain="my.ops")])
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("my.ops", 1))
    onnx.save(model, str(path))
    with pytest.raises(BuildError, match=r"the type of z, read by /probabilities \(MatMul\), is not known"):
        cast(path)
    model.graph.value_info.append(helper.make_tensor_value_info("z", FLOAT, ("N", 64)))
    onnx.save(model, str(path))
    artifact, model, _ = cast(path)
    assert kinds(model)[2:6] == ["MatMul", "Cast", "Magic", "Cast"]
    assert "no BF16 for Magic" in artifact.warnings[0]


def test_types_that_inference_leaves_open_follow_the_inputs(tmp_path, cast):
    """ONNX's inference does not type every operator that is a function of others."""
    middle = [
        node("Reshape", ["a", "image_like"], "b"),
        node("GroupNormalization", ["b", "v", "v"], "g", num_groups=2),
        node("Flatten", ["g"], "z"),
    ]
    weights = {"image_like": np.array([-1, 4, 4, 4]), "v": np.ones(4, np.float32)}
    _, model, types = cast(net(tmp_path / "group.onnx", middle, weights, opset=21, ir=10))
    normal = next(n for n in model.graph.node if n.op_type == "GroupNormalization")
    assert {types[name] for name in normal.input} == {BF16}
    assert types["image_like"] == TensorProto.INT64


def test_inputs_that_must_stay_fp32_do(tmp_path, cast):
    """The scales of Resize are FP32 by ONNX's schema, its data are not."""
    middle = [
        node("Reshape", ["a", "image_like"], "b"),
        node("Resize", ["b", "", "factors"], "r", mode="nearest"),
        node("Flatten", ["r"], "z"),
    ]
    weights = {"image_like": np.array([-1, 1, 8, 8]), "factors": np.ones(4, np.float32)}
    _, model, types = cast(net(tmp_path / "resize.onnx", middle, weights))
    resize = next(n for n in model.graph.node if n.op_type == "Resize")
    assert (types[resize.input[0]], types[resize.input[2]]) == (BF16, FLOAT)


def test_a_tensor_of_both_types_is_cast_once(tmp_path, cast):
    """Two readers in FP32 share a cast; the weight that both halves use is there in both types."""
    nodes = [
        node("Flatten", ["image"], "f"),
        node("MatMul", ["f", "w"], "a"),
        node("Add", ["a", "b"], "c"),
        node("MatMul", ["c", "w"], "d"),
        node("Add", ["d", "b"], "e"),
        node("Mul", ["d", "e"], "probabilities"),
    ]
    weights = {"w": np.eye(64, dtype=np.float32), "b": np.ones(64, np.float32)}
    path = save_net(tmp_path / "both.onnx", nodes, weights, outputs=(("probabilities", ("N", 64)),))
    _, model, types = cast(path)
    assert kinds(model) == ["Cast", "Flatten", "MatMul", "Add", "MatMul", "Cast", "Add", "Mul"]
    assert sorted((t.name, t.data_type) for t in model.graph.initializer) == [("b", 1), ("b_bf16", 16), ("w_bf16", 16)]
    assert types["d"] == BF16


def test_an_output_that_is_read_again_keeps_its_name_and_type(tmp_path):
    nodes = [node("Flatten", ["image"], "f"), node("MatMul", ["f", "w"], "probabilities")]
    nodes += [node("MatMul", ["probabilities", "w"], "again")]
    outputs = (("probabilities", ("N", 64)), ("again", ("N", 64)))
    path = save_net(tmp_path / "read.onnx", nodes, {"w": np.eye(64, dtype=np.float32)}, outputs=outputs)
    target = tmp_path / "cast.onnx"
    convert(ConversionRequest(spec=spec_of(path), source=path, target=target, work_dir=tmp_path))
    model = onnx.load(target)
    assert {value.name: value.type.tensor_type.elem_type for value in model.graph.output} == {
        "probabilities": FLOAT,
        "again": FLOAT,
    }
    assert kinds(model) == ["Cast", "Flatten", "MatMul", "Cast", "MatMul", "Cast"]
    assert model.graph.node[4].input[0] == "probabilities_bf16"


def test_a_model_without_products_is_cast_throughout(tmp_path, cast):
    nodes = [node("Flatten", ["image"], "f"), node("Softmax", ["f"], "probabilities")]
    _, model, _ = cast(save_net(tmp_path / "flat.onnx", nodes, {}, outputs=(("probabilities", ("N", 64)),)))
    assert kinds(model) == ["Cast", "Flatten", "Softmax", "Cast"]


@pytest.mark.parametrize("given", [{"value": numpy_helper.from_array(np.float32(0.5))}, {"value_float": 0.5}])
def test_constant_nodes_become_weights(tmp_path, cast, given):
    middle = [helper.make_node("Constant", [], ["half"], **given), node("Mul", ["a", "half"], "z")]
    _, model, _ = cast(net(tmp_path / "constant.onnx", middle))
    (half,) = (t for t in model.graph.initializer if t.name.startswith("half"))
    assert (half.data_type, np.frombuffer(half.raw_data, "<u2").tolist()) == (BF16, [0x3F00])
    assert "Constant" not in kinds(model)


def test_external_weights_are_read(tmp_path, cast):
    path = onnx_nets.tiny_net(tmp_path / "external.onnx")
    plain = cast(path)[0].sha256
    onnx.save(onnx.load(path), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    artifact, _, _ = cast(path)
    assert artifact.source_sha256 != plain
    assert not any(t.external_data for t in load_model(artifact.onnx_path, with_weights=False).graph.initializer)


def test_control_flow_is_refused(tmp_path, cast):
    branch = helper.make_graph(
        [node("Identity", ["a"], "b")], "branch", [], [helper.make_tensor_value_info("b", FLOAT, ("N", 64))]
    )
    path = net(
        tmp_path / "if.onnx",
        [node("If", ["yes"], "z", then_branch=branch, else_branch=branch)],
        {"yes": np.array(True)},
    )
    with pytest.raises(BuildError, match=r"/z \(If\) holds a graph; BF16 cannot cast within"):
        cast(path)


def test_an_operator_set_that_cannot_be_raised_is_told(tmp_path, cast):
    path = net(tmp_path / "old.onnx", [node("Upsample", ["a"], "z", width_scale=1.0, height_scale=1.0)], opset=1, ir=3)
    with pytest.raises(BuildError, match="has no BF16 convolution and cannot be raised to 22"):
        cast(path)


@pytest.mark.parametrize("name", ["plain", "batch_norm"])
def test_outputs_are_those_of_fp32_within_bf16(tmp_path, cast, name):
    """On OpenVINO, in whatever arithmetic this CPU has: at the least the weights are rounded."""
    openvino = pytest.importorskip("openvino")
    path = onnx_nets.tiny_net(tmp_path / "tiny.onnx", batch_norm=name == "batch_norm", fc_scale=0.3)
    artifact, _, _ = cast(path)
    core = openvino.Core()
    found = [
        core.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": hint})(images(50))[0]
        for file, hint in ((str(path), "f32"), (artifact.onnx_path, "bf16"))
    ]
    np.testing.assert_allclose(found[1], found[0], atol=0.02, rtol=0)
    assert not np.array_equal(found[0], found[1])
