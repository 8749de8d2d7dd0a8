"""What goes into any graph and comes out of it: as the file says, and as it is asked for."""

import numpy as np
import onnx
import onnx.parser
import pytest
from graph_nets import graph_spec, write_net

from harness.errors import DataError, MeasurementError
from harness.models.feeds import prepared_sample, seeded_feeds, seeded_sample, stacked
from harness.models.inspection import inspect_onnx
from harness.models.tensors import foreign_operators
from harness.options.inputs import shape_of_text
from harness.protocols import Sample
from harness.specs import RAW_TASK


def test_a_graph_says_its_inputs(tmp_path):
    spec = graph_spec(write_net(tmp_path, "text"), shapes=(("ids", (1, 7)), ("mask", (1, 7))))
    assert [(one.name, one.dtype, one.shape, one.batch_axis) for one in spec.tensors.inputs] == [
        ("ids", "int64", (1, 7), 0),
        ("mask", "int64", (1, 7), 0),
    ]
    assert (spec.task, spec.timing_only, spec.tensors.output_names) == (RAW_TASK, True, ("scores",))
    assert spec.tensors.inputs[0].high == 4  # rows of the table that it looks into
    assert spec.tensors.shapes(3) == {"ids": (3, 7), "mask": (3, 7)}


def test_bytes_that_lie_as_pictures_do_are_whole_pixels(tmp_path):
    text = "agraph (uint8[N, 3, 8, 8] x, uint8[N, 4] flags) => (uint8[N, 3, 8, 8] y, uint8[N, 4] z) "
    text += "{ y = Identity(x) z = Identity(flags) }"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    onnx.save(model, tmp_path / "bytes.onnx")
    spec = graph_spec(tmp_path / "bytes.onnx")
    assert spec.scale == 1.0  # else each pixel would be a fraction, which the input cannot hold
    assert [one.high for one in spec.tensors.inputs] == [255, 1]


def test_a_state_has_its_batch_axis_where_its_name_stands(tmp_path):
    spec = graph_spec(write_net(tmp_path, "stateful"), states=(("state", "next"),))
    assert {one.name: (one.shape, one.batch_axis) for one in spec.tensors.inputs} == {
        "frame": ((1, 4), 0),
        "state": ((2, 1, 4), 1),
        "rate": ((), None),  # so a run takes one sample
    }
    assert not spec.tensors.is_stackable
    assert spec.tensors.has_state


def test_an_axis_that_is_no_batch_is_run_whole(tmp_path):
    spec = graph_spec(write_net(tmp_path, "stateful"), shapes=(("frame", (3, 4)), ("state", (2, 3, 4))))
    assert spec.tensors.shapes(8) == {"frame": (3, 4), "state": (2, 3, 4), "rate": ()}
    assert {one.batch_axis for one in (*spec.tensors.inputs, *spec.tensors.outputs)} == {None}
    assert seeded_feeds(spec.tensors, 1)["state"].shape == (2, 3, 4)


def test_an_output_follows_its_inputs_axis_whatever_it_is_called(tmp_path):
    spec = graph_spec(write_net(tmp_path, "sized"), shapes=(("x", (1, 1, 5, 6)),))
    assert [one.batch_axis for one in spec.tensors.outputs] == [0]
    assert spec.tensors.is_stackable


def test_shapes_that_hold_a_batch_are_timed_at_it(tmp_path):
    path = write_net(tmp_path, "sized")
    assert graph_spec(path, shapes=(("x", (4, 1, 5, 6)),)).tensors.timed_batches((1, 100)) == (4,)
    assert graph_spec(path, shapes=(("x", (1, 1, 5, 6)),)).tensors.timed_batches((1, 100)) == (1, 100)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, r"x \(n x 1 x h x w\) has sizes that the file leaves open; say them, for example --shapes=x:1x1x224x224"),
        ({"shapes": (("y", (1,)),)}, r"no input 'y', which --shapes names; its inputs: x"),
        ({"shapes": (("x", (1, 2, 5, 6)),)}, "the shape 1x2x5x6 does not fit"),
        ({"shapes": (("x", (1, 1, 5)),)}, "the shape 1x1x5 does not fit"),
        ({"shapes": (("x", (1, 1, 5, 6)),), "states": (("x", "z"),)}, r"no output 'z' for the state x"),
        ({"shapes": (("x", (1, 1, 5, 6)),), "ranges": (("q", (0.0, 1.0)),)}, "which --input-range names"),
    ],
)
def test_what_does_not_fit_is_told_with_what_to_say(tmp_path, asked, told):
    with pytest.raises(DataError, match=told):
        graph_spec(write_net(tmp_path, "sized"), **asked)


