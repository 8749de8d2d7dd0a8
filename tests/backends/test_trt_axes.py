"""Names of free axes in a file that TensorRT reads."""

import pytest

from harness.backends.trt.axes import with_names_apart
from harness.specs import ModelInput, ModelOutput, ModelTensors

onnx = pytest.importorskip("onnx")


def model_of(**inputs):
    helper = onnx.helper
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    nodes = [helper.make_node("Relu", [name], [f"{name}_y"]) for name in inputs]
    outputs = [helper.make_tensor_value_info(f"{name}_y", onnx.TensorProto.FLOAT, None) for name in inputs]
    return helper.make_model(helper.make_graph(nodes, "g", values, outputs)).SerializeToString()


def tensors_of(**shapes):
    inputs = tuple(
        ModelInput(name=name, dtype="float32", shape=shape, batch_axis=0, free_axes=(0, 1, 2))
        for name, shape in shapes.items()
    )
    return ModelTensors(inputs=inputs, outputs=(ModelOutput(name="x_y"),))


def axes_of(data):
    graph = onnx.load_model_from_string(data).graph
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in graph.input
    }


def test_names_of_one_size_are_kept():
    data = model_of(x=("n", "t", 4), z=("n", "t", 4))
    assert with_names_apart(data, tensors_of(x=(1, 7, 4), z=(1, 7, 4))) == data


def test_axes_of_one_input_get_names_of_their_own():
    data = with_names_apart(model_of(x=("?", 3, "?")), tensors_of(x=(1, 3, 8)))
    assert axes_of(data) == {"x": ["x.0", 3, "x.2"]}


def test_axes_of_two_inputs_that_differ_get_names_of_their_own():
    data = with_names_apart(model_of(x=("n", "t", 4), z=("n", "t", 4)), tensors_of(x=(1, 7, 4), z=(1, 9, 4)))
    assert axes_of(data) == {"x": ["n", "x.1", 4], "z": ["n", "z.1", 4]}


def test_what_is_no_onnx_is_left_to_the_parser():
    assert with_names_apart(b"no model", tensors_of(x=(1, 3, 8))) == b"no model"
