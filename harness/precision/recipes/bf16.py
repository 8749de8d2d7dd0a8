"""BF16: weights and arithmetic cast to bfloat16 in the ONNX file, or left to a runtime that is told to use it.

Our own converter: neither `onnxruntime.transformers.float16` nor `onnxconverter_common` writes bfloat16. Which tensors
may be bfloat16 is asked of ONNX's own operator schemas, so an operator that has no bfloat16 stays FP32 between casts.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import BuildError
from harness.models.onnx_graph import (
    DEFAULT_DOMAINS,
    INSTALL_HINT,
    constants_to_initializers,
    load_model,
    node_id,
    opset_of,
    raise_ir,
    raise_opset,
    state_kernels,
)
from harness.precision.effective import is_multiplying
from harness.precision.keeping import is_kept
from harness.precision.recipe import CAST, NOTHING, Conversion, ConversionRequest, Recipe
from harness.specs import BF16_RUNTIME_RECIPE, Precision

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

# The first operator set that has bfloat16 for Conv and pooling, and the IR version that came with it.
# Source: https://github.com/onnx/onnx/blob/main/docs/Versioning.md and Changelog.md, operator set 22
MIN_OPSET, MIN_IR_VERSION = 22, 10
BF16_TYPE = "tensor(bfloat16)"
# ONNX has bfloat16 for these, TensorRT has not: its parser or builder refuses them. Found with TensorRT for RTX 1.7.
FP32_OPS = frozenset({"ConvTranspose", "HardSwish", "LpNormalization", "LpPool", "Mish"})
BF16_MAX = float(np.uint32(0x7F7F0000).view(np.float32))  # largest finite bfloat16, 3.39e38
DROPPED_BITS = 16  # of float32's 32


def convert(request: ConversionRequest) -> Conversion:
    """Write the BF16 file of a model: FP32 in and out, bfloat16 up to the last product, FP32 behind it.

    Raises: BuildError for a model that cannot be cast: control flow, unknown types, an operator set that cannot be
    raised to 22.
    """
    import onnx

    model = _raised(load_model(request.source), request.spec.name)
    constants_to_initializers(model)
    caster = _Caster(model, request.spec.name, request.kept_float)
    caster.run()
    onnx.save(model, str(request.target))
    return Conversion(warnings=caster.warnings())


def bf16_from_float32(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the bits of the nearest bfloat16, ties to even; what is finite stays finite, NaN stays NaN."""
    clipped = np.where(np.isfinite(values), np.clip(values, -BF16_MAX, BF16_MAX), values).astype(np.float32)
    bits = clipped.view(np.uint32)
    is_odd = (bits >> DROPPED_BITS) & 1
    rounded = (bits + 0x7FFF + is_odd) >> DROPPED_BITS
    quiet_nan = (bits >> DROPPED_BITS) | 0x40  # a NaN whose payload is all in the dropped bits would become Inf
    bf16: NDArray[np.uint16] = np.where(np.isnan(values), quiet_nan, rounded).astype(np.uint16)
    return bf16


def _raised(model: ModelProto, name: str) -> ModelProto:
    import onnx

    for node in model.graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise BuildError(f"model {name}: {node_id(node)} ({node.op_type}) holds a graph; BF16 cannot cast within")
    raise_ir(model)
    state_kernels(model)
    model = raise_opset(model, MIN_OPSET, name=f"model {name}", why="has no BF16 convolution")
    model.ir_version = max(model.ir_version, MIN_IR_VERSION)
    return onnx.shape_inference.infer_shapes(model)


