"""Caffe's nets become ONNX files with the outputs that Caffe gives; what cannot be taken is one line."""

import itertools
import re
from pathlib import Path

import caffe_files as caffe
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from harness.errors import DataError
from harness.models.importers import ImportRequest
from harness.models.importers.caffe import convert
from harness.models.importers.caffe.layers import CONVERTERS
from harness.models.importers.caffe.prototxt import parse_text
from harness.models.onnx_graph import check_model

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"


def random(*shape):
    return np.random.default_rng(shape).standard_normal(shape).astype("f4")


def converted(folder, prototxt, weights, **request):
    """Return the ONNX file of a net, checked in full."""
    (folder / "net.prototxt").write_text(prototxt)
    (folder / "net.caffemodel").write_bytes(weights if isinstance(weights, bytes) else caffe.caffemodel(weights))
    sources = (str(folder / "net.prototxt"), str(folder / "net.caffemodel"), *request.pop("more", ()))
    convert(ImportRequest(sources=sources, target=folder / "net.onnx", **request))
    check_model(folder / "net.onnx")
    return folder / "net.onnx"


def run(path, x):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[0] == "N"
    outputs = session.run(None, {session.get_inputs()[0].name: x})
    assert len(outputs) == 1
    assert [*outputs[0].shape[1:]] == session.get_outputs()[0].shape[1:], "the declared shape is the real one"
    return outputs[0]


def net(layers, shape):
    sizes = " ".join(f"dim: {size}" for size in shape)
    return f'name: "net" layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ {sizes} }} }} }}\n{layers}'


def one(kind, parameters="", **more):
    bottoms = more.get("bottoms", ["x"])
    read = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
    return f'layer {{ name: "it" type: "{kind}" {read} top: "y" {parameters} }}'


UNUSED = {"unused": [np.ones(1)]}  # a caffemodel holds the weights of some layer
X = random(2, 4, 7, 6)
FLAT = random(2, 12)
V = X.astype("f8")


def case(name, layers, expected, *, weights=None, x=X, tolerance=2e-6):
    return pytest.param(layers, expected, weights or UNUSED, x, tolerance, id=name)


