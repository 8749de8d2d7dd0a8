"""Classifiers with odd shapes: rank-3 images, axes of size 1 behind the classes, a batch baked into the graph."""

import numpy as np
import onnx
import onnx_nets
import onnxruntime
import pytest
from onnx import helper

from harness.errors import DataError
from harness.models import inspect_onnx
from harness.models.preprocess import images_from_pixels
from harness.precision import prepare_artifact
from harness.specs import Precision

WEIGHT = np.random.default_rng(3).standard_normal((64, 10)).astype(np.float32)


def flat_net(path, *, shape=(-1, 64), image=("N", 8, 8), by="initializer", out=("N", 10)):
    """Write Reshape, MatMul, Softmax."""
    weights, nodes = {"w": WEIGHT}, []
    if by == "initializer":
        weights["shape"] = np.array(shape, np.int64)
    else:
        nodes.append(helper.make_node("Constant", [], ["shape"], value_ints=list(shape)))
    nodes += [
        helper.make_node("Reshape", ["image", "shape"], ["f"], name="/flatten/Reshape"),
        helper.make_node("MatMul", ["f", "w"], ["z"], name="fc"),
        helper.make_node("Softmax", ["z"], ["probabilities"], axis=1),
    ]
    return onnx_nets.save_net(path, nodes, weights, inputs=(("image", image),), outputs=(("probabilities", out),))


def column_net(path, out=("N", 4, 1, 1)):
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], name="conv"),
        helper.make_node("GlobalAveragePool", ["c"], ["probabilities"], name="pool"),
    ]
    weights = {"w": np.random.default_rng(4).standard_normal((4, 1, 3, 3)).astype(np.float32)}
    return onnx_nets.save_net(path, nodes, weights, outputs=(("probabilities", out),))


def outputs_of(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


def test_images_without_a_channel_axis_are_read(tmp_path):
    spec = inspect_onnx(flat_net(tmp_path / "keras.onnx"))
    assert (spec.input_shape, spec.layout, spec.num_classes, spec.max_batch) == ((8, 8), "NCHW", 10, None)
    assert spec.tensors is None
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    images = images_from_pixels(pixels, spec)
    assert images.shape == (5, 8, 8)
    np.testing.assert_allclose(images, pixels / 255, rtol=1e-6)


@pytest.mark.parametrize("out", [("N", 4, 1, 1), ("N", "classes", "h", "w")])
def test_axes_of_size_1_behind_the_classes_are_left_out_of_the_prepared_file(tmp_path, out):
    path = column_net(tmp_path / "squeeze.onnx", out)
    spec = inspect_onnx(path)
    assert (spec.num_classes, spec.tensors) == (4, None)
    images = onnx_nets.images(3)
    for precision, recipe in ((Precision.FP32, "none"), (Precision.FP16, "cast"), (Precision.INT8, "qdq-minmax")):
        calibration = onnx_nets.ArraySet(onnx_nets.images(20)) if precision is Precision.INT8 else None
        artifact = prepare_artifact(spec, precision, recipe, calibration=calibration, cache_dir=str(tmp_path / "cache"))
        found = outputs_of(artifact.onnx_path, images)
        assert found.shape == (3, 4)
        np.testing.assert_allclose(found, outputs_of(path, images)[:, :, 0, 0], atol=0.05)
    assert artifact.source_sha256 == spec.sha256


def test_an_output_with_larger_axes_is_no_classifier(tmp_path):
    nodes = [helper.make_node("Relu", ["image"], ["probabilities"])]
    path = onnx_nets.save_net(tmp_path / "map.onnx", nodes, {}, outputs=(("probabilities", ("N", 1, 8, 8)),))
    assert inspect_onnx(path).tensors is not None


@pytest.mark.parametrize("by", ["initializer", "constant"])
@pytest.mark.parametrize("image", [("N", 8, 8), ("N", 1, 8, 8)])
@pytest.mark.parametrize("shape", [(1, 64), (1, -1)])
def test_a_baked_batch_is_found_and_said(tmp_path, shape, image, by):
    path = flat_net(tmp_path / "baked.onnx", shape=shape, image=image, by=by)
    spec = inspect_onnx(path)
    assert (spec.max_batch, spec.baked_by) == (1, "Reshape /flatten/Reshape")
    for precision, recipe in ((Precision.FP32, "none"), (Precision.FP16, "cast"), (Precision.INT8, "qdq-minmax")):
        calibration = onnx_nets.ArraySet(onnx_nets.images(20).reshape(20, *image[1:]))
        artifact = prepare_artifact(spec, precision, recipe, calibration=calibration, cache_dir=str(tmp_path / "cache"))
        assert artifact.exported["batch"] == "1, baked in (Reshape /flatten/Reshape)"


def test_a_card_that_leaves_a_baked_batch_free_is_refused(tmp_path):
    spec = onnx_nets.spec_of(flat_net(tmp_path / "baked.onnx", shape=(1, 64), image=("N", 1, 8, 8)))
    with pytest.raises(DataError, match=r"batch 1 is baked in \(Reshape /flatten/Reshape\).*max_batch = 1"):
        prepare_artifact(spec, Precision.FP32, "none", calibration=None, cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("shape", [(-1, 64), (0, -1), (0, 64)])
def test_a_free_batch_stays_free(tmp_path, shape):
    spec = inspect_onnx(flat_net(tmp_path / "free.onnx", shape=shape))
    assert (spec.max_batch, spec.baked_by) == (None, "")


def test_a_declared_batch_is_not_called_baked(tmp_path):
    spec = inspect_onnx(flat_net(tmp_path / "one.onnx", shape=(1, 64), image=(1, 8, 8), out=(1, 10)))
    assert (spec.max_batch, spec.baked_by) == (1, "")


def test_no_bundled_model_has_a_baked_batch():
    from pathlib import Path

    from harness.models.output_shapes import baked_batch

    for path in sorted((Path(__file__).parents[2] / "models").glob("*.onnx")):
        model = onnx.load(path)
        assert baked_batch(model, model.graph.input[0].name, model.graph.output[0].name, path=path) is None
