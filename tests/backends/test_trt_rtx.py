"""TensorRT for RTX builds real engines without a GPU: the adapter's build half, for real."""

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.backends import load_backend
from harness.errors import BuildError
from harness.precision import find_recipe, prepare_artifact
from harness.precision.recipe import ConversionRequest
from harness.precision.recipes.bf16 import FP32_OPS
from harness.records import Artifact
from harness.specs import BuildOptions, Case, ModelInput, ModelOutput, ModelTensors, Precision
from harness.testing.nets import graph_net, graph_tensors

if importlib.util.find_spec("tensorrt_rtx") is None:
    pytest.skip("tensorrt-rtx is not installed: pip install tensorrt-rtx", allow_module_level=True)
onnx = pytest.importorskip("onnx")

ROOT = Path(__file__).parents[2]
MODELS = sorted(path.stem for path in (ROOT / "models").glob("*.toml") if path.with_suffix(".onnx").exists())


class Noise:
    """Calibration images between 0 and 1; their pixels do not matter to a build."""

    fingerprint = "0" * 64
    n_images = 16

    def __init__(self, shape):
        self._shape = shape

    def batches(self, batch_size):
        images = np.random.default_rng(0).random((self.n_images, *self._shape), dtype=np.float32)
        for first in range(0, self.n_images, batch_size):
            yield images[first : first + batch_size]


def artifact_of(path, precision="fp32"):
    return Artifact(
        model="m", precision=Precision(precision), recipe="none", onnx_path=str(path), sha256="", source_sha256=""
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("recipe", ["fp32-none", "fp16-cast", "bf16-cast", "int8-qdq-minmax"])
@pytest.mark.parametrize("name", MODELS)
def test_every_bundled_model_builds(bundled, name, recipe, cache):
    precision, _, recipe = recipe.partition("-")
    spec = bundled(name)
    artifact = prepare_artifact(
        spec, Precision(precision), recipe, calibration=Noise(spec.input_shape), cache_dir=cache
    )
    profiles = ((1, 1, 1), (2, 8, 16)) if name == MODELS[0] else ()
    options = BuildOptions(settings={"trt": {"profiles": profiles}})
    plan = load_backend("trt-rtx").build_plan(artifact, batch_sizes=(1, 16), options=options)
    assert len(plan.data) > 10_000
    assert plan.build_ns > 0
    assert plan.options["typing"] == "strong"
    assert plan.options["tf32"] == "off"
    assert plan.options["profiles"] == ("1..1 (opt 1), 2..16 (opt 8)" if profiles else "1..1 (opt 1), 1..16 (opt 16)")
    assert not plan.log_errors


@pytest.mark.parametrize("kind", sorted(FP32_OPS))
def test_an_operator_that_has_no_bf16_here_builds_in_fp32(kind, tmp_path):
    """The recipe keeps these FP32; cast as well, they are refused."""
    inputs = ("x", "w") if kind == "ConvTranspose" else ("x",)
    attributes = {"kernel_shape": [2, 2]} if kind == "LpPool" else {}
    nodes = [node(kind, inputs, ("o",), **attributes), node("Conv", ("o", "w"))]
    source, target = tmp_path / "fp32.onnx", tmp_path / "bf16.onnx"
    source.write_bytes(graph(nodes, initializers={"w": np.ones((1, 1, 2, 2), np.float32)}, opset=22))
    assert build_bf16(source, target).data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.precision.recipes.bf16.FP32_OPS", frozenset())
        with pytest.raises(BuildError, match=r"cannot parse it|built no engine"):
            build_bf16(source, target)


def build_bf16(source, target):
    card = SimpleNamespace(name="m")
    find_recipe(Precision.BF16, "cast").convert(
        ConversionRequest(spec=card, source=source, target=target, work_dir=target.parent)
    )
    artifact = replace(artifact_of(target, "bf16"), recipe="cast")
    return load_backend("trt-rtx").build_plan(artifact, batch_sizes=(2,), options=BuildOptions())


def test_bf16_by_a_builder_flag_is_refused(bundled):
    case = Case(model="m", backend="trt-rtx", precision=Precision.BF16, recipe="runtime", device="cuda:0")
    support = load_backend("trt-rtx").supports(case)
    assert not support.supported
    assert "has no builder flag BF16" in support.reason
    artifact = replace(artifact_of(bundled(MODELS[0]).onnx_path, "bf16"), recipe="runtime")
    with pytest.raises(BuildError, match="has no builder flag BF16"):
        load_backend("trt-rtx").build_plan(artifact, batch_sizes=(2,), options=BuildOptions())


def test_equal_inputs_give_equal_plans(bundled):
    artifact = artifact_of(bundled(MODELS[0]).onnx_path)
    plans = [load_backend("trt-rtx").build_plan(artifact, batch_sizes=(2,), options=BuildOptions()) for _ in range(2)]
    assert plans[0].data == plans[1].data


def graph(nodes, inputs=("x",), initializers=(), shape=("n", 1, 4, 4), opset=17):
    helper = onnx.helper
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in inputs],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in dict(initializers).items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8).SerializeToString()


