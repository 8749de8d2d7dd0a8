"""What is read from an ONNX file, and the files that are refused."""

import numpy as np
import pytest

from harness.errors import ConfigError, DataError
from harness.models import check_onnx_file, heavy, inspect_onnx
from harness.models.inspection import why_no_classifier

onnx = pytest.importorskip("onnx", reason="reading ONNX files needs onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLOAT = TensorProto.FLOAT


def classifier(
    shape=("N", 1, 4, 4), *, out=("N", 10), element=FLOAT, inputs=("image",), outputs=("scores",), last="Softmax"
):
    """Build Flatten -> Gemm -> `last` with a weight that fits 16 pixels and ten classes."""
    weight = numpy_helper.from_array(np.ones((16, 10), np.float32), "weight")
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight"], ["gemm"]),
        helper.make_node(last, ["gemm"], ["scores"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, element, shape) for name in inputs],
        [helper.make_tensor_value_info(name, FLOAT, out) for name in outputs],
        [weight],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture
def write(tmp_path):
    def write_model(model, name="my-net v2.onnx"):
        path = tmp_path / name
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return path

    return write_model


def refused(path, **overrides):
    with pytest.raises(DataError) as error:
        inspect_onnx(path, **overrides)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_classifier_is_read(write):
    path = write(classifier())
    spec = inspect_onnx(path)
    assert spec.name == "my_net_v2"
    assert (spec.input_name, spec.input_shape, spec.layout, spec.max_batch) == ("image", (1, 4, 4), "NCHW", None)
    assert (spec.output_name, spec.num_classes, spec.output_kind) == ("scores", 10, "probabilities")
    assert spec.onnx_path == str(path.resolve())
    assert len(spec.sha256) == 64


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((None, 4, 4, 1), "NHWC"), ((None, 1, 4, 4), "NCHW"), ((None, 16), "flat"), ((None, 16, 1, 1), "NHWC")],
)
def test_the_layout_is_guessed(write, shape, layout):
    assert inspect_onnx(write(classifier(shape))).layout == layout


def test_a_fixed_batch_is_the_largest(write):
    assert inspect_onnx(write(classifier((4, 1, 4, 4), out=(4, 10)))).max_batch == 4


@pytest.mark.parametrize(("last", "kind"), [("Softmax", "probabilities"), ("Relu", "logits"), ("Identity", "logits")])
def test_the_kind_of_output_is_the_last_node_s(write, last, kind):
    assert inspect_onnx(write(classifier(last=last))).output_kind == kind


def test_weights_listed_as_inputs_do_not_count(write):
    model = classifier()
    model.graph.input.append(helper.make_tensor_value_info("weight", FLOAT, (16, 10)))
    assert inspect_onnx(write(model)).input_name == "image"


def test_the_number_of_classes_is_inferred(write):
    model = classifier(out=("N", "K"))
    assert inspect_onnx(write(model)).num_classes == 10


def test_overrides(write):
    spec = inspect_onnx(write(classifier()), scale=1.0, num_classes=10.0, label_offset=-1.0, mean=(0.5,), name="other")
    assert (spec.scale, spec.num_classes, spec.label_offset, spec.mean, spec.name) == (1.0, 10, -1, (0.5,), "other")
    with pytest.raises(ConfigError, match="colour cannot be given"):
        inspect_onnx(write(classifier()), colour="red")


def test_missing_empty_and_a_folder(tmp_path, write):
    assert "no such model file" in refused(tmp_path / "absent.onnx")
    assert "is empty" in refused(write(b""))
    assert "cannot be read" in refused(tmp_path)


