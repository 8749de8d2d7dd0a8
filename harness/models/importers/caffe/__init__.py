"""Caffe: a net (prototxt) and its weights (caffemodel), read without Caffe. Both layer formats.

Outputs are those of Caffe's phase TEST. The batch becomes free. A layer type, or a parameter of one, that is not known
here is refused by name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.errors import DataError
from harness.models.importers._importer import Imported, Importer, ImportRequest
from harness.models.importers.caffe.graph import Graph, Shape, Site
from harness.models.importers.caffe.layers import CONVERTERS
from harness.models.importers.caffe.net import Net, read_net
from harness.models.importers.caffe.weights import Blob, read_mean, read_weights

N_CHANNELS_OF_COLOUR = 3
DEFAULT_BATCH = 1  # of a data layer that declares no shape


def convert(request: ImportRequest) -> Imported:
    """Write the ONNX file of a net. Raises: DataError for a file or a layer that cannot be taken."""
    import onnx

    if len(request.sources) not in (2, 3):
        raise DataError(f"{len(request.sources)} files given; expected {TAKES}")
    prototxt, caffemodel = Path(request.sources[0]), Path(request.sources[1])
    net, weights = read_net(prototxt), read_weights(caffemodel)
    shape = _input_shape(net, request.input_shape)
    graph = Graph.of(net, shape)
    scale, mean = _preprocessing(net)
    if len(request.sources) > 2:
        if mean is not None:
            raise DataError(f"{request.sources[2]}: {prototxt} has mean values too; Caffe takes one of both")
        _subtract_mean(graph, net, read_mean(Path(request.sources[2])), 1.0 if scale is None else scale)
    for layer in net.layers:
        if layer.type not in CONVERTERS:
            raise DataError(
                f"{layer.message.where}: layer {layer.name} is of type {layer.type}, which is not supported; "
                f"there are: {', '.join(sorted(CONVERTERS))}"
            )
        CONVERTERS[layer.type](Site(layer, graph, weights.get(layer.name, ())))
    onnx.save(graph.model(net, _output(net, graph, request.output_name)), str(request.target))
    warnings = (
        ("Caffe's data layers store colours as B, G, R: check the order of the data set's channels",)
        if shape[1] == N_CHANNELS_OF_COLOUR
        else ()
    )
    return Imported(title=net.name, tools="Caffe reader of this harness", scale=scale, mean=mean, warnings=warnings)


def _input_shape(net: Net, given: tuple[int, ...]) -> Shape:
    """Return the input's shape, the batch first: the declared one, or else the given one."""
    declared = net.input.shape
    if not (declared or given):
        raise DataError(f"{net.path}: input {net.input.name} has no shape; give --input-shape, as 1,28,28")
    if declared and given and declared[1:] != given:
        raise DataError(f"{net.path}: input {net.input.name} is {declared[1:]}; --input-shape says {given}")
    shape = declared or (DEFAULT_BATCH, *given)
    if len(shape) not in (2, 4) or min(shape) < 1:
        raise DataError(f"{net.path}: input {net.input.name} is {shape}; expected N x C x H x W or N x K")
    return shape


def _preprocessing(net: Net) -> tuple[float | None, tuple[float, ...] | None]:
    """Return scale and mean as a card has them: Caffe subtracts the mean before it scales."""
    fields = net.input.preprocessing
    if fields is None:
        return None, None
    scale = fields.number("scale", 1.0)
    means = fields.numbers("mean_value")
    return scale, tuple(value * scale for value in means) if means else None


def _subtract_mean(graph: Graph, net: Net, image: Blob, scale: float) -> None:
    shape = graph.shapes[net.input.name]
    if image.shape != shape[1:]:
        raise DataError(f"{net.path}: the mean image is {image.shape}, input {net.input.name} is {shape[1:]}")
    mean = graph.add_weight(f"{net.input.name}.mean", image * np.float32(scale))
    value = graph.add_node("Sub", [net.input.name, mean], f"{net.input.name}/centred", shape, "mean")
    graph.values[net.input.name] = value


def _output(net: Net, graph: Graph, asked: str) -> str:
    """Return the blob to score: the asked one, or the only one that no layer reads."""
    made = list(dict.fromkeys(top for layer in net.layers for top in layer.tops))
    # Dropout and Split give one value several names: the last one stands for it.
    ends = list({graph.values[blob]: blob for blob in made if graph.values[blob] not in graph.read}.values())
    if asked and asked not in made:
        raise DataError(f"{net.path}: no layer writes {asked}; outputs are: {', '.join(ends)}")
    if not asked and len(ends) != 1:
        raise DataError(f"{net.path}: has {len(ends)} outputs ({', '.join(ends)}); choose one with --output-name")
    return asked or ends[0]


TAKES = "NET.prototxt WEIGHTS.caffemodel [MEAN.binaryproto]"
IMPORTER = Importer(
    name="caffe",
    summary="a net and its weights, both layer formats, read without Caffe",
    takes=TAKES,
    convert=convert,
    required_modules=("onnx",),
    install_hint="pip install 'nn-engine-harness[cpu]'",
)
