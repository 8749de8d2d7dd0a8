"""Keras, TensorFlow and PyTorch models become ONNX files; each test needs the framework, in this environment.

What the files look like to a user who lacks the framework, and what is refused without it, is tested everywhere.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx_nets import tiny_net
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import DataError
from harness.models import load_card
from harness.models.importers._compare import difference_of, random_images, why_not_run
from harness.models.importers._tensorflow import _write_shapes_out

ROOT = Path(__file__).parents[2]
FROZEN = ROOT.parent / "shared" / "data" / "tf" / "lenet5_mnist_frozen.pb"
needs_keras = pytest.mark.skipif(
    not (importlib.util.find_spec("keras") and importlib.util.find_spec("tf2onnx")),
    reason="Keras and tf2onnx are not installed: pip install 'nn-engine-harness[import-keras]'",
)
needs_torch = pytest.mark.skipif(
    not (importlib.util.find_spec("torch") and importlib.util.find_spec("onnxscript")),
    reason="PyTorch and onnxscript are not installed: pip install 'nn-engine-harness[import-torch]'",
)


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Return a function that runs `harness import` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(app, ["import", *map(str, arguments), "-o", "mine"])

    return run


def make(folder, code):
    """Run code of a framework in a process of its own: it does not belong into the tests'."""
    child = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr


def run(path, images):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def operators(path):
    return [node.op_type for node in onnx.load(path).graph.node]


# -- without any framework


def test_uff_is_refused_with_the_way_round(call):
    result = call("uff", "lenet5.uff")
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1)
    assert "lenet5.uff: UFF cannot be imported" in result.stderr
    assert "`harness import tf`" in result.stderr


@pytest.mark.skipif(importlib.util.find_spec("tf2onnx") is not None, reason="tf2onnx is installed")
@pytest.mark.parametrize("name", ["keras", "tf"])
def test_a_framework_that_is_not_installed_is_named(call, name):
    result = call(name, "net.keras")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "tf2onnx" in result.stderr
    assert "pip install 'nn-engine-harness[import-keras]'" in result.stderr


def test_outputs_that_differ_are_refused(tmp_path):
    path, images = tiny_net(tmp_path / "net.onnx"), random_images((1, 8, 8))
    expected = run(path, images)
    assert difference_of(expected, path, images, "net.h5") == 0
    assert difference_of(expected + np.float32(1e-6), path, images, "net.h5") < 2e-6
    for wrong in (expected[:, ::-1], expected * 1.01, np.full_like(expected, np.nan), expected[:, :5]):
        with pytest.raises(DataError, match=r"net\.h5: imported, it"):
            difference_of(wrong, path, images, "net.h5")


def test_an_operator_of_the_users_own_is_told_not_compared(tmp_path):
    helper = onnx.helper
    nodes = [helper.make_node("MyOp", ["x"], ["y"], domain="demo.ops")]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in "xy"]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("demo.ops", 1)]
    graph = helper.make_graph(nodes, "own", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "own.onnx")
    assert difference_of(np.zeros((8, 4), "f4"), tmp_path / "own.onnx", random_images((4,)), "own") is None
    assert "demo.ops:MyOp" in why_not_run(tmp_path / "own.onnx")