FREE = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, 3, height, width] image, int64[batch, length] ids, int64[batch, length] mask, float[batch, 4] box)
  => (float[batch, 4] y)
{ y = Identity (box) }
"""


def test_all_open_sizes_are_told_at_once_in_a_line_that_can_be_pasted(tmp_path):
    path = write_net(tmp_path, "free", FREE)
    with pytest.raises(DataError) as told:
        graph_spec(path, shapes=(("ids", (1, 9)),))
    assert "image (batch x 3 x height x width), mask (batch x length)" in str(told.value)
    assert "box" not in str(told.value)
    pasted = str(told.value).rpartition("--shapes=")[2].split(",")
    assert dict(map(shape_of_text, pasted)) == {"image": (1, 3, 224, 224), "mask": (1, 9)}  # `length` is known by now
    tensors = graph_spec(path, shapes=(("ids", (1, 9)), *map(shape_of_text, pasted))).tensors
    assert [one.shape for one in tensors.inputs] == [(1, 3, 224, 224), (1, 9), (1, 9), (1, 4)]


def test_the_example_of_a_picture_knows_where_its_channels_are(tmp_path):
    text = FREE.replace("batch, 3, height, width", "batch, height, width, 3").replace("image", "picture")
    with pytest.raises(DataError, match="picture:1x224x224x3,ids:1x128,mask:1x128"):
        graph_spec(write_net(tmp_path, "last", text))


def test_the_example_takes_the_first_free_axis_for_that_of_samples(tmp_path):
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[?, ?] x, float[2, ?, 128] h, int64 rate) => (float[?, ?] y) { y = Identity (x) }
    """
    with pytest.raises(DataError, match="for example --shapes=x:1x128,h:2x1x128"):
        graph_spec(write_net(tmp_path, "voice", text))