W34 = random(6, 4, 3, 2)
B6 = random(6)
GROUPED = random(6, 2, 3, 3)
UP = random(4, 3, 4, 4)
UP_GROUPED = random(4, 2, 3, 3)
LAYERS = [
    case(
        "convolution",
        one(
            "Convolution", "convolution_param { num_output: 6 kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 pad: 1 }"
        ),
        caffe.convolve(X, W34, B6, stride=(2, 1), pad=(1, 1)),
        weights={"it": [W34, B6]},
    ),
    case(
        "convolution without bias, in groups, dilated",
        one(
            "Convolution",
            "convolution_param { num_output: 6 kernel_size: 3 group: 2 dilation: 2 bias_term: false pad: 2 }",
        ),
        caffe.convolve(X, GROUPED, np.zeros(6), dilation=(2, 2), group=2, pad=(2, 2)),
        weights={"it": [GROUPED]},
    ),
    case(
        "convolution with two values each",
        one("Convolution", "convolution_param { num_output: 6 kernel_size: 3 kernel_size: 2 pad: [1, 0] }"),
        caffe.convolve(X, W34, B6, pad=(1, 0)),
        weights={"it": [W34, B6]},
    ),
    case(
        "deconvolution",
        one("Deconvolution", "convolution_param { num_output: 3 kernel_size: 4 stride: 2 pad: 1 }"),
        caffe.deconvolve(X, UP, random(3), stride=(2, 2), pad=(1, 1)),
        weights={"it": [UP, random(3)]},
    ),
    case(
        "deconvolution in groups",
        one("Deconvolution", "convolution_param { num_output: 4 kernel_size: 3 group: 2 bias_term: false }"),
        caffe.deconvolve(X, UP_GROUPED, np.zeros(4), stride=(1, 1), pad=(0, 0), group=2),
        weights={"it": [UP_GROUPED]},
    ),
    case(
        "inner product",
        one("InnerProduct", "inner_product_param { num_output: 5 }"),
        V.reshape(2, -1) @ random(5, 168).T + random(5),
        weights={"it": [random(5, 168), random(5)]},
        tolerance=2e-5,
    ),
    case(
        "inner product, transposed, without bias",
        one("InnerProduct", "inner_product_param { num_output: 5 transpose: true bias_term: false }"),
        V.reshape(2, -1) @ random(168, 5),
        weights={"it": [random(168, 5)]},
        tolerance=2e-5,
    ),
    case(
        "inner product of the last axis",
        one("InnerProduct", "inner_product_param { num_output: 5 axis: -1 }"),
        V @ random(5, 6).T + random(5),
        weights={"it": [random(5, 6), random(5)]},
        tolerance=5e-6,
    ),
    case("relu", one("ReLU"), np.maximum(X, 0)),
    case("leaky relu", one("ReLU", "relu_param { negative_slope: 0.1 }"), np.where(X > 0, X, np.float32(0.1) * X)),
    case(
        "prelu",
        one("PReLU"),
        np.where(X > 0, X, X * random(4).reshape(1, 4, 1, 1)),
        weights={"it": [random(4)]},
    ),
    case(
        "prelu of one slope",
        one("PReLU", "prelu_param { channel_shared: true }"),
        np.where(X > 0, X, X * np.float32(0.3)),
        weights={"it": [np.float32([0.3])]},
    ),
    case("elu", one("ELU", "elu_param { alpha: 0.5 }"), np.where(V > 0, V, 0.5 * (np.exp(V) - 1))),
    case("sigmoid", one("Sigmoid"), 1 / (1 + np.exp(-V))),
    case("tanh", one("TanH"), np.tanh(V)),
    case("absval", one("AbsVal"), np.abs(X)),
    case("power", one("Power", "power_param { power: 2 scale: 0.5 shift: 1 }"), (1 + 0.5 * V) ** 2),
    case("power that does nothing", one("Power"), X),
    case("softmax", one("Softmax"), caffe.softmax(V)),
    case("softmax of another axis", one("Softmax", "softmax_param { axis: -1 }"), caffe.softmax(V, 3)),
    case(
        "lrn",
        one("LRN", "lrn_param { local_size: 3 alpha: 0.7 beta: 0.6 k: 2 }"),
        caffe.lrn(X, size=3, alpha=0.7, beta=0.6, k=2),
    ),
    case(
        "batch norm",
        one("BatchNorm", "batch_norm_param { eps: 0.001 use_global_stats: true }"),
        (V - random(4).reshape(1, 4, 1, 1) / 2) / np.sqrt(random(4).reshape(1, 4, 1, 1) ** 2 / 2 + 0.001),
        weights={"it": [random(4), random(4) ** 2, np.float32([2.0])]},
        tolerance=2e-5,
    ),
    case(
        "scale with shift",
        one("Scale", "scale_param { bias_term: true }"),
        V * random(4).reshape(1, 4, 1, 1) + random(4).reshape(1, 4, 1, 1) ** 2,
        weights={"it": [random(4), random(4) ** 2]},
    ),
    case(
        "scale of two axes",
        one("Scale", "scale_param { axis: 1 num_axes: 2 }"),
        V * random(4, 7).reshape(1, 4, 7, 1),
        weights={"it": [random(4, 7)]},
    ),
    case("concat", one("Concat", bottoms=["x", "x"]), np.concatenate([X, X], 1)),
    case(
        "concat by the old name",
        one("Concat", "concat_param { concat_dim: 2 }", bottoms=["x", "x"]),
        np.concatenate([X, X], 2),
    ),
    case("eltwise sum", one("Eltwise", bottoms=["x", "x", "x"]), X + X + X),
    case(
        "eltwise with coefficients",
        one("Eltwise", "eltwise_param { operation: SUM coeff: 1 coeff: -0.5 }", bottoms=["x", "x"]),
        X - np.float32(0.5) * X,
    ),
    case("eltwise product", one("Eltwise", "eltwise_param { operation: PROD }", bottoms=["x", "x"]), X * X),
    case("eltwise max", one("Eltwise", "eltwise_param { operation: 2 }", bottoms=["x", "x"]), X),
    case("flatten", one("Flatten"), X.reshape(2, -1)),
    case("flatten some axes", one("Flatten", "flatten_param { axis: 2 }"), X.reshape(2, 4, -1)),
    case("reshape", one("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 6 } }"), X.reshape(2, -1, 6)),
    case(
        "reshape of the batch that is declared",
        one("Reshape", "reshape_param { shape { dim: 2 dim: 8 dim: 21 } }"),
        X.reshape(2, 8, 21),
    ),
    case(
        "reshape of some axes",
        one("Reshape", "reshape_param { shape { dim: 14 dim: 2 } axis: 1 num_axes: 2 }"),
        X.reshape(2, 14, 2, 6),
    ),
    case("reshape to two axes", one("Reshape", "reshape_param { shape { dim: -1 dim: 168 } }"), X.reshape(2, 168)),
    case("dropout", one("Dropout", "dropout_param { dropout_ratio: 0.5 }"), X),
    case("split", one("Split") + 'layer { name: "two" type: "ReLU" bottom: "y" top: "z" }', np.maximum(X, 0)),
    case("global maximum", one("Pooling", "pooling_param { global_pooling: true }"), X.max((2, 3), keepdims=True)),
    case(
        "global average",
        one("Pooling", "pooling_param { pool: AVE global_pooling: true }"),
        V.mean((2, 3), keepdims=True),
    ),
]