def test_shapes_that_are_computed_are_written_out(tmp_path):
    """The Flatten of Keras: Shape, Gather, Concat, Reshape; and a Reshape that changes nothing."""
    helper, integers = onnx.helper, onnx.numpy_helper.from_array
    nodes = [
        helper.make_node("Reshape", ["x", "same"], ["x2"]),
        helper.make_node("Shape", ["x2"], ["s"]),
        helper.make_node("Slice", ["s", "zero", "one"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x2", "shape"], ["y"]),
    ]
    weights = [
        integers(np.array(value, np.int64), name)
        for name, value in {"same": [-1, 1, 4, 4], "zero": [0], "one": [1], "rest": [16]}.items()
    ]
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", ["N", 1, 4, 4]), ("y", ["N", 16]))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "net", values[:1], values[1:], weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    _write_shapes_out(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "net.onnx")
    assert [node.op_type for node in model.graph.node] == ["Reshape"]
    images = random_images((1, 4, 4))
    np.testing.assert_array_equal(run(tmp_path / "net.onnx", images), images.reshape(8, 16))


# -- Keras and TensorFlow

KERAS = """
import os; os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="", KERAS_HOME=os.getcwd())
import keras; import numpy as np; L = keras.layers; keras.utils.set_random_seed(3)
conv = [L.Conv2D(8, 5), L.MaxPooling2D(2), L.BatchNormalization(), L.ReLU(max_value=6.0), L.Flatten(), L.Dropout(0.5)]
conv = keras.Sequential([keras.Input((28, 28, 1), name="image"), *conv, L.Dense(10, "softmax", name="probabilities")])
conv.save("conv.keras"); conv.save("conv.h5"); conv.export("conv_saved", format="tf_saved_model", verbose=False)
keras.Sequential([keras.Input((28, 28)), L.Flatten(), L.Dense(10)]).save("rows.keras")
keras.Sequential([keras.Input((784,)), L.Dense(10)]).save("flat.keras")
first = [L.Conv2D(4, 3, data_format="channels_first"), L.Flatten(), L.Dense(10)]
keras.Sequential([keras.Input((1, 28, 28)), *first]).save("first.keras")
colour = [L.Rescaling(1 / 255), L.Conv2D(8, 3, strides=2, padding="same"), L.GlobalAveragePooling2D(), L.Dense(5)]
keras.Sequential([keras.Input((32, 24, 3)), *colour]).save("colour.keras")
of = lambda *sizes: {"mean": np.full(sizes, 0.3), "variance": np.full(sizes, 2.0), "axis": (1, 2, 3)[-len(sizes):]}
norm = lambda *sizes: L.Normalization(**of(*sizes))
keras.Sequential([keras.Input((8, 8, 3)), norm(3), norm(8, 8, 3), L.Flatten(), L.Dense(5)]).save("normal.keras")
i = keras.Input((16, 16, 1)); z = L.Flatten()(L.Conv2D(4, 3)(i))
keras.Model(i, [L.Dense(4, name="a")(z), L.Dense(6, name="b")(z)]).save("two.keras")
keras.Sequential([keras.Input((4,)), L.Lambda(lambda t: 3 * t), L.Dense(3)]).save("code.keras")
"""


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras")
    make(folder, KERAS)
    return folder


@needs_keras
@pytest.mark.parametrize(
    ("importer", "source", "shape", "layout"),
    [
        ("keras", "conv.keras", (1, 28, 28), "NCHW"),
        ("keras", "conv.h5", (1, 28, 28), "NCHW"),
        ("keras", "conv_saved", (1, 28, 28), "NCHW"),
        ("tf", "conv_saved", (1, 28, 28), "NCHW"),
        ("keras", "rows.keras", (1, 28, 28), "NCHW"),
        ("keras", "flat.keras", (784,), "flat"),
        ("keras", "first.keras", (1, 28, 28), "NCHW"),
        ("keras", "colour.keras", (3, 32, 24), "NCHW"),
        ("keras", "normal.keras", (3, 8, 8), "NCHW"),  # holds tensors that are no variables
    ],
)
def test_a_keras_model_takes_images_with_channels_first(keras_files, call, importer, source, shape, layout):
    result = call(importer, keras_files / source, "--name=net")
    assert result.exit_code == 0, result.output
    spec = load_card("mine/net.toml")
    assert (spec.input_shape, spec.layout, spec.max_batch) == (shape, layout, None)
    assert spec.scale == (1.0 if source == "colour.keras" else 1 / 255)  # it scales the pixels itself
    assert float(result.output.split("outputs differ by ")[1].split()[0]) < 1e-5
    kinds = set(operators(spec.onnx_path))
    assert not kinds & {"Shape", "Gather", "Slice", "BatchNormalization"}, kinds
    assert onnx.load(spec.onnx_path).ir_version == 8
    for n_images in (1, 3):  # the batch is free
        images = np.zeros((n_images, *shape), np.float32)
        assert run(spec.onnx_path, images).shape == (n_images, spec.num_classes)


@needs_keras
def test_names_of_a_keras_model_are_kept(keras_files, call):
    assert call("keras", keras_files / "conv.h5").exit_code == 0
    spec = load_card("mine/conv.toml")
    assert (spec.input_name, spec.output_name, spec.output_kind) == ("image", "probabilities", "probabilities")


@needs_keras
def test_one_of_two_keras_outputs_is_chosen(keras_files, call):
    result = call("keras", keras_files / "two.keras")
    assert (result.exit_code, "has 2 outputs (a, b); choose one with --output-name" in result.stderr) == (4, True)
    assert call("keras", keras_files / "two.keras", "--output-name=b").exit_code == 0
    assert load_card("mine/two.toml").num_classes == 6


@needs_keras
@pytest.mark.parametrize("source", ["conv.keras", "conv.h5"])
def test_a_truncated_keras_file_is_one_line(keras_files, tmp_path, call, source):
    (tmp_path / source).write_bytes((keras_files / source).read_bytes()[:20_000])
    result = call("keras", source)
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1)
    assert result.stderr.startswith(f"ERROR: {source}")


@needs_keras
@pytest.mark.parametrize(
    ("importer", "source", "expected"),
    [("keras", "code.keras", "Lambda"), ("keras", "absent.h5", "no such file"), ("tf", ".", "no saved_model.pb")],
)
def test_a_keras_model_that_cannot_be_taken_is_one_line(keras_files, call, importer, source, expected):
    result = call(importer, keras_files / source, "--name=net")
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1)
    assert expected in result.stderr


