"""Shares of layers per precision, and the names that optimizers give nodes."""

import pytest

from harness.precision.effective import effective_precision, is_multiplying, median_times, onnx_nodes_of
from harness.records import Layer
from harness.specs import Precision


def layer(kind, precision, time_ns=None, *, is_compute=True):
    return Layer(name=kind, kind=kind, precision=precision, time_ns=time_ns, is_compute=is_compute)


def test_shares_are_of_multiplying_layers():
    layers = (
        layer("QLinearConv", "int8", 30.0),
        layer("Gemm", "fp32", 10.0),
        layer("Softmax", "fp32", 500.0),
        layer("Transpose", "int8", 500.0, is_compute=False),
    )
    found = effective_precision(layers, Precision.INT8)
    assert found.by_layer == {"fp32": 0.5, "int8": 0.5}
    assert found.by_time == {"fp32": 0.25, "int8": 0.75}
    assert found.main == "int8"
    assert found.note == "requested int8; of the compute layers ran 50% in fp32; beside them: Softmax fp32"


def test_a_model_without_products_is_judged_by_all_compute_layers():
    found = effective_precision((layer("MaxPool", "fp16"), layer("Softmax", "fp32")), "fp16")
    assert found.by_layer == {"fp16": 0.5, "fp32": 0.5}
    assert found.by_time is None


def test_time_shares_need_every_time():
    found = effective_precision((layer("Conv", "fp32", 1.0), layer("Conv", "fp32")), "fp32")
    assert found.by_time is None
    assert effective_precision((layer("Conv", "fp32", 0.0),), "fp32").by_time is None


def test_as_asked_needs_no_note():
    assert effective_precision((layer("Conv", "fp32", 1.0), layer("Softmax", "fp32", 1.0)), "fp32").note == ""


def test_fp16_that_ran_in_fp32_says_so():
    note = effective_precision((layer("Conv", "fp32"),), Precision.FP16, note="hint reads back f32").note
    assert note.startswith("hint reads back f32; requested fp16; of the compute layers ran 100% in fp32")
    assert "weights are rounded to fp16" in note


def test_bf16_that_ran_in_fp32_says_so():
    """The weights are rounded where a file was cast; FP32's own file keeps them."""
    found = effective_precision((layer("Conv", "fp32"),), Precision.BF16)
    assert found.note == ("requested bf16; of the compute layers ran 100% in fp32; its weights are rounded to bf16")
    assert "rounded" not in effective_precision((layer("Conv", "fp32"),), "bf16", has_cast_weights=False).note
    assert effective_precision((layer("Conv", "bf16"),), "bf16").note == ""


def test_tf32_is_not_fp32():
    found = effective_precision((layer("Convolution", "tf32"),), Precision.FP32)
    assert found.by_layer == {"tf32": 1.0}
    assert "100% in tf32" in found.note


def test_unknown_precision_and_no_layers_are_said():
    assert effective_precision((layer("Conv", ""),), "fp32").by_layer == {"unknown": 1.0}
    nothing = effective_precision((), "fp32")
    assert (nothing.by_layer, nothing.main) == ({}, "unknown")
    assert nothing.note == "no layer was read back"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("Conv", True),
        ("QLinearConv", True),
        ("Convolution", True),
        ("CaskConvolution", True),
        ("FusedGemm", True),
        ("FullyConnected", True),
        ("MatrixMultiply", True),
        ("MatMulInteger", True),
        ("Convert", False),
        ("Conversion", False),
        ("Reformat", False),
        ("MaxPool", False),
    ],
)
def test_multiplying_kinds(kind, expected):
    assert is_multiplying(kind) is expected


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("/ip1/Gemm", ("/ip1/Gemm",)),
        ("fused /ip1/Gemm", ("/ip1/Gemm",)),
        ("c1_nchwc", ("/conv1/Conv",)),
        ("/conv1/Conv_token_17", ("/conv1/Conv",)),
        ("fused c1_nchwc_token_3", ("/conv1/Conv",)),
        ("c1_quant", ("/conv1/Conv",)),
        ("Transpose_token_4", ()),
        ("", ()),
    ],
)
def test_names_lead_back_to_nodes(name, nodes):
    known = {"/ip1/Gemm": "/ip1/Gemm", "g1": "/ip1/Gemm", "/conv1/Conv": "/conv1/Conv", "c1": "/conv1/Conv"}
    assert onnx_nodes_of(name, known) == nodes


def test_times_are_medians_over_runs():
    assert median_times([{"a": 1.0, "b": 5.0}, {"a": 9.0}, {"a": 2.0}]) == {"a": 2.0, "b": 5.0}