def test_truncated_and_random_files(write):
    whole = classifier().SerializeToString()
    for size in (1, 20, len(whole) // 2, len(whole) - 1):
        message = refused(write(whole[:size]))
        assert "truncated" in message or "no valid ONNX model" in message
    for seed in range(20):
        refused(write(np.random.default_rng(seed).bytes(300)))
    refused(write(b"<html>not found</html>"))


def test_an_invalid_graph_is_refused(write):
    model = classifier()
    model.graph.node[1].input[0] = "nowhere"
    assert "no valid ONNX model" in refused(write(model))


def external(model, location, *, offset=0, length=640):
    (weight,) = model.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        weight.external_data.add(key=key, value=value)
    return model


def test_external_data(tmp_path, write):
    path = write(external(classifier(), "weights.bin"))
    assert "weights.bin is missing" in refused(path)
    (tmp_path / "weights.bin").write_bytes(bytes(639))
    assert "has 639 bytes, weight needs 640" in refused(path)
    (tmp_path / "weights.bin").write_bytes(bytes(640))
    assert inspect_onnx(path).num_classes == 10


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/passwd", ""])
def test_external_data_outside_the_folder(tmp_path, write, location):
    (tmp_path / "sub").mkdir()
    (tmp_path / "outside.bin").write_bytes(bytes(640))
    assert "outside the model's folder" in refused(write(external(classifier(), location), "sub/net.onnx"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (classifier(inputs=("image", "mask")), "has 2 inputs (image, mask); expected one"),
        (classifier(outputs=("scores", "gemm")), "has 2 outputs (scores, gemm); expected one"),
        (classifier(("N", 1, 2, 2, 4)), "rank 5 (? x 1 x 2 x 2 x 4); expected N x C x H x W"),
        (classifier(("N", 1, "H", "W")), "only the batch may be free"),
        (classifier(element=TensorProto.UINT8), "input image is uint8; expected float32"),
        (classifier(element=TensorProto.FLOAT16), "input image is float16; expected float32"),
        (classifier(out=("N", 10, 2)), "output scores is ? x 10 x 2; expected N x classes"),
    ],
)
def test_what_is_no_single_input_classifier_says_why(write, model, message):
    path = write(model)
    assert message in why_no_classifier(check_onnx_file(path), path)


def test_a_graph_that_is_no_classifier_is_run_and_says_why_it_is_not_scored(write):
    spec = inspect_onnx(write(classifier(inputs=("image", "mask"))))
    assert [one.name for one in spec.tensors.inputs] == ["image", "mask"]
    assert spec.unscored == "has 2 inputs (image, mask); expected one, the images"
    assert inspect_onnx(write(classifier())).unscored == ""


def test_no_outputs_and_no_inputs(write):
    model = classifier()
    del model.graph.output[:]
    assert "and 0 outputs" in refused(write(model)) or "no valid ONNX model" in refused(write(model))
    model = classifier()
    del model.graph.input[:]
    message = refused(write(model))
    assert "has 0 inputs" in message or "no valid ONNX model" in message


def test_an_unknown_output_shape_needs_the_classes(write):
    model = classifier(out=("N", "K"))
    model.graph.node[3].op_type, model.graph.node[3].domain = "Mystery", "my.ops"
    model.opset_import.append(helper.make_opsetid("my.ops", 1))
    path = write(model)
    assert "give --num-classes" in refused(path)
    assert inspect_onnx(path, num_classes=12).num_classes == 12


def test_the_bundled_files_agree_with_their_cards(bundled):
    for name in ("lenet5", "lenet5_hard", "mlp", "mobilenet_digits"):
        card, seen = bundled(name), inspect_onnx(bundled(name).onnx_path)
        for field in ("sha256", "input_name", "input_shape", "output_name", "num_classes", "layout", "output_kind"):
            assert getattr(seen, field) == getattr(card, field), (name, field)
        model = check_onnx_file(card.onnx_path)
        assert (model.ir_version, model.opset_import[0].version) == (8, 17)
        assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)


def test_the_heavy_model_is_written_once_and_again_when_damaged(tmp_path, monkeypatch):
    # The same code with a sixteenth of the layers: the file of 178 MB would take seconds.
    monkeypatch.setattr(heavy, "STAGES", ((8, 1), (8, 2)))
    spec = heavy.resnet101_112(tmp_path)
    assert (spec.input_shape, spec.num_classes, spec.timing_only) == ((3, 112, 112), 1000, True)
    path = tmp_path / "resnet101_112.onnx"
    first = path.read_bytes()
    made_at = path.stat().st_mtime_ns
    assert heavy.resnet101_112(tmp_path) == spec
    assert path.stat().st_mtime_ns == made_at
    path.write_bytes(first[:-1])
    assert heavy.resnet101_112(tmp_path) == spec
    assert path.read_bytes() == first
    assert inspect_onnx(path).num_classes == 1000


def test_the_heavy_model_s_own_path_makes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(heavy, "STAGES", ((8, 1),))
    assert inspect_onnx(heavy.heavy_model_path()).timing_only


def test_the_heavy_model_stays_finite(tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime", reason="running it needs onnxruntime")
    monkeypatch.setattr(heavy, "STAGES", ((16, 3), (16, 4), (16, 23), (16, 3)))  # as deep, not as wide
    model = onnx.load(heavy.resnet101_112(tmp_path).onnx_path)
    model.graph.output.extend(
        helper.make_tensor_value_info(node.output[0], FLOAT, None)
        for node in model.graph.node
        if node.op_type in ("Conv", "Add")
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((1, 3, 112, 112), dtype=np.float32)
    values = session.run(None, {"image": images})
    assert max(np.abs(value).max() for value in values) < 1000  # far below fp16's 65504
    assert min(value.std() for value in values) > 0.01  # and nothing dies away


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(heavy, "STAGES", ((8, 1),))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        heavy.resnet101_112(tmp_path / "file")
