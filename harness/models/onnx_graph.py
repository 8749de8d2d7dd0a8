"""What an ONNX file says of itself: nodes, Q/DQ scales, external data. The `onnx` package is imported on use."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import BackendUnavailable, BuildError, DataError, first_line
from harness.models.formats import OPENVINO_IR, file_digest, model_format
from harness.store.cache import sha256_of_file

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

INSTALL_HINT = "pip install 'nn-engine-harness[cpu]'"
QDQ_OPS = ("QuantizeLinear", "DequantizeLinear")
QUANTIZED_OPS = (*QDQ_OPS, "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
QUANTIZED_PREFIX = "QLinear"  # ONNX's QLinearConv and QLinearMatMul, and more in the domain com.microsoft
CASTING_OPS = (*QDQ_OPS, "Cast")
SCALE_INPUT = 1
ANY_CONSTANT_SET = 9  # the first whose Constant holds any type. Source: onnx/docs/Changelog.md, Constant-9
WEIGHTS_ALONE_IR = 4  # source: onnx/docs/IR.md, "Initializers"
# tf2onnx, Keras and PyTorch write the default domain either way.
DEFAULT_DOMAINS = ("", "ai.onnx")


def load_model(path: str | Path, *, with_weights: bool = True) -> ModelProto:
    """Read an ONNX file, with its external data unless told otherwise.

    Raises: DataError when the file is missing, damaged or empty, or its external data are absent.
    """
    onnx = _onnx()
    decode_error = importlib.import_module("google.protobuf.message").DecodeError

    try:
        model: ModelProto = onnx.load(str(path), load_external_data=False)
        if with_weights:
            onnx.load_external_data_for_model(model, str(Path(path).parent))
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: {error.filename or 'a file'} of this model does not exist; put it beside it"
        ) from error
    except (decode_error, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise DataError(f"{path} is no readable ONNX file ({one_line(error)}); export or copy it again") from error
    if not model.graph.node:
        raise DataError(f"{path} holds no node; a damaged or empty ONNX file reads like this; export or copy it again")
    return model


def model_digest(path: str | Path) -> str:
    """Return the hex sha256 of a model file, with that of the files that it needs beside it.

    Raises: DataError as `load_model`.
    """
    if model_format(path) == OPENVINO_IR:
        return file_digest(_existing(Path(path), Path(path)))
    own = sha256_of_file(_existing(Path(path), Path(path)))
    places = external_files(path)
    if not places:
        return own
    digest = hashlib.sha256(own.encode())
    for place in places:
        digest.update(sha256_of_file(_existing(Path(path).parent / place, Path(path))).encode())
    return digest.hexdigest()


def external_files(path: str | Path) -> tuple[str, ...]:
    """Return the names of a model's external data files, relative to it."""
    model = load_model(path, with_weights=False)
    external = _onnx().TensorProto.EXTERNAL
    return tuple(
        sorted(
            {
                entry.value
                for tensor in tensors_of(model)
                if tensor.data_location == external
                for entry in tensor.external_data
                if entry.key == "location"
            }
        )
    )


def export_facts(model: ModelProto) -> dict[str, str]:
    """Return what a file says of its making: producer with version, operator set, IR version."""
    producer = " ".join(part for part in (model.producer_name, model.producer_version) if part)
    return {
        "exported by": producer or "unknown",
        "operator set": str(opset_of(model)),
        "IR version": str(model.ir_version),
    }


def quantized_nodes(model: ModelProto) -> tuple[str, ...]:
    """Return the nodes that quantize, or compute in integers; () for a file in floating point."""
    return tuple(
        node_id(node)
        for node in model.graph.node
        if node.op_type in QUANTIZED_OPS or node.op_type.startswith(QUANTIZED_PREFIX)
    )


def tensors_of(model: ModelProto) -> Iterator[TensorProto]:
    """Yield all weights of a model, wherever they hang: initializers, constant nodes, subgraphs, functions."""
    yield from _tensors_of_graph(model.graph)
    for function in model.functions:
        yield from _tensors_of_nodes(function.node)


