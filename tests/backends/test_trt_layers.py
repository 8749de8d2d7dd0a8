import json

import pytest

from harness.backends.trt.layers import layers_from_inspector
from harness.errors import MeasurementError
from harness.precision.effective import effective_precision


def tensor(**words):
    return {"Name": "x", "Location": "Device", "Dimensions": [1, 20, 24, 24], **words}


# What the inspector of 8.6 writes, shortened: raw control characters, Format/Datatype, "N/A due to dynamic shapes".
OLD = {
    "Layers": [
        {
            "Name": "Reformatting CopyNode for Input Tensor 0 to conv1",
            "LayerType": "Reformat",
            "Inputs": [tensor(**{"Format/Datatype": "Row major linear FP32"})],
            "Outputs": [tensor(**{"Format/Datatype": "Channel major INT8 format where channel % 4 == 0"})],
            "ParameterType": "Reformat",
            "TacticName": "",
        },
        {
            "Name": "conv1 + relu1",
            "LayerType": "CaskConvolution",
            "Inputs": [tensor(**{"Format/Datatype": "N/A due to dynamic shapes"})],
            "Outputs": [tensor(**{"Format/Datatype": "N/A due to dynamic shapes"})],
            "ParameterType": "Convolution",
            "Weights": {"Type": "Int8", "Count": 500},
            "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs_vect_c_32",
            "Metadata": "[ONNX Layer: /conv1/Conv]\x1e[ONNX Layer: /relu1/Relu]",
        },
        {
            "Name": "fc1",
            "LayerType": "CaskGemmMatrixMultiply",
            "Inputs": [tensor(**{"Format/Datatype": "N/A due to dynamic shapes"})],
            "Outputs": [],
            "ParameterType": "MatrixMultiply",
            "TacticName": "sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize32x32x64_stage6",
        },
        {
            "Name": "softmax",
            "LayerType": "SoftMaxV2",
            "Inputs": [tensor(**{"Format/Datatype": "Row major linear FP32"})],
            "Outputs": [],
            "ParameterType": "SoftMaxV2",
            "TacticName": "",
        },
    ],
    "Bindings": ["data", "prob"],
}
# 11.x: Datatype of its own, bindings as objects.
NEW = {
    "Layers": [
        {
            "Name": "conv1",
            "LayerType": "kgen",
            "Inputs": [tensor(Format="Row major linear", Datatype="Half")],
            "Outputs": [tensor(Format="Row major linear", Datatype="Float")],
            "TacticName": "__myl_Conv_0x1234",
        },
        {"Name": "quantize", "LayerType": "Quantize", "Inputs": [tensor(Format="Row major linear", Datatype="Float")]},
        {"Name": "shape", "LayerType": "NoOp", "Inputs": [], "Outputs": []},
    ],
    "I/O Tensors": [{"Name": "data"}, {"Name": "prob"}],
}


def raw(found):
    """As 8.6 writes it: control characters unescaped."""
    return json.dumps(found).replace("\\u001e", "\x1e")


def test_layers_of_8_6():
    layers = layers_from_inspector(raw(OLD), times_ns={"conv1 + relu1": 5000.0})
    assert [layer.kind for layer in layers] == ["Reformat", "Convolution", "MatrixMultiply", "SoftMaxV2"]
    assert [layer.precision for layer in layers] == ["fp32", "int8", "fp16", "fp32"]
    assert [layer.is_compute for layer in layers] == [False, True, True, True]
    assert layers[1].onnx_nodes == ("/conv1/Conv", "/relu1/Relu")
    assert [layer.time_ns for layer in layers] == [None, 5000.0, None, None]
    assert effective_precision(layers, "int8").by_layer == {"fp16": 0.5, "int8": 0.5}


def test_layers_of_11():
    layers = layers_from_inspector(raw(NEW))
    assert [layer.precision for layer in layers] == ["fp16", "fp32", ""]
    assert [layer.is_compute for layer in layers] == [True, False, False]


@pytest.mark.parametrize(
    ("kernel", "precision"),
    [
        ("sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize64x32x64", "tf32"),
        ("sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nchwkcrs_nchw", "fp32"),
        ("sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc", "fp16"),
        ("sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "bf16"),
        ("sm80_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64", "bf16"),
        ("ampere_bf16_s16816gemm_bf16_128x64_ldg8_relu_f2f_stages_64x3_tn", "bf16"),
        ("sm90_xmma_gemm_e4m3e4m3_f32f32_f32_tn_n", "fp8"),
        ("ampere_scudnn_128x64_relu_interior_nn_v1", "fp32"),
        ("ampere_h16816cudnn_128x64_ldg8_relu_exp_interior_nhwc_tn_v1", "fp16"),
        ("turing_int8_i8816cudnn_int8_256x64_ldg16_relu_medium_nt_v1", "int8"),
        ("ampere_sgemm_32x32_sliced1x4_tn", "fp32"),
        ("CaskConvForward", ""),
    ],
)
def test_the_kernels_name_decides(kernel, precision):
    (layer,) = layers_from_inspector(json.dumps({"Layers": [{"Name": "a", "TacticName": kernel}]}))
    assert layer.precision == precision


@pytest.mark.parametrize(
    ("weights", "precision"), [("Int8", "int8"), ("Half", "fp16"), ("BFloat16", "bf16"), ("Float", "fp32")]
)
def test_else_the_type_of_its_weights(weights, precision):
    entry = {"Name": "a", "Weights": {"Type": weights}, "Inputs": [tensor(Datatype="BFloat16")]}
    (layer,) = layers_from_inspector(json.dumps({"Layers": [entry]}))
    assert layer.precision == precision


@pytest.mark.parametrize(
    "typed",
    [
        {"Datatype": "BFloat16", "Format": "Row major linear"},
        {"Format/Datatype": "Row major linear BFloat16 format"},
        {"Format/Datatype": "Row major linear BF16"},
    ],
)
def test_else_the_type_of_its_first_tensor(typed):
    entry = {"Name": "a", "TacticName": "__myl_Conv_0x1234", "Inputs": [tensor(**typed)]}
    (layer,) = layers_from_inspector(json.dumps({"Layers": [entry]}))
    assert layer.precision == "bf16"


def test_layers_of_one_profile():
    names = ["a", "b", "a [profile 1]", "b [profile 1]"]
    text = json.dumps({"Layers": [{"Name": name} for name in names]})
    assert [layer.name for layer in layers_from_inspector(text, profile=1)] == names[2:]
    assert [layer.name for layer in layers_from_inspector(text, profile=0)] == names[:2]
    once = json.dumps({"Layers": [{"Name": "a"}]})  # from 10 on, whatever the number of profiles
    assert [layer.name for layer in layers_from_inspector(once, profile=1)] == ["a"]


def test_names_alone_are_layers_too():
    (layer,) = layers_from_inspector(json.dumps({"Layers": ["conv1"], "Bindings": []}))
    assert (layer.name, layer.kind, layer.precision) == ("conv1", "", "")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Layers": 3}', "not JSON"])
def test_other_text_is_refused(text):
    with pytest.raises(MeasurementError, match="inspector"):
        layers_from_inspector(text)