class _Types:
    """The element type of every tensor of a graph, and the schemas of its operators."""

    def __init__(self, model: ModelProto, name: str) -> None:
        self.opset, self._name = opset_of(model), name
        self.known = _types_of(model)
        self.completed: list[str] = []  # tensors whose type ONNX's inference does not find

    def complete(self, node: NodeProto, schema: Any) -> dict[str, int]:
        """Type the outputs that ONNX's inference leaves open although an input decides them, and return them.

        GroupNormalization is such an operator.
        """
        if schema is None:
            return {}
        inputs = {_formal(schema.inputs, place).type_str: name for place, name in enumerate(node.input) if name}
        fresh = {}
        for place, name in enumerate(node.output):
            source = inputs.get(_formal(schema.outputs, place).type_str, "")
            if name and name not in self.known and source in self.known:
                fresh[name] = self.known[source]
                self.completed.append(name)
        self.known.update(fresh)
        return fresh

    def schema(self, node: NodeProto) -> Any:
        """Return the operator's schema, None for one that ONNX does not define."""
        import onnx

        if node.domain not in DEFAULT_DOMAINS:
            return None
        try:
            return onnx.defs.get_schema(node.op_type, self.opset, "")
        except onnx.defs.SchemaError as error:
            raise BuildError(
                f"model {self._name}: operator set {self.opset} has no {node.op_type} ({node_id(node)})"
            ) from error

    def of(self, name: str, node: NodeProto) -> int:
        if name not in self.known:
            raise BuildError(
                f"model {self._name}: the type of {name}, read by {node_id(node)} ({node.op_type}), is not known; "
                "BF16 needs the type of every tensor"
            )
        return self.known[name]


class _Caster:
    """Rewrites the types of one graph in place."""

    def __init__(self, model: ModelProto, name: str, kept_float: Sequence[str]) -> None:
        import onnx

        self._graph, self._types = model.graph, _Types(model, name)
        self._kept_float = kept_float
        self._float, self._bf16 = onnx.TensorProto.FLOAT, onnx.TensorProto.BFLOAT16
        self._weights: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        self._now = dict(self._types.known)  # as cast so far
        self._copies: dict[tuple[str, int], str] = {}  # (tensor, type) -> its name in that type
        self._nodes: list[NodeProto] = []
        self._kept: dict[str, None] = {}  # operators without bfloat16
        self._n_clipped: dict[str, int] = {}

    def run(self) -> None:
        """Cast the graph. Raises: BuildError."""
        fp32_from = _tail(self._graph.node)
        outputs = {value.name for value in self._graph.output}
        for place, node in enumerate(list(self._graph.node)):
            schema = self._types.schema(node)
            self._now.update(self._types.complete(node, schema))
            is_float = place in fp32_from or is_kept(node, self._kept_float)
            types = {} if is_float else self._types_for(node, schema)
            self._cast_inputs(node, types)
            self._nodes.append(node)
            for position, name in enumerate(node.output):
                if self._types.known.get(name) != self._float or types.get(("out", position)) != self._bf16:
                    continue
                self._now[name] = self._bf16
                if name in outputs:  # the graph's output keeps its name and type
                    node.output[position] = self._fresh_name(name, self._bf16)
                    self._now[node.output[position]] = self._bf16
                    self._copies[name, self._bf16] = node.output[position]
                    self._now[name] = self._float
                    self._nodes.append(self._cast_node(node.output[position], name, self._float))
        self._finish()

    def warnings(self) -> tuple[str, ...]:
        """Return what a reader should know: weights that were clipped, operators that stay FP32."""
        clipped = tuple(
            f"{n} weights of {name} overflow BF16 and are clipped to {BF16_MAX:.3g}"
            for name, n in self._n_clipped.items()
        )
        if not self._kept:
            return clipped
        return (*clipped, f"no BF16 for {', '.join(self._kept)} in ONNX or TensorRT: FP32 between casts")

    def _types_for(self, node: NodeProto, schema: Any) -> dict[tuple[str, int], int]:
        """Return the type of each float input and output: ("in" or "out", position) -> type.

        An operator's type variable becomes bfloat16 where its schema allows that and an input decides it; an output
        whose type an attribute decides (Cast, ConstantOfShape) is left as it is and cast where it is used.
        """
        if schema is None or node.op_type in FP32_OPS:
            self._kept[node.op_type] = None
            return {}
        types: dict[tuple[str, int], int] = {}
        chosen: dict[str, int] = {}
        variables = {constraint.type_param_str for constraint in schema.type_constraints}
        for position, name in enumerate(node.input):
            if not name or self._types.of(name, node) != self._float:
                continue
            formal = _formal(schema.inputs, position)
            is_free = BF16_TYPE in formal.types and formal.type_str in variables
            chosen[formal.type_str] = self._bf16 if is_free else self._float
            types["in", position] = chosen[formal.type_str]
        for position, name in enumerate(node.output):
            if name and self._types.known.get(name) == self._float:
                types["out", position] = chosen.get(_formal(schema.outputs, position).type_str, self._float)
        if types and self._bf16 not in types.values() and any(side == "in" for side, _ in types):
            self._kept[node.op_type] = None
        return types

    def _cast_inputs(self, node: NodeProto, types: Mapping[tuple[str, int], int]) -> None:
        for position, name in enumerate(node.input):
            if name and self._types.known.get(name) == self._float:
                node.input[position] = self._in_type(name, types.get(("in", position), self._float))

    def _in_type(self, name: str, wanted: int) -> str:
        """Return the name of a tensor in a type, adding a cast or a converted weight once."""
        if self._now[name] == wanted:
            return name
        if (name, wanted) not in self._copies:
            copy = self._fresh_name(name, wanted)
            if name in self._weights:
                self._graph.initializer.append(self._converted(self._weights[name], copy))
            else:
                self._nodes.append(self._cast_node(name, copy, wanted))
            self._now[copy] = wanted
            self._copies[name, wanted] = copy
        return self._copies[name, wanted]

    def _converted(self, tensor: TensorProto, name: str) -> TensorProto:
        import onnx

        values = onnx.numpy_helper.to_array(tensor)
        beyond = int((np.isfinite(values) & (np.abs(values) > BF16_MAX)).sum())
        if beyond:
            self._n_clipped[tensor.name] = beyond
        bits = bf16_from_float32(values)
        return onnx.TensorProto(
            name=name, data_type=self._bf16, dims=tensor.dims, raw_data=bits.astype("<u2").tobytes()
        )

    def _cast_node(self, source: str, target: str, wanted: int) -> NodeProto:
        import onnx

        return onnx.helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=wanted)

    def _fresh_name(self, name: str, wanted: int) -> str:
        fresh = f"{name}_{'bf16' if wanted == self._bf16 else 'fp32'}"
        while fresh in self._now:
            fresh += "_"
        return fresh

    def _finish(self) -> None:
        import onnx

        used = {name for node in self._nodes for name in node.input} | {value.name for value in self._graph.output}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in used]
        inputs = [value for value in self._graph.input if value.name in used or value.name not in self._weights]
        told = [onnx.helper.make_tensor_value_info(name, self._now[name], None) for name in self._types.completed]
        for field, values in (("initializer", kept), ("input", inputs), ("node", self._nodes), ("value_info", told)):
            del getattr(self._graph, field)[:]
            getattr(self._graph, field).extend(values)