def test_a_state_of_another_type_than_its_output_is_refused(tmp_path):
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 4] x, float[1, 4] state) => (float[1, 4] y, float16[1, 4] next)
    { y = Add (x, state) next = Cast <to = 10> (y) }
    """
    path = write_net(tmp_path, "halves", text)
    with pytest.raises(DataError, match=r"output next is float16 1 x 4; state state, which .* is float32 1 x 4"):
        graph_spec(path, states=(("state", "next"),))
    assert graph_spec(path, states=(("state", "y"),)).tensors.has_state


def test_inputs_that_are_no_numbers_are_refused_by_name(tmp_path):
    text = '<ir_version: 8, opset_import: ["" : 17]> g (string[1] s) => (string[1] t) { t = Identity (s) }'
    with pytest.raises(DataError, match="s is string"):
        graph_spec(write_net(tmp_path, "words", text))


def test_a_classifier_is_one_where_it_is_scored(tmp_path):
    head = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 2] x) => (float[N, 2] y) '
    path = write_net(tmp_path, "mlp", head + "<float[2, 2] w = {1, 2, 3, 4}> { y = MatMul (x, w) }")
    assert inspect_onnx(path, is_scored=True).tensors is None
    assert inspect_onnx(path, is_scored=False).tensors is not None


def test_operators_of_foreign_domains_are_named(tmp_path):
    text = (
        '<ir_version: 8, opset_import: ["" : 17, "my.ops" : 1]> g (float[1] x) => (float[1] y) { y = my.ops.Twice (x) }'
    )
    assert foreign_operators(onnx.parser.parse_model(text)) == {"my.ops": "Twice (y)"}


# -- feeds


def test_a_seeded_sample_is_the_same_in_every_batch(tmp_path):
    tensors = graph_spec(write_net(tmp_path, "text"), shapes=(("ids", (1, 7)), ("mask", (1, 7)))).tensors
    three = seeded_feeds(tensors, 3)
    assert {name: (array.shape, array.dtype.name) for name, array in three.items()} == {
        "ids": ((3, 7), "int64"),
        "mask": ((3, 7), "int64"),
    }
    for index in range(3):
        for name, array in seeded_sample(tensors, index).items():
            np.testing.assert_array_equal(three[name][index], array)
    assert three["ids"].min() >= 0
    assert three["ids"].max() <= 4
    assert (three["ids"][0] != three["ids"][1]).any()


def test_a_range_is_kept_and_a_state_is_zero(tmp_path):
    tensors = graph_spec(
        write_net(tmp_path, "stateful"),
        states=(("state", "next"),),
        ranges=(("rate", (5.0, 5.0)), ("frame", (-2.0, -1.0))),
    ).tensors
    sample = seeded_sample(tensors, 0)
    assert sample["rate"] == 5
    assert sample["rate"].shape == ()
    assert not sample["state"].any()
    assert (sample["frame"] >= -2).all()
    assert (sample["frame"] <= -1).all()


def test_samples_that_take_a_run_each_are_not_stacked(tmp_path):
    tensors = graph_spec(write_net(tmp_path, "stateful")).tensors
    with pytest.raises(MeasurementError, match="2 samples in one run; this model takes one"):
        stacked(tensors, [seeded_sample(tensors, index) for index in range(2)])


def test_a_sample_is_cast_where_the_type_holds_it(tmp_path):
    spec = graph_spec(write_net(tmp_path, "text"), shapes=(("ids", (1, 3)), ("mask", (1, 3))))
    sample = Sample(id="a", inputs={"ids": np.array([[1, 2, 3]], np.int32), "mask": np.ones(3, np.uint8)})
    prepared = prepared_sample(sample, spec, spec.tensors).inputs
    assert {name: (array.shape, array.dtype.name) for name, array in prepared.items()} == {
        "ids": ((3,), "int64"),
        "mask": ((3,), "int64"),
    }
    with pytest.raises(DataError, match="sample a: input ids is float64; int64 does not hold its values"):
        prepared_sample(Sample(id="a", inputs={**sample.inputs, "ids": np.array([0.5, 1, 2])}), spec, spec.tensors)


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"ids": np.ones(3, np.int64)}, "holds no mask, which text takes"),
        ({"ids": np.ones(3, np.int64), "mask": np.ones(3, np.int64), "x": np.ones(1)}, "x is no input of text"),
        ({"ids": np.ones((2, 3), np.int64), "mask": np.ones(3, np.int64)}, r"ids has shape \[2, 3\]"),
    ],
)
def test_a_sample_that_does_not_fit_is_named(tmp_path, inputs, told):
    spec = graph_spec(write_net(tmp_path, "text"), shapes=(("ids", (1, 3)), ("mask", (1, 3))))
    with pytest.raises(DataError, match=told):
        prepared_sample(Sample(id="a", inputs=inputs), spec, spec.tensors)


def test_pixels_are_prepared_for_an_input_that_is_called_image_too(tmp_path):
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 1, 8, 6] image) => (float[n, 1, 8, 6] y) { y = Relu (image) }
    """
    spec = graph_spec(write_net(tmp_path, "picture", text))
    pixels = np.full((8, 6, 1), 51, np.uint8)
    prepared = prepared_sample(Sample(id="a", inputs={"image": pixels}), spec, spec.tensors).inputs["image"]
    assert prepared.shape == (1, 8, 6)
    assert np.allclose(prepared, 0.2)
    ready = np.full((1, 8, 6), 0.5, np.float32)
    assert prepared_sample(Sample(id="a", inputs={"image": ready}), spec, spec.tensors).inputs["image"].max() == 0.5


def test_an_output_of_another_size_feeds_no_state(tmp_path):
    path = tmp_path / "state.onnx"
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 6] h) => (float[1, 2] y) <float[6, 2] w = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}> { y = MatMul(h, w) }"""
    onnx.save(onnx.parser.parse_model(text), path)
    with pytest.raises(DataError, match="output y is float32 1 x 2; state h, which it would feed, is float32 1 x 6"):
        graph_spec(path, states=(("h", "y"),))
