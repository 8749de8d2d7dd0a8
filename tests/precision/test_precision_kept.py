"""--keep-float: nodes that stay in float by their names; and what recipes state or refuse of odd files."""

from pathlib import Path

import numpy as np
import onnx
import onnx_nets
import pytest
from onnx import helper, numpy_helper
from onnx_nets import ArraySet, images, spec_of

from harness.errors import DataError, Unsupported
from harness.models.onnx_graph import load_model, state_kernels
from harness.precision import list_recipes, prepare_artifact
from harness.precision.recipe import NOTHING
from harness.specs import GIVEN_RECIPE, Precision

ROOT = Path(__file__).parents[2]
CASES = [
    (Precision.INT8, "qdq-minmax"),
    (Precision.INT8, "qdq-outputs"),
    (Precision.INT8, "qdq-search"),
    (Precision.INT8, "qdq-wide"),
    (Precision.FP16, "cast"),
    (Precision.BF16, "cast"),
]


@pytest.fixture
def tiny(tmp_path):
    return spec_of(onnx_nets.tiny_net(tmp_path / "tiny.onnx", batch_norm=True, softmax=False))


@pytest.fixture
def prepare(tmp_path):
    def run(spec, precision, recipe, **options):
        calibration = ArraySet(images(40)) if precision is Precision.INT8 else None
        return prepare_artifact(
            spec, precision, recipe, calibration=calibration, cache_dir=str(tmp_path / "cache"), **options
        )

    return run


def converted_inputs(path):
    """Return operator of a product -> whether its data input is no FP32 tensor as it is."""
    graph = onnx.load(path).graph
    makers = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name: tensor.data_type for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            kind = makers[node.input[1]].op_type if node.input[1] in makers else weights[node.input[1]]
            found[node.op_type] = kind != onnx.TensorProto.FLOAT
    return found


@pytest.mark.parametrize(("precision", "recipe"), CASES)
def test_a_kept_node_is_not_converted(tiny, prepare, precision, recipe):
    kept, others = ("^/fc/",), {"Conv": True, "Gemm": False}
    whole, artifact = prepare(tiny, precision, recipe), prepare(tiny, precision, recipe, keep_float=kept)
    assert whole.can_keep_float
    assert converted_inputs(whole.onnx_path)["Conv"]
    assert converted_inputs(artifact.onnx_path) == others
    assert artifact.kept_float == ("/fc/Gemm",)
    assert (whole.kept_float, whole.sha256 == artifact.sha256) == ((), False)


@pytest.mark.parametrize(("precision", "recipe"), CASES)
def test_a_kept_node_keeps_weights_that_are_constants(tmp_path, prepare, precision, recipe):
    path = onnx_nets.tiny_net(tmp_path / "tiny.onnx", softmax=False)
    model = onnx.load(path)
    made = [helper.make_node("Constant", [], [t.name], f"{t.name}_of", value=t) for t in model.graph.initializer]
    del model.graph.initializer[:]
    nodes = [*made, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)
    artifact = prepare(spec_of(path), precision, recipe, keep_float=("^/fc/",))
    assert converted_inputs(artifact.onnx_path) == {"Conv": True, "Gemm": False}


def test_kept_nodes_are_part_of_the_key_by_what_they_match(tiny, prepare):
    first = prepare(tiny, Precision.INT8, "qdq-minmax", keep_float=("fc",))
    again = prepare(tiny, Precision.INT8, "qdq-minmax", keep_float=("^/f.*Gemm$",))
    whole = prepare(tiny, Precision.INT8, "qdq-minmax")
    assert (first.cache_hit, again.cache_hit, whole.cache_hit) == (False, True, False)


def test_fp32_keeps_nothing_and_checks_the_pattern(tiny, prepare):
    assert prepare(tiny, Precision.FP32, "none", keep_float=("fc",)).kept_float == ()
    for precision, recipe in [(Precision.FP32, "none"), *CASES]:
        with pytest.raises(DataError, match=r"--keep-float=/fc/Gem\$: no node of model tiny .*near ones are: /fc/Gemm"):
            prepare(tiny, precision, recipe, keep_float=("conv", "/fc/Gem$"))


def test_a_node_without_a_name_is_kept_by_its_output(tmp_path, prepare):
    path = onnx_nets.tiny_net(tmp_path / "tiny.onnx", softmax=False)
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, path)
    artifact = prepare(spec_of(path), Precision.INT8, "qdq-minmax", keep_float=("^c$",))
    assert converted_inputs(artifact.onnx_path) == {"Conv": False, "Gemm": True}


def test_a_runtime_that_decides_alone_is_unsupported_but_tensorrt_is_told(tiny, prepare):
    for precision, recipe in ((Precision.BF16, "runtime"), (Precision.INT8, "mnn-kl")):
        with pytest.raises(Unsupported, match="no say in what it converts"):
            prepare(tiny, precision, recipe, keep_float=("fc",))
    assert prepare(tiny, Precision.INT8, "trt-entropy2", keep_float=("fc",)).kept_float == ("/fc/Gemm",)


UNCONVERTED = [recipe for recipe in list_recipes() if recipe.writes == NOTHING and recipe.name != GIVEN_RECIPE]