def node(kind, inputs, outputs=("y",), **attributes):
    return onnx.helper.make_node(kind, list(inputs), list(outputs), name=f"the_{kind}", **attributes)


def quantized(scale=0.1, zero=0, bias=None, scale_is_input=False):
    nodes = [
        node("QuantizeLinear", ("x", "scale", "zero"), ("q",)),
        node("DequantizeLinear", ("q", "scale", "zero"), ("d",)),
        node("Conv", ("d", "w") + (("b",) if bias is not None else ())),
    ]
    values = {"scale": np.float32(scale), "zero": np.int8(zero), "w": np.ones((2, 1, 3, 3), np.float32)}
    if bias is not None:
        nodes.insert(2, node("DequantizeLinear", ("b_int", "scale"), ("b",)))
        values["b_int"] = bias
    if scale_is_input:
        del values["scale"]
        return graph(nodes, inputs=("x", "scale"), initializers=values)
    return graph(nodes, initializers=values)


def malformed():
    whole = graph([node("Relu", ("x",))])
    return {
        "garbage": (b"\xff" * 200, "Failed to parse"),
        "text": (b"this is no ONNX file\n" * 50, "the model is empty (0 inputs, 0 outputs); is it ONNX?"),
        "truncated": (whole[: len(whole) // 2], "Failed to parse"),
        "nothing": (b"", "the model is empty (0 inputs, 0 outputs)"),
        "unsupported": (graph([node("Det", ("x",))]), "node 0 'the_Det' (Det): this operator is not supported"),
        "custom": (
            graph([onnx.helper.make_node("Magic", ["x"], ["y"], name="magic", domain="my.ops")]),
            "node 0 'magic' (Magic): ",
        ),
        "two_inputs": (graph([node("Add", ("x", "z"))], inputs=("x", "z")), "2 inputs and 1 outputs"),
        "free_size": (graph([node("Relu", ("x",))], shape=("n", 1, "h", 4)), "only the first dimension, the batch"),
        "fixed_batch": (graph([node("Relu", ("x",))], shape=(2, 1, 4, 4)), "batch 1 lies in no profile (2..2"),
        "zero_point": (quantized(zero=3), "Non-zero zero point is not supported"),
        "scale": (quantized(scale=-0.1), "Scale coefficients must all be positive"),
        "scale_is_input": (quantized(scale_is_input=True), "2 inputs and 1 outputs"),  # its build can crash
        "int32_bias": (quantized(bias=np.zeros(2, np.int32)), "Int32"),
    }


CHILD = """
import json, sys
from harness.backends import load_backend
from harness.errors import HarnessError
from harness.records import Artifact
from harness.specs import BuildOptions, Precision
for path in sys.argv[1:]:
    artifact = Artifact(
        model="m", precision=Precision.FP32, recipe="none", onnx_path=path, sha256="", source_sha256=""
    )
    try:
        load_backend("trt-rtx").build_plan(artifact, batch_sizes=(1, 4), options=BuildOptions())
        print(json.dumps([path, "built"]), flush=True)
    except HarnessError as error:
        print(json.dumps([path, str(error)]), flush=True)
"""


def in_a_child(paths):
    """Build models in a process of their own: a bad one may crash the parser."""
    return subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, paths)], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def messages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("malformed")
    paths = {name: folder / f"{name}.onnx" for name in malformed()}
    for name, (data, _) in malformed().items():
        paths[name].write_bytes(data)
    child = in_a_child(paths.values())
    assert child.returncode == 0, child.stderr
    return {Path(path).stem: text for path, text in map(json.loads, child.stdout.splitlines())}


