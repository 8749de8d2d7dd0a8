"""A prototxt's layers as Caffe runs them when it infers: phase TEST, both layer formats, no labels and no losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DataError
from harness.models.importers.caffe.fields import Fields
from harness.models.importers.caffe.prototxt import Message, parse_text

# Source of names: BVLC/caffe, src/caffe/proto/caffe.proto, V1LayerParameter.LayerType, and upgrade_proto.cpp.
V1_TYPES = {
    "ABSVAL": "AbsVal",
    "LRN": "LRN",
    "MVN": "MVN",
    "BNLL": "BNLL",
    "RELU": "ReLU",
    "TANH": "TanH",
    "HDF5_DATA": "HDF5Data",
    "ARGMAX": "ArgMax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
}
DATA_TYPES = (
    "Input",
    "Data",
    "ImageData",
    "HDF5Data",
    "MemoryData",
    "DummyData",
    "WindowData",
)
# What has no output to score; a loss that applies a function first is that function below.
DROPPED_TYPES = (
    "Accuracy",
    "Silence",
    "EuclideanLoss",
    "HingeLoss",
    "InfogainLoss",
    "ContrastiveLoss",
    "MultinomialLogisticLoss",
)
LOSS_FUNCTIONS = {"SoftmaxWithLoss": "Softmax", "SigmoidCrossEntropyLoss": "Sigmoid"}
IDENTITIES = ("Dropout", "Split")
NET_FIELDS = ("name", "input", "input_dim", "input_shape", "layer", "layers", "force_backward", "state", "debug_info")
SOLVER_FIELDS = ("net", "train_net", "base_lr", "lr_policy", "solver_mode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer that runs."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    message: Message

    def fields(self, parameter: str, *known: str) -> Fields:
        """Return its parameters of one kind, such as convolution_param. Raises: DataError for an unknown one."""
        given = [value for value in self.message.get(parameter, ()) if isinstance(value, Message)]
        return Fields.of(given, f"{self.message.where}: layer {self.name}: {parameter}", known)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetInput:
    """The images that a net takes; `shape` has the batch first and is () where the prototxt does not tell it."""

    name: str
    shape: tuple[int, ...] = ()
    preprocessing: Fields | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A net in the order in which Caffe runs it."""

    name: str
    input: NetInput
    layers: tuple[Layer, ...]
    path: Path


def read_net(path: Path) -> Net:
    """Return the net of a prototxt. Raises: DataError for what Caffe would not run either, or several inputs."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text; give the prototxt first, then the caffemodel") from error
    message = parse_text(text, str(path))
    unknown = [name for name in message if name not in NET_FIELDS]
    if any(name in SOLVER_FIELDS for name in unknown):
        raise DataError(f"{path}: describes how a net is trained; give the net's own prototxt")
    if unknown:
        raise DataError(f"{path}: {unknown[0]} is no field of a net; expected a Caffe prototxt")
    layers = tuple(_layers(message, path))
    fields = Fields.of((message,), str(path), NET_FIELDS)
    inputs = [*_declared_inputs(fields), *(_data_input(layer) for layer in layers if layer.type in DATA_TYPES)]
    if len(inputs) != 1:
        names = ", ".join(entry.name for entry in inputs) or "none"
        raise DataError(f"{path}: the net has {len(inputs)} inputs in phase TEST ({names}); expected one, the images")
    kept = tuple(layer for layer in layers if layer.type not in (*DATA_TYPES, *DROPPED_TYPES))
    if not kept:
        raise DataError(f"{path}: no layer is left in phase TEST; expected a net")
    return Net(name=fields.text("name", path.stem), input=inputs[0], layers=kept, path=path)


def _layers(message: Message, path: Path) -> Iterator[Layer]:
    old, new = message.get("layers", ()), message.get("layer", ())
    if old and new:
        raise DataError(f"{path}: mixes the formats `layers` and `layer`; Caffe reads one of them")
    for found in (*old, *new):
        if not isinstance(found, Message):
            raise DataError(f"{path}: a layer is {found!r}; expected a message in braces")
        if old and "layer" in found:
            raise DataError(f"{path}: a layer format of 2013; convert it with Caffe's upgrade_net_proto_text")
        fields = Fields.of((found,), found.where, tuple(found))
        if not _runs(found, fields):
            continue
        kind = fields.text("type")
        bottoms = fields.texts("bottom")
        if old:
            kind = V1_TYPES.get(kind, "".join(part.capitalize() for part in kind.split("_")))
        if kind in LOSS_FUNCTIONS:
            kind, bottoms = LOSS_FUNCTIONS[kind], bottoms[:1]  # the second is the label
        name = fields.text("name")
        tops = fields.texts("top") or (name,)
        yield Layer(name=name, type=kind, bottoms=bottoms, tops=tops, message=found)


def _runs(layer: Message, fields: Fields) -> bool:
    """Tell whether a layer is part of the net in phase TEST, level 0, without stages. Source: net.cpp, FilterNet."""
    if fields.text("phase", "TEST") == "TRAIN":
        return False
    include, exclude = layer.get("include", ()), layer.get("exclude", ())
    if include:
        return any(_meets(rule, layer.where) for rule in include)
    return not any(_meets(rule, layer.where) for rule in exclude)


def _meets(rule: object, where: str) -> bool:
    if not isinstance(rule, Message):
        raise DataError(f"{where}: include or exclude is {rule!r}; expected a message in braces")
    fields = Fields.of((rule,), where, ("phase", "min_level", "max_level", "stage", "not_stage"))
    return (
        fields.choice("phase", ("TRAIN", "TEST"), "TEST") == "TEST"
        and fields.whole("min_level", 0) <= 0 <= fields.whole("max_level", 0)
        and not fields.texts("stage")
    )


def _declared_inputs(fields: Fields) -> Iterator[NetInput]:
    names, sizes = fields.texts("input"), fields.wholes("input_dim")
    shapes = [shape.wholes("dim") for shape in fields.messages("input_shape", "dim")]
    if not shapes and sizes:
        shapes = [sizes[first : first + 4] for first in range(0, len(sizes), 4)]
    for index, name in enumerate(names):
        yield NetInput(name=name, shape=shapes[index] if index < len(shapes) else ())


def _data_input(layer: Layer) -> NetInput:
    """Return the images of a data layer; its second top, where it has one, holds labels."""
    shapes: Sequence[tuple[int, ...]] = ()
    if layer.type == "Input":
        given = layer.fields("input_param", "shape").messages("shape", "dim")
        shapes = [shape.wholes("dim") for shape in given]
        if len(layer.tops) > 1:
            raise DataError(
                f"{layer.message.where}: layer {layer.name} has {len(layer.tops)} tops; expected one, the images"
            )
    elif layer.type == "MemoryData":
        given_sizes = layer.fields("memory_data_param", "batch_size", "channels", "height", "width")
        shapes = [tuple(given_sizes.whole(name) for name in ("batch_size", "channels", "height", "width"))]
    known = ("scale", "mean_value", "mean_file", "crop_size", "mirror", "force_color", "force_gray")
    return NetInput(
        name=layer.tops[0],
        shape=shapes[0] if shapes else (),
        preprocessing=layer.fields("transform_param", *known) if "transform_param" in layer.message else None,
    )
