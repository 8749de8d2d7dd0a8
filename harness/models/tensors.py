"""The inputs and outputs of any graph: what a file says of them, and the shapes that they are run at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.errors import DataError
from harness.models.onnx_graph import DEFAULT_DOMAINS, load_model, node_id
from harness.specs import InputsAsked, ModelInput, ModelOutput, ModelTensors

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

# What runtimes bring along themselves; of any other a library must be given.
RUNTIME_DOMAINS = (*DEFAULT_DOMAINS, "ai.onnx.ml", "ai.onnx.preview.training", "com.microsoft", "com.ms.internal.nhwc")
INDEXED = {"Gather": 0, "GatherElements": 0, "GatherND": 0}  # operator -> the input that its indices look into
INDEX_INPUT = 1
DEPTH_INPUT = 1  # of OneHot
PASSED_BY = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice")
LARGEST_UNKNOWN = 1  # of whole numbers whose meaning the graph does not tell
LARGEST_PIXEL = 255  # of bytes that lie as pictures do
PICTURE_RANK = 3
LENGTH, CHANNELS, SIDE = 128, 3, 224  # of an example of a shape
PIXEL_SIZES = (1, 3, 4)  # of a last axis that holds channels


class FileTensor(NamedTuple):
    """One input or output as the file has it; an axis is a number, or the name of a free one ("" = unnamed)."""

    name: str
    dtype: str
    axes: tuple[int | str, ...]

    @property
    def text(self) -> str:
        """Return its shape for a message: 1 x 3 x ? x ?."""
        return " x ".join(str(axis) if isinstance(axis, int) else axis or "?" for axis in self.axes) or "scalar"


def tensors_of_file(model: ModelProto, path: object, asked: InputsAsked) -> ModelTensors:
    """Return what goes into a graph and comes out of it, at the shapes asked.

    A free axis needs a shape, but for the axis that samples are stacked on: the one whose name all inputs share, or
    their first where no axis has a name.
    Raises: DataError for a free axis without a size, an unknown name, a shape that does not fit, a type that is no
    array of numbers, or operators of a domain that no runtime has.
    """
    inputs = [_file_tensor(value, path) for value in _real_inputs(model)]
    outputs = [_file_tensor(value, path) for value in model.graph.output]
    if not inputs or not outputs:
        raise DataError(f"{path}: has {len(inputs)} inputs and {len(outputs)} outputs; it takes or gives nothing")
    _check_names(asked, inputs, outputs, path)
    axes = _batch_axes(inputs, outputs)
    _check_sizes(inputs, axes, asked, path)
    highest = _highest_indices(model)
    found = tuple(_input(one, axes.get(one.name), asked, highest.get(one.name), path) for one in inputs)
    made = tuple(_output(one, axes.get(one.name)) for one in outputs)
    tensors = ModelTensors(inputs=found, outputs=made)
    holds_one = all(one.shape[one.batch_axis] == 1 for one in found if one.batch_axis is not None)
    if tensors.is_stackable or holds_one:
        return tensors
    # What was taken for samples is a sequence, say: a run takes it whole.
    return ModelTensors(
        inputs=tuple(replace(one, batch_axis=None) for one in found),
        outputs=tuple(replace(one, batch_axis=None) for one in made),
    )


def foreign_operators(model: ModelProto) -> dict[str, str]:
    """Return domain -> the first of its operators, of domains that no runtime brings along."""
    own = {(function.domain, function.name) for function in model.functions}
    found: dict[str, str] = {}
    for node in model.graph.node:
        if node.domain not in RUNTIME_DOMAINS and (node.domain, node.op_type) not in own:
            found.setdefault(node.domain, f"{node.op_type} ({node_id(node)})")
    return found


def foreign_operators_of(path: str | Path) -> dict[str, str]:
    """Return the `foreign_operators` of a file, which is read once as long as it stays the same."""
    state = Path(path).stat()
    return _foreign_of_state(str(path), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _foreign_of_state(path: str, mtime_ns: int, size: int) -> dict[str, str]:
    return foreign_operators(load_model(path, with_weights=False))


def _real_inputs(model: ModelProto) -> list[ValueInfoProto]:
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _file_tensor(value: ValueInfoProto, path: object) -> FileTensor:
    import onnx

    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        kind = (value.type.WhichOneof("value") or "of no type").removesuffix("_type")
        raise DataError(f"{path}: {value.name} is {kind}; expected a tensor of numbers")
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: {value.name} has no known type of numbers") from error
    if dtype.kind not in "biuf":
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise DataError(f"{path}: {value.name} is {kind}; expected numbers that NumPy has")
    axes = tuple(d.dim_value if d.dim_value > 0 else d.dim_param for d in tensor.shape.dim)
    return FileTensor(value.name, dtype.name, axes)


def _check_names(asked: InputsAsked, inputs: Sequence[FileTensor], outputs: Sequence[FileTensor], path: object) -> None:
    """Refuse what is said of an input that there is not. Raises: DataError."""
    if not asked.is_for_one:
        return
    known, made = [one.name for one in inputs], [one.name for one in outputs]
    for what, named in asked.names:
        for name in named:
            if name not in known:
                raise DataError(
                    f"{path}: it has no input {name!r}, which --{what} names; its inputs: {', '.join(known)}"
                )
    for name, output in asked.states:
        if output not in made:
            raise DataError(f"{path}: it has no output {output!r} for the state {name}; its outputs: {', '.join(made)}")
        state, fed = inputs[known.index(name)], outputs[made.index(output)]
        sizes = zip(state.axes, fed.axes, strict=False)
        is_other = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in sizes)
        has_other_rank = bool(state.axes and fed.axes and len(state.axes) != len(fed.axes))
        if state.dtype != fed.dtype or is_other or has_other_rank:
            raise DataError(
                f"{path}: output {output} is {fed.dtype} {fed.text}; state {name}, which it would feed, is "
                f"{state.dtype} {state.text}"
            )


def _check_sizes(inputs: Sequence[FileTensor], batch_axes: dict[str, int], asked: InputsAsked, path: object) -> None:
    """Refuse inputs with free axes that nothing says the size of, all at once. Raises: DataError."""
    given = dict(asked.shapes)
    missing = [
        one
        for one in inputs
        if one.name not in given
        and any(isinstance(axis, str) for k, axis in enumerate(one.axes) if k != batch_axes.get(one.name))
    ]
    if not missing:
        return
    known = {
        axis: size
        for one in inputs
        if len(given.get(one.name, ())) == len(one.axes)
        for axis, size in zip(one.axes, given.get(one.name, ()), strict=True)
        if axis and isinstance(axis, str)
    }
    named = ", ".join(f"{one.name} ({one.text})" for one in missing)
    example = ",".join(f"{one.name}:{_example(one, batch_axes.get(one.name), known)}" for one in missing)
    has = "has sizes that the file leaves" if len(missing) == 1 else "have sizes that the file leaves"
    raise DataError(f"{path}: {named} {has} open; say them, for example --shapes={example}")


def _example(one: FileTensor, batch_axis: int | None, known: dict[str, int]) -> str:
    """Return a shape that a file would take: 1 sample, 3 channels, sides of 224, sequences of 128.

    Where nothing tells the axis of samples, the first free one is taken for it.
    """
    if batch_axis is None:
        batch_axis = next(k for k, axis in enumerate(one.axes) if isinstance(axis, str))
    is_picture = len(one.axes) == PICTURE_RANK + 1
    channels = 1 if one.axes[-1:] not in [(n,) for n in PIXEL_SIZES] else PICTURE_RANK

    def size(k: int, axis: int | str) -> int:
        if isinstance(axis, int):
            return axis
        if k == batch_axis:
            return 1
        usual = LENGTH if not is_picture else CHANNELS if k == channels else SIDE
        return known.get(axis, usual) if axis else usual

    return "x".join(str(size(k, axis)) for k, axis in enumerate(one.axes))


def _batch_axes(inputs: Sequence[FileTensor], outputs: Sequence[FileTensor]) -> dict[str, int]:
    """Return the axis of each tensor that samples lie on, {} where there is none.

    It is free, and where it has a name that is the first input's; or it is the first and all there say 1. An input
    without it, such as a sampling rate, lets each run take one sample.
    """
    everything = [*inputs, *outputs]
    first = next((one for one in inputs if one.axes and isinstance(one.axes[0], str)), None)
    if first is None:
        ones = {one.name: 0 for one in everything if one.axes and one.axes[0] == 1}
        return ones if all(one.name in ones for one in inputs) else {}
    name = first.axes[0]
    named = {one.name: one.axes.index(name) for one in everything if name and name in one.axes}
    # Exporters often leave an output's axes without a name, or give it one of its own: outputs follow their inputs.
    free = {one.name: 0 for one in everything if one.axes and isinstance(one.axes[0], str)}
    found = {**free, **named} if name else free
    return found if all(one.name in found for one in outputs) else {}


def _highest_indices(model: ModelProto) -> dict[str, int]:
    """Return the largest index that each input may hold, of those that the graph looks something up by."""
    sizes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    stands_for = {value.name: value.name for value in _real_inputs(model)}
    highest: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in PASSED_BY and node.input and node.input[0] in stands_for:
            stands_for[node.output[0]] = stands_for[node.input[0]]
        table = node.input[INDEXED[node.op_type]] if node.op_type in INDEXED else ""
        if table in sizes and len(node.input) > INDEX_INPUT and node.input[INDEX_INPUT] in stands_for:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            name, rank = stands_for[node.input[INDEX_INPUT]], len(sizes[table])
            if -rank <= axis < rank:  # else its runtime refuses the node, with the reason
                highest[name] = min(highest.get(name, 1 << 62), sizes[table][axis] - 1)
    return highest


def _input(
    one: FileTensor, batch_axis: int | None, asked: InputsAsked, highest: int | None, path: object
) -> ModelInput:
    shapes = dict(asked.shapes)
    if one.name in shapes:
        shape = _fitting(shapes[one.name], one, path)
    else:
        shape = tuple(1 if axis == batch_axis else size for axis, size in enumerate(one.axes))  # type: ignore[misc]
    if highest is None:
        highest = LARGEST_PIXEL if one.dtype == "uint8" and len(shape) >= PICTURE_RANK else LARGEST_UNKNOWN
    found = ModelInput(
        name=one.name,
        dtype=one.dtype,
        shape=shape,
        batch_axis=batch_axis,
        free_axes=tuple(k for k, axis in enumerate(one.axes) if isinstance(axis, str)),
        high=1.0 if np.dtype(one.dtype).kind == "f" else float(highest),
    )
    return _with_ranges(found, one, asked, path)


def _output(one: FileTensor, batch_axis: int | None) -> ModelOutput:
    sizes = tuple(axis if isinstance(axis, int) else None for axis in one.axes)
    return ModelOutput(name=one.name, batch_axis=batch_axis, dtype=one.dtype, axes=sizes)


def _with_ranges(found: ModelInput, file: FileTensor, asked: InputsAsked, path: object) -> ModelInput:
    """Return an input with the smallest and largest shape, the range of values and the state asked."""
    lowest, largest, ranges = dict(asked.min_shapes), dict(asked.max_shapes), dict(asked.ranges)
    low, high = ranges.get(found.name, (found.low, found.high))
    return replace(
        found,
        min_shape=_fitting(lowest[found.name], file, path) if found.name in lowest else found.min_shape,
        max_shape=_fitting(largest[found.name], file, path) if found.name in largest else found.max_shape,
        low=low,
        high=high,
        state=dict(asked.states).get(found.name, found.state),
    )


def _fitting(shape: tuple[int, ...], one: FileTensor, path: object) -> tuple[int, ...]:
    """Return a shape that was asked for. Raises: DataError where the file's axes have other sizes."""
    fits = len(shape) == len(one.axes) and all(
        isinstance(axis, str) or axis == size for axis, size in zip(one.axes, shape, strict=True)
    )
    if not fits:
        raise DataError(f"{path}: input {one.name} is {one.text}; the shape {'x'.join(map(str, shape))} does not fit")
    return shape