@pytest.mark.parametrize(("layers", "expected", "weights", "x", "tolerance"), LAYERS)
def test_a_layer_gives_what_caffe_gives(tmp_path, layers, expected, weights, x, tolerance):
    path = converted(tmp_path, net(layers, x.shape), weights)
    found = run(path, x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(run(path, x[:1]), expected[:1], rtol=tolerance, atol=tolerance)  # the batch is free


def test_every_type_of_layer_is_among_the_cases():
    tried = {kind for param in LAYERS for kind in re.findall(r'type: "(\w+)"', param.values[0])}
    assert tried | {"Pooling"} == set(CONVERTERS)


@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_pooling_rounds_up_and_counts_as_caffe_does(tmp_path, method):
    """Every size, kernel, stride and padding that Caffe takes, small enough to try all."""
    tried = 0
    for size, kernel, stride, pad in itertools.product((4, 5, 7), (1, 2, 3, 4), (1, 2, 3, 5), (0, 1, 2)):
        n_windows = -(-(size + 1 + 2 * pad - kernel) // stride) + 1
        if pad >= kernel or (not pad and (n_windows - 1) * stride >= size):
            continue  # Caffe refuses it, or reads past the image
        x = random(1, 2, size, size + 1)
        parameters = f"pool: {method} kernel_size: {kernel} stride: {stride} pad: {pad}"
        path = converted(tmp_path, net(one("Pooling", f"pooling_param {{ {parameters} }}"), x.shape), UNUSED)
        expected = caffe.pool(x, kernel=(kernel,) * 2, stride=(stride,) * 2, pad=(pad,) * 2, method=method)
        np.testing.assert_allclose(run(path, x), expected, rtol=2e-6, atol=2e-6, err_msg=parameters)
        tried += 1
    assert tried > 80


# -- whole nets


def lenet_weights():
    """The weights of the bundled lenet5 under Caffe's names."""
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(ROOT / "models" / "lenet5.onnx").graph.initializer}
    numbers = {"conv1": 0, "conv2": 2, "ip1": 5, "ip2": 7}
    return {name: [tensors[f"{k}.weight"], tensors[f"{k}.bias"]] for name, k in numbers.items()}


def as_v1(prototxt):
    """The same net in the old layer format, with the old way to declare an input."""
    body = prototxt.split("\n", 3)[3]
    kinds = {"Convolution": "CONVOLUTION", "Pooling": "POOLING", "InnerProduct": "INNER_PRODUCT", "ReLU": "RELU"}
    for new, old in {**kinds, "Softmax": "SOFTMAX"}.items():
        body = body.replace(f'type: "{new}"', f"type: {old}")
    body = re.sub(r"^layer ", "layers ", body, flags=re.MULTILINE).replace("param { lr_mult: 1 }", "blobs_lr: 1")
    return f'input: "data" input_dim: 64 input_dim: 1 input_dim: 28 input_dim: 28\n{body}'


@pytest.mark.parametrize("form", ["new", "V1", "double"])
def test_lenet_gives_the_bundled_models_outputs_bit_for_bit(tmp_path, form):
    text = as_v1(caffe.LENET) if form == "V1" else caffe.LENET
    path = converted(tmp_path, text, caffe.caffemodel(lenet_weights(), v1=form == "V1", double=form == "double"))
    images = np.random.default_rng(5).random((50, 1, 28, 28), np.float32)
    assert (run(path, images) == run(ROOT / "models" / "lenet5.onnx", images)).all()
    names = [name for node in onnx.load(path).graph.node for name in node.output]
    assert names == ["conv1", "pool1", "conv2", "pool2", "ip1/flatten", "ip1/ip1", "ip1", "ip2", "prob"]


TRAINING = """
name: "both phases"
layer { name: "mnist" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.1 } data_param { source: "train_lmdb" batch_size: 64 backend: LMDB } }
layer { name: "mnist" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.00390625 mean_value: 128 } data_param { source: "test_lmdb" batch_size: 100 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip" exclude { phase: TEST } }
layer { name: "debug" type: "Exp" bottom: "ip" top: "e" include { phase: TEST stage: "debugging" } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def test_a_training_net_is_read_as_it_is_tested(tmp_path):
    weights = {"ip": [random(3, 16), random(3)]}
    path = converted(tmp_path, TRAINING, weights, input_shape=(1, 4, 4))
    sources = (str(tmp_path / "net.prototxt"), str(tmp_path / "net.caffemodel"))
    said = convert(ImportRequest(sources=sources, target=path, input_shape=(1, 4, 4)))
    assert (said.scale, said.mean, said.title) == (1 / 256, (0.5,), "both phases")
    x = random(2, 1, 4, 4)
    expected = caffe.softmax(x.reshape(2, 16) @ weights["ip"][0].T + weights["ip"][1])
    np.testing.assert_allclose(run(path, x), expected, rtol=1e-5, atol=1e-6)


def test_layers_in_place_and_a_last_dropout_keep_the_blobs_names(tmp_path):
    layers = (
        'layer { name: "r" type: "ReLU" bottom: "x" top: "x" } layer { name: "t" type: "TanH" bottom: "x" top: "x" }'
        'layer { name: "d" type: "Dropout" bottom: "x" top: "out" }'
    )
    path = converted(tmp_path, net(layers, (2, 12)), UNUSED)
    np.testing.assert_allclose(run(path, FLAT), np.tanh(np.maximum(FLAT, 0)), rtol=1e-6)
    assert onnx.load(path).graph.output[0].name == "out"
    path = converted(tmp_path, net('layer { name: "r" type: "ReLU" bottom: "x" top: "x" }', (2, 12)), UNUSED)
    np.testing.assert_array_equal(run(path, FLAT), np.maximum(FLAT, 0))


def test_one_of_several_outputs_is_chosen(tmp_path):
    layers = (
        'layer { name: "a" type: "ReLU" bottom: "x" top: "a" } layer { name: "b" type: "TanH" bottom: "x" top: "b" }'
    )
    with pytest.raises(DataError, match=r"has 2 outputs \(a, b\); choose one with --output-name"):
        converted(tmp_path, net(layers, (2, 12)), UNUSED)
    path = converted(tmp_path, net(layers, (2, 12)), UNUSED, output_name="b")
    np.testing.assert_allclose(run(path, FLAT), np.tanh(FLAT), rtol=1e-6)
    with pytest.raises(DataError, match="no layer writes c; outputs are: a, b"):
        converted(tmp_path, net(layers, (2, 12)), UNUSED, output_name="c")


def test_a_mean_image_is_subtracted(tmp_path):
    mean = random(4, 7, 6)
    (tmp_path / "mean.binaryproto").write_bytes(caffe.blob(mean[None], legacy=True))
    more = (str(tmp_path / "mean.binaryproto"),)
    path = converted(tmp_path, net(one("ReLU"), X.shape), UNUSED, more=more)
    np.testing.assert_allclose(run(path, X), np.maximum(X - mean, 0), rtol=1e-6)
    (tmp_path / "mean.binaryproto").write_bytes(caffe.blob(mean[None, :, 1:]))
    with pytest.raises(DataError, match=r"the mean image is \(4, 6, 6\), input x is \(4, 7, 6\)"):
        converted(tmp_path, net(one("ReLU"), X.shape), UNUSED, more=more)


# -- what cannot be taken: one line that names file, layer and remedy

GOOD = net(one("InnerProduct", "inner_product_param { num_output: 5 }"), (2, 12))
GOOD_WEIGHTS = caffe.caffemodel({"it": [random(5, 12), random(5)]})
REFUSED = {
    "an unknown layer": (
        net(one("Exp"), X.shape),
        "layer it is of type Exp, which is not supported; there are: AbsVal",
    ),
    "an unknown parameter": (
        net(one("Pooling", "pooling_param { kernel_size: 2 ceil_mode: false }"), X.shape),
        "layer it: pooling_param: ceil_mode is not supported",
    ),
    "random pooling": (net(one("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 }"), X.shape), "at random"),
    "LRN within a channel": (net(one("LRN", "lrn_param { norm_region: WITHIN_CHANNEL }"), X.shape), "WITHIN_CHANNEL"),
    "a batch's own statistics": (
        net(one("BatchNorm", "batch_norm_param { use_global_stats: false }"), X.shape),
        "depends on its batch",
    ),
    "images mixed by a reshape": (
        net(one("Reshape", "reshape_param { shape { dim: 4 dim: -1 } }"), X.shape),
        "mixes the images",
    ),
    "sizes that do not agree": (
        net(one("Reshape", "reshape_param { shape { dim: 0 dim: 5 } }"), X.shape),
        "do not agree",
    ),
    "a blob of no layer": (net(one("ReLU", bottoms=["z"]), X.shape), "reads z, which no layer before it writes"),
    "no bottom": (net(one("ReLU", bottoms=[]), X.shape), "has no bottom"),
    "no weights": (net(one("PReLU"), X.shape).replace('"it"', '"other"'), "has 0 blobs in the caffemodel, expected 1"),
    "weights of another size": (
        net(one("InnerProduct", "inner_product_param { num_output: 6 }"), (2, 12)),
        r"has weights of shape \(5, 12\) in the caffemodel; its prototxt asks for \(6, 12\)",
    ),
    "a parameter of another type": (
        net(one("InnerProduct", 'inner_product_param { num_output: "many" }'), (2, 12)),
        "num_output is 'many'; expected a whole number",
    ),
    "a missing parameter": (
        net(one("Convolution", "convolution_param { num_output: 2 }"), X.shape),
        "kernel_size is missing",
    ),
    "a window beyond the image": (
        net(one("Convolution", "convolution_param { num_output: 4 kernel_size: 9 }"), X.shape),
        "has weights of shape|larger than its image",
    ),
    "two inputs": ('input: "a" input: "b" ' + net(one("ReLU"), X.shape), r"has 3 inputs in phase TEST \(a, b, x\)"),
    "no shape": (f'input: "x" {one("ReLU")}', "input x has no shape; give --input-shape"),
    "a solver": ('net: "lenet.prototxt" base_lr: 0.01', "describes how a net is trained"),
    "another text": ("hello: 1", "hello is no field of a net"),
    "an empty text": ("", r"has 0 inputs in phase TEST \(none\)"),
    "both formats": (f'{GOOD} layers {{ name: "a" type: RELU }}', "mixes the formats"),
    "the format of 2013": ('layers { layer { name: "a" type: "relu" } }', "upgrade_net_proto_text"),
    "an open brace": (GOOD.rstrip("} "), "found the end of the file, expected a field's name or }"),
    "a stray brace": (GOOD + "}", "found }, expected a field's name or the end of the file"),
    "an open quote": ('name: "net', "cannot be read"),
    "no value": ("name: }", "found }, expected a value"),
    "a window past the image": (
        net(one("Pooling", "pooling_param { kernel_size: 1 stride: 5 }"), (1, 1, 4, 4)),
        "one window would lie outside",
    ),
    "nesting without end": ("a {" * 5000, "deep; this is no net"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_net_that_cannot_be_taken_is_one_line(tmp_path, what):
    text, expected = REFUSED[what]
    with pytest.raises(DataError, match=expected) as refused:
        converted(tmp_path, text, GOOD_WEIGHTS)
    assert str(refused.value).startswith(str(tmp_path / "net.prototxt"))
    assert "\n" not in str(refused.value)


def test_a_caffemodel_cut_anywhere_is_refused_or_lacks_a_layer(tmp_path):
    for length in range(0, len(GOOD_WEIGHTS), 7):
        with pytest.raises(DataError, match=r"net\.caffemodel|net\.prototxt:.*caffemodel") as refused:
            converted(tmp_path, GOOD, GOOD_WEIGHTS[:length])
        assert "\n" not in str(refused.value)
    assert converted(tmp_path, GOOD, GOOD_WEIGHTS).is_file()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x89HDF\r\n\x1a\n" + b"0" * 100, "is a snapshot in HDF5"),
        (b"PK\x03\x04" + b"1" * 100, "is no file of Caffe's, or a truncated one"),
        (caffe.field(100, caffe.field(1, b"it") + caffe.field(7, caffe.field(7, b"\x0a\x01\x05"))), "holds 0 values"),
        (caffe.caffemodel({"it": [np.float32([[np.nan] * 12] * 5)]}), "layer it: a weight is NaN or infinite"),
    ],
)
def test_a_file_that_is_no_caffemodel_is_one_line(tmp_path, content, expected):
    with pytest.raises(DataError, match=expected):
        converted(tmp_path, GOOD, content)


def test_files_in_the_wrong_order_are_told(tmp_path):
    converted(tmp_path, GOOD, GOOD_WEIGHTS)
    sources = (str(tmp_path / "net.caffemodel"), str(tmp_path / "net.prototxt"))
    with pytest.raises(DataError, match=r"net\.caffemodel"):
        convert(ImportRequest(sources=sources, target=tmp_path / "net.onnx"))
    with pytest.raises(DataError, match=r"1 files given; expected NET\.prototxt WEIGHTS\.caffemodel"):
        convert(ImportRequest(sources=sources[:1], target=tmp_path / "net.onnx"))


def test_text_format_is_read_as_protobuf_reads_it():
    text = """# a comment
    a: 1, b: -2.5e-1; c { d: "x\\"y" 'z' } c < e: [1, 2] > f: true g: WORD h: .5f"""
    message = parse_text(text, "p")
    assert {name: message[name] for name in "abfgh"} == {
        "a": (1,),
        "b": (-0.25,),
        "f": (True,),
        "g": ("WORD",),
        "h": (0.5,),
    }
    assert [dict(part) for part in message["c"]] == [{"d": ('x"yz',)}, {"e": (1, 2)}]