@pytest.mark.parametrize("name", malformed())
def test_a_malformed_model_is_refused_with_its_reason(messages, name):
    assert malformed()[name][1] in messages[name]
    assert f"{name}.onnx" in messages[name] or "input x" in messages[name] or "profile" in messages[name]
    assert "\n" not in messages[name]


@pytest.mark.parametrize(
    ("trt", "says"),
    [
        ({"profiles": ((4, 4, 8),)}, "batch 2 lies in no profile"),
        ({"version_compatible": True}, "has no version or hardware compatibility"),
        ({"plugins": ("/nowhere/lib.so",)}, "there is no such file"),
    ],
)
def test_bad_options_are_refused(bundled, trt, says):
    artifact = artifact_of(bundled(MODELS[0]).onnx_path)
    with pytest.raises(BuildError, match=says):
        load_backend("trt-rtx").build_plan(artifact, batch_sizes=(2,), options=BuildOptions(settings={"trt": trt}))


def test_a_plugin_library_is_loaded_and_counted(bundled, tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: no library can be made")
    source, library = tmp_path / "plain.c", tmp_path / "libplain.so"
    source.write_text("int plain(void) { return 1; }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    artifact = artifact_of(bundled(MODELS[0]).onnx_path)
    options = BuildOptions(settings={"trt": {"plugins": (str(library),)}})
    plan = load_backend("trt-rtx").build_plan(artifact, batch_sizes=(2,), options=options)
    assert "plug-in libplain.so: 0 layer types registered" in plan.notes


def test_calibrators_are_refused_where_there_are_none(bundled):
    artifact = Artifact(
        model="m",
        precision=Precision.INT8,
        recipe="trt-entropy2",
        onnx_path=bundled(MODELS[0]).onnx_path,
        sha256="",
        source_sha256="",
    )
    with pytest.raises(BuildError, match="needs a GPU"):
        load_backend("trt-rtx").build_plan(
            artifact, batch_sizes=(2,), options=BuildOptions(), calibration=Noise((1, 28, 28))
        )


def test_a_model_of_any_graph_builds_at_named_shapes(tmp_path):
    """Whole numbers of 64 bits, bools and a scalar, for real."""
    options = BuildOptions(tensors=graph_tensors())
    net = artifact_of(graph_net(tmp_path / "graph.onnx"))
    plan = load_backend("trt-rtx").build_plan(net, batch_sizes=(1,), options=options)
    assert plan.options["profiles"].startswith("ids 1x5..1x5 (opt 1x5) mask 1x5")
    assert len(plan.data) > 1000


@pytest.mark.parametrize("axes", [("?", "?"), ("n", "t")])
def test_axes_that_an_exporter_gave_one_name_may_differ(tmp_path, axes):
    """TensorRT refuses other sizes of axes of one name; ch_ppocr_mobile_v2.0_cls_infer.onnx names both sides "?"."""
    shape, path = ("n", 1, *axes), tmp_path / "named.onnx"
    path.write_bytes(graph([node("Relu", ["x"])], shape=shape))
    image = ModelInput(name="x", dtype="float32", shape=(1, 1, 8, 12), batch_axis=0, free_axes=(0, 2, 3))
    tensors = ModelTensors(inputs=(image,), outputs=(ModelOutput(name="y", batch_axis=0),))
    options = BuildOptions(tensors=tensors)
    plan = load_backend("trt-rtx").build_plan(artifact_of(path), batch_sizes=(1, 4), options=options)
    assert plan.options["profiles"].endswith("x 1x1x8x12..4x1x8x12 (opt 4x1x8x12)")
