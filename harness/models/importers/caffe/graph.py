"""An ONNX graph while it is built from Caffe's layers: values by blob, shapes, weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.models.importers.caffe.net import IDENTITIES, Layer, Net
from harness.models.importers.caffe.weights import Blob

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

OPSET, IR_VERSION = 17, 8  # every runtime in use reads these
BATCH_AXIS = "N"

Shape = tuple[int, ...]  # the batch first, as the prototxt declares it; it is free in the ONNX file


@dataclass(slots=True)
class Graph:
    """Nodes and weights so far. A blob that layers change in place has one value for each of them.

    The last of them bears the blob's own name, as in TensorRT's and OpenCV's readers: a calibration table of the net
    then names the same tensors.
    """

    writers: dict[str, str]  # blob -> the last layer that writes it
    values: dict[str, str] = field(default_factory=dict)  # blob -> name of its newest value
    shapes: dict[str, Shape] = field(default_factory=dict)  # value -> shape
    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    read: set[str] = field(default_factory=set)  # values that a layer has read

    @classmethod
    def of(cls, net: Net, shape: Shape) -> Graph:
        """Return the graph that holds only the net's input."""
        writers = {top: layer.name for layer in net.layers if layer.type not in IDENTITIES for top in layer.tops}
        writers.pop(net.input.name, None)  # its name is the input's, whatever is written in place
        graph = cls(writers)
        graph.values[net.input.name], graph.shapes[net.input.name] = net.input.name, shape
        return graph

    def add_node(self, op: str, inputs: Sequence[str], output: str, shape: Shape, name: str, **attributes: Any) -> str:
        """Add a node of one output and return the name of its value."""
        from onnx import helper

        self.nodes.append(helper.make_node(op, list(inputs), [output], name=name, **attributes))
        self.shapes[output] = shape
        return output

    def add_weight(self, name: str, array: NDArray[np.generic]) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def model(self, net: Net, output: str) -> ModelProto:
        """Return the model whose only output is a blob."""
        import onnx

        value = self.values[output]
        if output == net.input.name:  # written in place
            output = value
        elif value != output:  # a Dropout made it
            value = self.add_node("Identity", [value], output, self.shapes[value], f"{output}/identity")
        float32 = onnx.TensorProto.FLOAT
        image = onnx.helper.make_tensor_value_info(
            net.input.name, float32, [BATCH_AXIS, *self.shapes[net.input.name][1:]]
        )
        scores = onnx.helper.make_tensor_value_info(output, float32, [BATCH_AXIS, *self.shapes[value][1:]])
        graph = onnx.helper.make_graph(self.nodes, net.name, [image], [scores], self.weights)
        model: ModelProto = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="caffe"
        )
        return model


@dataclass(frozen=True, slots=True)
class Site:
    """One layer in its graph: what it reads, its weights, and where its result goes."""

    layer: Layer
    graph: Graph
    blobs: tuple[Blob, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the names of the values that the layer reads."""
        for bottom in self.layer.bottoms:
            if bottom not in self.graph.values:
                raise self.error(f"reads {bottom}, which no layer before it writes")
        if not self.layer.bottoms:
            raise self.error("has no bottom; expected what it reads")
        return tuple(self.graph.values[bottom] for bottom in self.layer.bottoms)

    @property
    def shape(self) -> Shape:
        """Return the shape of what the layer reads first."""
        return self.graph.shapes[self.inputs[0]]

    @property
    def images(self) -> Shape:
        """Return the shape of what the layer reads, N x C x H x W. Raises: DataError for another rank."""
        if len(self.shape) != 4:
            raise self.error(f"reads a blob of {len(self.shape)} dimensions; expected N x C x H x W")
        return self.shape

    def axis(self, given: int, *, last: int | None = None) -> int:
        """Return an axis counted from the front. Raises: DataError when there is none."""
        rank = len(self.shape) if last is None else last
        if not -rank <= given < rank:
            raise self.error(f"names axis {given} of a blob of {len(self.shape)} dimensions")
        return given % rank

    def blob(self, index: int, shape: Shape) -> Blob:
        """Return one of the layer's weights. Raises: DataError when it is missing or of another size."""
        if index >= len(self.blobs):
            raise self.error(f"has {len(self.blobs)} blobs in the caffemodel, expected {index + 1} or more")
        blob = self.blobs[index]
        if blob.size != math.prod(shape):
            raise self.error(f"has weights of shape {blob.shape} in the caffemodel; its prototxt asks for {shape}")
        return blob.reshape(shape)

    def weight(self, what: str, array: NDArray[np.generic]) -> str:
        """Add a constant of this layer and return its name."""
        return self.graph.add_weight(f"{self.layer.name}.{what}", array)

    def step(self, op: str, inputs: Sequence[str], shape: Shape, what: str, **attributes: Any) -> str:
        """Add a node before the layer's last and return its value."""
        name = f"{self.layer.name}/{what}"
        return self.graph.add_node(op, inputs, name, shape, name, **attributes)

    def emit(self, op: str, inputs: Sequence[str], shape: Shape, **attributes: Any) -> None:
        """Add the node that makes the layer's first top."""
        top = self.layer.tops[0]
        output = top if self.graph.writers.get(top) == self.layer.name else f"{top}/{self.layer.name}"
        self.graph.read.update(self.inputs)
        self.graph.values[top] = self.graph.add_node(op, inputs, output, shape, self.layer.name, **attributes)

    def alias(self) -> None:
        """Let every top be what the layer reads."""
        value = self.inputs[0]
        for top in self.layer.tops:
            self.graph.values[top] = value

    def error(self, what: str) -> DataError:
        """Return an error that names the layer and its line."""
        return DataError(f"{self.layer.message.where}: layer {self.layer.name} ({self.layer.type}) {what}")