@pytest.mark.parametrize("recipe", UNCONVERTED, ids=lambda recipe: f"{recipe.precision}-{recipe.name}")
def test_an_artifact_says_whether_nodes_can_be_kept_as_its_recipe_takes_or_refuses_them(recipe, tiny, prepare):
    said = prepare(tiny, recipe.precision, recipe.name).can_keep_float
    try:
        kept = prepare(tiny, recipe.precision, recipe.name, keep_float=("fc",)).kept_float
    except Unsupported:
        kept = ()
    assert said == bool(kept)


def test_all_kept_leaves_nothing_to_quantize(tiny, prepare):
    with pytest.raises(Unsupported, match="keeps all that could be quantized"):
        prepare(tiny, Precision.INT8, "qdq-minmax", keep_float=(".",))


def test_products_within_a_loop_or_if_are_unsupported(tmp_path, prepare):
    shape = ("N", 1, 8, 8)
    body = helper.make_graph(
        [helper.make_node("MatMul", ["image", "eye"], ["then"])],
        "then",
        [],
        [helper.make_tensor_value_info("then", onnx.TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.eye(8, dtype=np.float32), "eye")],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["else"])],
        "else",
        [],
        [helper.make_tensor_value_info("else", onnx.TensorProto.FLOAT, shape)],
    )
    nodes = [
        helper.make_node("If", ["yes"], ["i"], then_branch=body, else_branch=other),
        helper.make_node("Flatten", ["i"], ["probabilities"]),
    ]
    path = onnx_nets.save_net(
        tmp_path / "inner.onnx", nodes, {"yes": np.array(True)}, outputs=(("probabilities", ("N", 64)),)
    )
    for recipe in ("qdq-minmax", "qdq-search", "qdq-wide"):
        with pytest.raises(Unsupported, match="its MatMul lies within an If, Loop or Scan"):
            prepare(spec_of(path), Precision.INT8, recipe)


@pytest.mark.parametrize(("precision", "recipe"), CASES)
def test_a_kernel_shape_that_was_left_out_is_stated(tmp_path, prepare, precision, recipe):
    path = onnx_nets.tiny_net(tmp_path / "tiny.onnx", softmax=False)
    model = onnx.load(path)
    assert not any(a.name == "kernel_shape" for a in model.graph.node[0].attribute)
    artifact = prepare(spec_of(path), precision, recipe)
    convolution = next(node for node in onnx.load(artifact.onnx_path).graph.node if node.op_type == "Conv")
    stated = [list(a.ints) for a in convolution.attribute if a.name == "kernel_shape"]
    assert stated == [[3, 3]]


def test_the_bundled_models_state_theirs_and_stay_as_they_are():
    paths = sorted((ROOT / "models").glob("*.onnx"))
    assert paths
    for path in paths:
        model = load_model(path)
        before = model.SerializeToString(deterministic=True)
        state_kernels(model)
        assert model.SerializeToString(deterministic=True) == before


def test_wide_quantizes_what_lies_between_products(tmp_path, prepare):
    weights = {name: np.full((4, n, 3, 3), 0.1, np.float32) for name, n in (("a.w", 1), ("b.w", 4))}
    weights["fc.w"] = np.random.default_rng(0).standard_normal((128, 10)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "a.w"], ["a"], name="a", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "b.w"], ["b"], name="b", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["a", "b"], ["sum"], name="sum"),
        helper.make_node("AveragePool", ["sum"], ["p"], name="p", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Concat", ["p", "p"], ["twice"], name="twice", axis=1),
        helper.make_node("Flatten", ["twice"], ["f"], name="f"),
        helper.make_node("MatMul", ["f", "fc.w"], ["probabilities"], name="fc"),
    ]
    spec = spec_of(onnx_nets.save_net(tmp_path / "wide.onnx", nodes, weights))
    pairs = {}
    for recipe in ("qdq-outputs", "qdq-wide"):
        graph = onnx.load(prepare(spec, Precision.INT8, recipe).onnx_path).graph
        makers = {name: node.op_type for node in graph.node for name in node.output}
        pairs[recipe] = {
            node.op_type: all(makers.get(name) == "DequantizeLinear" for name in node.input)
            for node in graph.node
            if node.op_type in ("Add", "AveragePool", "Concat")
        }
    assert pairs["qdq-wide"] == {"Add": True, "AveragePool": True, "Concat": True}
    assert not all(pairs["qdq-outputs"].values())


@pytest.mark.parametrize("opset", [7, 8])
@pytest.mark.parametrize(("precision", "recipe"), [case for case in CASES if case[1] != "qdq-search"])
def test_an_integer_constant_before_operator_set_9_is_converted(tmp_path, prepare, precision, recipe, opset):
    nodes = [
        helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(np.array([-1, 64], np.int64))),
        helper.make_node("Reshape", ["image", "s"], ["f"], name="reshape"),
        helper.make_node("Gemm", ["f", "w", "b"], ["probabilities"], name="fc"),
    ]
    weights = {"w": np.ones((64, 10), np.float32), "b": np.zeros(10, np.float32)}
    path = onnx_nets.save_net(tmp_path / "old.onnx", nodes, weights, opset=opset, ir=4)
    artifact = prepare(spec_of(path), precision, recipe)
    onnx.checker.check_model(artifact.onnx_path, full_check=True)