@needs_keras
def test_a_frozen_graph_is_imported(tmp_path, call):
    make(
        tmp_path,
        """
import os; os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
import numpy as np, tensorflow.compat.v1 as tf
random = np.random.default_rng(3).standard_normal
with tf.Graph().as_default() as graph:
    x = tf.placeholder(tf.float32, name="in")
    y = tf.nn.conv2d(x, random((3, 3, 1, 4)).astype("f"), strides=1, padding="SAME", name="conv")
    y = tf.matmul(tf.reshape(tf.nn.relu(y), [-1, 144]), random((144, 5)).astype("f"), name="out")
    v = tf.Variable(1.0, name="v", use_resource=False)
open("frozen.pb", "wb").write(tf.graph_util.extract_sub_graph(graph.as_graph_def(), ["out"]).SerializeToString())
open("unfrozen.pb", "wb").write(graph.as_graph_def().SerializeToString())
""",
    )
    result = call("tf", "frozen.pb", "--input-shape=1,6,6")
    assert result.exit_code == 0, result.output
    spec = load_card("mine/frozen.toml")
    assert (spec.input_name, spec.input_shape, spec.output_name, spec.num_classes) == ("in", (1, 6, 6), "out", 5)
    assert float(result.output.split("outputs differ by ")[1].split()[0]) < 1e-4
    (tmp_path / "cut.pb").write_bytes((tmp_path / "frozen.pb").read_bytes()[:500])
    for arguments, expected in (
        (["frozen.pb"], "the shape of input in is unknown; give --input-shape"),
        (["cut.pb", "--input-shape=1,6,6"], "is no frozen graph, or a truncated one"),
        (["unfrozen.pb", "--input-shape=1,6,6"], "freeze the graph first"),
        (["frozen.pb", "--output-name=absent", "--input-shape=1,6,6"], "it has no output 'absent'"),
    ):
        result = call("tf", *arguments, "--name=other")
        assert (result.exit_code, result.stderr.count("\n")) == (4, 1), result.stderr
        assert expected in result.stderr


@needs_keras
@pytest.mark.skipif(not FROZEN.is_file(), reason="TensorRT's frozen LeNet is not in ../shared/data/tf")
def test_a_real_frozen_lenet_is_imported(call):
    assert call("tf", FROZEN, "--input-shape=1,28,28").exit_code == 0
    spec = load_card("mine/lenet5_mnist_frozen.toml")
    assert (spec.input_name, spec.output_name, spec.num_classes) == ("in", "out", 10)


