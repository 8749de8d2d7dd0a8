"""ONNX graphs as TensorFlow functions: every operator gives what ONNX Runtime gives."""

import numpy as np
import onnx_nets
import pytest
from onnx_chains import CHAINS, STEM, net, node

from harness.backends._tf.graph import OPERATORS, check_operators, function_of, nodes_of_name
from harness.errors import Unsupported
from harness.models.onnx_graph import load_model


@pytest.mark.parametrize("name", CHAINS)
def test_a_function_gives_what_onnx_runtime_gives(name, tmp_path):
    tf, ort = pytest.importorskip("tensorflow"), pytest.importorskip("onnxruntime")
    path = net(tmp_path / "net.onnx", CHAINS[name])
    batch = onnx_nets.images(5) - np.float32(0.3)
    expected = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"image": batch})[0]
    found = function_of(tf, load_model(path))(tf.constant(batch)).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-5)


def test_every_operator_is_among_them():
    assert set(OPERATORS) == {kind for steps in CHAINS.values() for kind, _, _ in steps}


def test_operators_that_are_missing_are_listed_by_name_before_anything_is_converted(tmp_path):
    path = net(tmp_path / "net.onnx", [node("Erf"), node("Relu"), node("Erf"), node("Softplus")])
    with pytest.raises(Unsupported, match=r"^case: .* has no operator Erf \(2\), Softplus \(1\)$"):
        check_operators(load_model(path), "case")
    check_operators(load_model(net(tmp_path / "good.onnx", [STEM, node("Relu")])), "case")


REFUSED = {
    "rounds up": [STEM, node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
    "leaves its padding out": [STEM, node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
    "padding SAME_UPPER": [node("Conv", "stem.w", "stem.b", auto_pad="SAME_UPPER")],
    "transposed first factor": [STEM, node("Flatten"), node("Gemm", "row.w", transA=1)],
    "Softmax of rank 4": [STEM, node("Softmax", axis=1)],
    "the batch included": [STEM, node("ReduceMean", axes=[0, 1], keepdims=1)],
    "with sizes of 0": [STEM, node("Reshape", "rows of the batch", allowzero=1)],
    "moves the batch": [STEM, node("Transpose", perm=[1, 0, 2, 3])],
    "Squeeze of all axes": [STEM, node("GlobalAveragePool"), node("Squeeze")],
    "Pad in mode reflect": [STEM, node("Pad", "border", mode="reflect")],
    "Elu with alpha 0.5": [STEM, node("Elu", alpha=0.5)],
    "LRN over 2 channels": [STEM, node("LRN", size=2)],
    "Flatten at axis 2": [STEM, node("Flatten", axis=2)],
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_would_be_computed_otherwise_is_refused(why, tmp_path):
    tf = pytest.importorskip("tensorflow")
    model = load_model(net(tmp_path / "net.onnx", REFUSED[why]))
    with pytest.raises(Unsupported, match=why):
        function_of(tf, model)(tf.constant(onnx_nets.images(5)))


def test_nodes_come_back_from_names_of_scopes():
    nodes = ["/conv", "/relu", "/fc"]
    assert nodes_of_name("onnx1/Relu;onnx0/Conv2D;onnx0/bias", nodes) == ("/conv", "/relu")
    assert nodes_of_name("onnx2_1/MatMul", nodes) == ("/fc",)
    assert nodes_of_name("StatefulPartitionedCall:0", nodes) == ()
    assert nodes_of_name("onnx7/Odd", nodes) == ()