def _types_of(model: ModelProto) -> dict[str, int]:
    """Return the element type of every tensor whose type is known."""
    graph = model.graph
    known = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    return {**known, **{tensor.name: tensor.data_type for tensor in graph.initializer}}


def _tail(nodes: Any) -> frozenset[int]:
    """Return the places of the nodes behind the last product; none where the graph has no product."""
    feeds_product: set[str] = set()  # tensors
    tail = []
    for place, node in reversed(list(enumerate(nodes))):
        if is_multiplying(node.op_type) or feeds_product.intersection(node.output):
            feeds_product.update(node.input)
        else:
            tail.append(place)
    return frozenset(tail) if feeds_product else frozenset()


def _formal(parameters: Any, position: int) -> Any:
    return parameters[min(position, len(parameters) - 1)]  # the last one may stand for many


def tool_versions() -> Mapping[str, str]:
    """Return the version of what writes the file."""
    return {"onnx": importlib.metadata.version("onnx")}


RECIPES = (
    Recipe(
        name="cast",
        writes=CAST,
        precision=Precision.BF16,
        summary="weights and arithmetic cast to BF16, inputs, outputs and what follows the last product FP32",
        convert=convert,
        tool_versions=tool_versions,
        weight_bits=16,
        required_modules=("onnx",),
        install_hint=INSTALL_HINT,
    ),
    Recipe(
        name=BF16_RUNTIME_RECIPE,
        precision=Precision.BF16,
        writes=NOTHING,
        summary="the FP32 file: the runtime is told to compute in BF16 (OpenVINO, TensorRT 10.x)",
    ),
)