def _tensors_of_graph(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        if attribute.HasField("t"):
            yield attribute.t
        if attribute.HasField("sparse_tensor"):
            yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
        yield from attribute.tensors
        for sparse in attribute.sparse_tensors:
            yield from (sparse.values, sparse.indices)
        if attribute.HasField("g"):
            yield from _tensors_of_graph(attribute.g)
        for graph in attribute.graphs:
            yield from _tensors_of_graph(graph)


def opset_of(model: ModelProto) -> int:
    """Return the version of the default operator set."""
    return next((o.version for o in model.opset_import if o.domain in DEFAULT_DOMAINS), 0)


def raise_opset(model: ModelProto, minimum: int, *, name: str, why: str) -> ModelProto:
    """Return a model of at least an operator set; a newer one stays as it is.

    `why` says what the old one lacks. Raises: BuildError when onnx cannot convert the model.
    """
    onnx = _onnx()
    if opset_of(model) >= minimum:
        return model
    try:
        raised: ModelProto = onnx.version_converter.convert_version(model, minimum)
    except (RuntimeError, onnx.version_converter.ConvertError, onnx.checker.ValidationError) as error:
        raise BuildError(
            f"{name}: operator set {opset_of(model)} {why} and cannot be raised to {minimum} ({one_line(error)}); "
            f"export it anew with operator set {minimum} or later"
        ) from error
    return raised


def node_id(node: NodeProto) -> str:
    """Return a node's name, or its first output where it has none."""
    return node.name or node.output[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIndex:
    """The nodes of a model by the names a runtime may call them."""

    names: Mapping[str, str]  # every node's name and the names of its outputs -> the node's name
    kinds: Mapping[str, str]  # node -> operator
    previous: Mapping[str, str]  # node -> the node that makes its first input

    @property
    def casts(self) -> frozenset[str]:
        """Return the names of the nodes that only change a tensor's type: Q/DQ and Cast."""
        return frozenset(node for node, kind in self.kinds.items() if kind in CASTING_OPS)


NO_NODES = NodeIndex(names={}, kinds={}, previous={})  # of a file that holds none by name


def index_nodes(model: ModelProto) -> NodeIndex:
    """Return the index of a model's nodes; one without a name goes by its first output."""
    nodes = model.graph.node
    makers = {output: node_id(node) for node in nodes for output in node.output if output}
    return NodeIndex(
        names={**makers, **{node.name: node.name for node in nodes if node.name}},
        kinds={node_id(node): node.op_type for node in nodes},
        previous={node_id(node): makers[node.input[0]] for node in nodes if node.input and node.input[0] in makers},
    )


def check_scales(model: ModelProto, path: str | Path) -> int:
    """Check that every Q/DQ scale is finite and above zero, and return how many Q/DQ nodes there are.

    ONNX Runtime runs such files without a word and onnx.checker accepts them.
    Raises: BuildError naming the first bad scale.
    """
    numpy_helper = _onnx().numpy_helper
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants.update(_constant_nodes(model))
    n_nodes = 0
    for node in model.graph.node:
        if node.op_type not in QDQ_OPS:
            continue
        n_nodes += 1
        tensor = constants.get(node.input[SCALE_INPUT])
        if tensor is None:
            raise BuildError(f"{path}: the scale of {node_id(node)} is not a constant; quantize the model anew")
        scale = numpy_helper.to_array(tensor).astype(np.float64)
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            bad = scale[~(np.isfinite(scale) & (scale > 0))].ravel()[0]
            raise BuildError(
                f"{path}: {node_id(node)} has scale {bad}; expected finite values above 0. Quantize the model anew"
            )
    return n_nodes


def scales_digest(model: ModelProto) -> str:
    """Return the sha256 of the scales and zero points of what is quantized while it runs, in the order of the nodes.

    Those of weights are left out: a change of the model moves them. "" for a file without any.
    """
    arrays = {t.name: t for t in model.graph.initializer} | dict(_constant_nodes(model))
    digest, n_found = hashlib.sha256(), 0
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in arrays:
            continue
        for name in node.input[SCALE_INPUT:]:
            if name in arrays:
                digest.update(_onnx().numpy_helper.to_array(arrays[name]).tobytes())
                n_found += 1
    return digest.hexdigest() if n_found else ""


def activation_scales(path: str | Path) -> dict[str, float]:
    """Return tensor -> scale of the QuantizeLinear nodes on activations, {} for a file without Q/DQ nodes.

    Raises: DataError as `load_model`, or where only weights are quantized; BuildError as `check_scales`, or for several
    scales of one tensor.
    """
    numpy_helper = _onnx().numpy_helper
    model = load_model(path)
    if not check_scales(model, path):
        return {}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants.update(_constant_nodes(model))
    scales = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            scale = numpy_helper.to_array(constants[node.input[SCALE_INPUT]]).astype(np.float64)
            if scale.size != 1:
                raise BuildError(f"{path}: tensor {node.input[0]} has {scale.size} scales; expected one")
            scales[node.input[0]] = float(scale.item())
    if not scales:
        raise DataError(f"{path}: its Q/DQ nodes hold weights only; no activation has a scale")
    return scales


def forget_types_of_weights(model: ModelProto) -> None:
    """Drop what a file says of its weights among the types of values: they tell their types themselves."""
    weights = {tensor.name for tensor in model.graph.initializer}
    told = [value for value in model.graph.value_info if value.name not in weights]
    del model.graph.value_info[:]
    model.graph.value_info.extend(told)


def sort_nodes(model: ModelProto) -> None:
    """Put the nodes of a graph, and of the graphs within it, in topological order, as onnx.checker wants them.

    The order is kept otherwise. Raises: BuildError for a cycle.
    """
    _sort_graph(model.graph)


def _sort_graph(graph: GraphProto) -> None:
    for node in graph.node:
        for inner in _graphs_of(node):
            _sort_graph(inner)
    produced = {output for node in graph.node for output in node.output if output}
    waiting = [(node, _needs(node) & produced) for node in graph.node]
    ordered: list[NodeProto] = []
    ready: set[str] = set()
    while waiting:
        later = []
        for node, needs in waiting:
            if needs <= ready:
                ordered.append(node)
                ready.update(node.output)
            else:
                later.append((node, needs))
        if len(later) == len(waiting):
            raise BuildError(f"the graph has a cycle through {node_id(later[0][0])}")
        waiting = later
    del graph.node[:]
    graph.node.extend(ordered)


def _needs(node: NodeProto) -> set[str]:
    """Return the names that a node reads, and that the graphs within it take from around it."""
    names = set(node.input)
    for inner in _graphs_of(node):
        own = {value.name for value in (*inner.input, *inner.initializer)}
        own |= {output for one in inner.node for output in one.output}
        names |= {name for one in inner.node for name in _needs(one)} - own
        names |= {value.name for value in inner.output} - own
    return names - {""}


def _graphs_of(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def raise_ir(model: ModelProto) -> None:
    """Raise a model's IR version to the first whose weights need not be inputs, and drop those inputs.

    Converters add weights and no inputs, and runtimes fold no weight that a caller may overrule.
    """
    if model.ir_version >= WEIGHTS_ALONE_IR:
        return
    model.ir_version = WEIGHTS_ALONE_IR
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def state_kernels(model: ModelProto) -> None:
    """Write the kernel_shape of convolutions that leave it out: TensorRT 8.6 needs it where weights have Q/DQ."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    weights |= {name: tuple(tensor.dims) for name, tensor in _constant_nodes(model)}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose") or any(a.name == "kernel_shape" for a in node.attribute):
            continue
        if (shape := weights.get(node.input[1])) is not None:
            node.attribute.append(_onnx().helper.make_attribute("kernel_shape", shape[2:]))


def inner_operators(model: ModelProto) -> frozenset[str]:
    """Return the operators of the graphs within a model's nodes: bodies of If, Loop and Scan."""
    waiting = [inner for node in model.graph.node for inner in _graphs_of(node)]
    found: set[str] = set()
    while waiting:
        graph = waiting.pop()
        found |= {node.op_type for node in graph.node}
        waiting += [inner for node in graph.node for inner in _graphs_of(node)]
    return frozenset(found)


def mend_old_constants(model: ModelProto) -> None:
    """Turn Constant nodes into initializers where they may hold other than floats but their operator set forbids it."""
    if opset_of(model) < ANY_CONSTANT_SET:
        constants_to_initializers(model)


def constants_to_initializers(model: ModelProto) -> None:
    """Turn Constant nodes of a tensor or of floats into initializers, where converters look for weights."""
    numpy_helper = _onnx().numpy_helper
    kept = []
    for node in model.graph.node:
        kind = node.attribute[0].name if node.op_type == "Constant" and node.attribute else ""
        if kind == "value":
            model.graph.initializer.add().CopyFrom(node.attribute[0].t)
        elif kind == "value_float":
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(node.attribute[0].f, np.float32)))
        elif kind == "value_floats":
            model.graph.initializer.append(numpy_helper.from_array(np.array(node.attribute[0].floats, np.float32)))
        else:
            kept.append(node)
            continue
        model.graph.initializer[-1].name = node.output[0]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def check_model(path: str | Path) -> None:
    """Run onnx.checker on a file. Raises: BuildError with its first line."""
    onnx = _onnx()
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BuildError(f"{path}: onnx.checker refuses the file: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Return the first line of an error's text that says something."""
    return first_line(error)


def _constant_nodes(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            yield node.output[0], node.attribute[0].t


def _existing(file: Path, model: Path) -> Path:
    if not file.is_file():
        whose = "" if file == model else f" (external data of {model.name})"
        raise DataError(f"{file}{whose} does not exist; check the path")
    return file


def _onnx() -> Any:
    try:
        import onnx
        import onnx.checker
        import onnx.shape_inference
        import onnx.version_converter
    except ImportError as error:
        raise BackendUnavailable(f"onnx is not installed; {INSTALL_HINT}") from error
    return onnx