# -- PyTorch

NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(144, 10)
    def forward(self, x):
        return torch.softmax(self.last(torch.flatten(torch.relu(self.first(x)), 1)), 1)

def not_a_module():
    return 3

class Branches(Net):
    def forward(self, x):
        return self.first(x) if x.sum() > 0 else x
"""
SAVED = """
import torch
from net import Net
torch.manual_seed(1)
net, x = Net().eval(), torch.rand(2, 1, 8, 8)
torch.save(net.state_dict(), "state.pt"); torch.save(net, "whole.pt"); torch.jit.script(net).save("script.pt")
free = ({0: torch.export.Dim("n", min=1)},)
torch.export.save(torch.export.export(net, (x,), dynamic_shapes=free), "free.pt2")
torch.export.save(torch.export.export(net, (torch.rand(5, 1, 8, 8),)), "fixed.pt2")
"""


@pytest.fixture(scope="module")
def torch_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    (folder / "net.py").write_text(NET)
    make(folder, SAVED)
    return folder


@needs_torch
@pytest.mark.parametrize(
    ("sources", "max_batch"),
    [(["net.py:Net", "state.pt"], None), (["free.pt2"], None), (["script.pt"], None), (["fixed.pt2"], 5)],
)
def test_a_torch_model_keeps_its_outputs_and_its_batch(torch_files, call, sources, max_batch):
    shape = [] if sources[0].endswith(".pt2") else ["--input-shape=1,8,8"]
    result = call("torch", *(torch_files / source for source in sources), "--name=net", *shape)
    assert result.exit_code == 0, result.output
    spec = load_card("mine/net.toml")
    assert (spec.input_shape, spec.num_classes, spec.max_batch) == ((1, 8, 8), 10, max_batch)
    assert float(result.output.split("outputs differ by ")[1].split()[0]) < 1e-6
    images = random_images((1, 8, 8))[:5]
    assert run(spec.onnx_path, images).shape == (5, 10)
    assert onnx.load(spec.onnx_path).ir_version == 8


@needs_torch
@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["whole.pt"], "holds weights or a pickled module"),
        (["state.pt"], "holds weights or a pickled module"),
        (["net.py:Net", "whole.pt"], "Weights only load failed"),
        (["net.py:Absent"], "holds no 'Absent'"),
        (["net.py:not_a_module"], "not_a_module gives int; expected a torch.nn.Module"),
        (["net.py:Branches"], "PyTorch cannot export it"),
        (["net.py"], "name the module too"),
        (["absent.pt2"], "no such file"),
        (["cut.pt2"], "is no file of PyTorch's, or a truncated one (2000 bytes)"),
    ],
)
def test_a_torch_file_that_cannot_be_taken_is_one_line(torch_files, call, sources, expected):
    (torch_files / "cut.pt2").write_bytes((torch_files / "free.pt2").read_bytes()[:2000])
    result = call("torch", *(torch_files / source for source in sources), "--name=net", "--input-shape=1,8,8")
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1), result.stderr
    assert expected in result.stderr


@needs_torch
def test_the_custom_operator_of_the_docs_is_imported_end_to_end(tmp_path, call):
    page = (ROOT / "docs" / "importing.md").read_text()
    (tmp_path / "custom.py").write_text(page.split("```python\n# custom.py\n")[1].split("```")[0])
    result = call("torch", "custom.py:Net", "--input-shape=4")
    assert result.exit_code == 0, result.output
    assert float(result.output.split("outputs differ by ")[1].split()[0]) < 1e-6
    assert {node.domain for node in onnx.load("mine/custom.onnx").graph.node} == {""}
    assert {"Mul", "Sub"} <= set(operators("mine/custom.onnx"))
    result = call("torch", "custom.py:NodeNet", "--input-shape=4", "--name=node")
    assert result.exit_code == 0, result.output
    assert "outputs were not compared: ONNX Runtime cannot run the file" in result.output
    assert "demo.ops:MyOp" in result.output
    assert ("demo.ops", "MyOp") in [(node.domain, node.op_type) for node in onnx.load("mine/node.onnx").graph.node]
