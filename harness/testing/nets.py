"""Small ONNX nets, seeded: operator set 17, IR 8. Imports onnx: for tests alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from harness.protocols import Tensors
from harness.records import Artifact
from harness.specs import ModelInput, ModelOutput, ModelTensors, Precision
from harness.store.cache import sha256_of_file

OPSET, IR = 17, 8
HW = 8
T = 5  # ids of `graph_net`
Values = Sequence[tuple[str, Sequence[str | int]]]  # name and shape


def save_net(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, NDArray[Any]],
    *,
    inputs: Values | None = None,
    outputs: Values = (("probabilities", ("N", 10)),),
    opset: int = OPSET,
    ir: int = IR,
) -> Path:
    """Write a net from NodeProtos and a dict of arrays."""
    inputs = inputs or (("image", ("N", 1, HW, HW)),)
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir
    onnx.save(model, str(path))
    return path


def tiny_net(
    path: Path, *, batch: str | int = "N", fc_scale: float = 1.0, batch_norm: bool = False, softmax: bool = True
) -> Path:
    """Write conv 4@3x3, (batch norm), relu, max pool, fc 10, softmax on float32[N, 1, 8, 8]."""
    generator = np.random.default_rng(7)

    def random(*shape: int, scale: float) -> NDArray[np.float32]:
        return (generator.standard_normal(shape) * scale).astype(np.float32)

    weights = {
        "conv.w": random(4, 1, 3, 3, scale=0.4),
        "conv.b": random(4, scale=0.1),
        "fc.w": random(36, 10, scale=fc_scale),
        "fc.b": random(10, scale=0.1),
    }
    nodes = [helper.make_node("Conv", ["image", "conv.w", "conv.b"], ["c"], name="/conv/Conv")]
    last = "c"
    if batch_norm:
        weights.update(
            {
                "bn.scale": np.full(4, 1.5, np.float32),
                "bn.bias": random(4, scale=0.2),
                "bn.mean": random(4, scale=0.1),
                "bn.var": np.full(4, 0.5, np.float32),
            }
        )
        parameters = ["bn.scale", "bn.bias", "bn.mean", "bn.var"]
        nodes.append(helper.make_node("BatchNormalization", [last, *parameters], ["n"], name="/bn/BatchNorm"))
        last = "n"
    nodes += [
        helper.make_node("Relu", [last], ["r"], name="/relu/Relu"),
        helper.make_node("MaxPool", ["r"], ["p"], name="/pool/MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], name="/flatten/Flatten"),
        helper.make_node("Gemm", ["f", "fc.w", "fc.b"], ["g" if softmax else "probabilities"], name="/fc/Gemm"),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["g"], ["probabilities"], name="/softmax/Softmax", axis=1))
    return save_net(
        path,
        nodes,
        weights,
        inputs=(("image", (batch, 1, HW, HW)),),
        outputs=(("probabilities", (batch, 10)),),
    )


def identity_net(path: Path, *, size: int = 64) -> Path:
    """Write a net that returns its flattened input: a product with the identity matrix."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["f"], name="/flatten/Flatten"),
        helper.make_node("MatMul", ["f", "eye"], ["probabilities"], name="/matmul/MatMul"),
    ]
    return save_net(path, nodes, {"eye": np.eye(size, dtype=np.float32)}, outputs=(("probabilities", ("N", size)),))


def two_input_net(path: Path) -> Path:
    """Write a net with two inputs."""
    nodes = [
        helper.make_node("Add", ["image", "other"], ["sum"], name="/add/Add"),
        helper.make_node("Flatten", ["sum"], ["probabilities"], name="/flatten/Flatten"),
    ]
    shape = ("N", 1, HW, HW)
    return save_net(
        path, nodes, {}, inputs=(("image", shape), ("other", shape)), outputs=(("probabilities", ("N", 64)),)
    )


def graph_net(path: Path) -> Path:
    """Write int64[N, T] ids, bool[N, T] mask and a float32 scalar -> float32[N, T, 4] and int64[N, T]."""
    info = helper.make_tensor_value_info
    table = np.random.default_rng(7).standard_normal((16, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], name="/rows/Gather", axis=0),
        helper.make_node("Mul", ["rows", "scale"], ["scaled"], name="/scaled/Mul"),
        helper.make_node("Cast", ["mask"], ["whole"], name="/whole/Cast", to=TensorProto.INT64),
        helper.make_node("Mul", ["ids", "whole"], ["chosen"], name="/chosen/Mul"),
    ]
    shape: list[str | int] = ["N", "T"]
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            info("ids", TensorProto.INT64, shape),
            info("mask", TensorProto.BOOL, shape),
            info("scale", TensorProto.FLOAT, []),
        ],
        [info("scaled", TensorProto.FLOAT, [*shape, 4]), info("chosen", TensorProto.INT64, shape)],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR
    onnx.save(model, str(path))
    return path


def graph_tensors() -> ModelTensors:
    """Return what goes in and out of `graph_net`, at five ids."""
    return ModelTensors(
        inputs=(
            ModelInput(name="ids", dtype="int64", shape=(1, T), batch_axis=0, free_axes=(0,), high=15.0),
            ModelInput(name="mask", dtype="bool", shape=(1, T), batch_axis=0, free_axes=(0,)),
            ModelInput(name="scale", dtype="float32", shape=()),
        ),
        outputs=(ModelOutput(name="scaled", batch_axis=0), ModelOutput(name="chosen", batch_axis=0)),
    )


def graph_outputs(feeds: Tensors) -> dict[str, NDArray[Any]]:
    """Return what `graph_net` gives."""
    table = np.random.default_rng(7).standard_normal((16, 4)).astype(np.float32)
    ids = np.asarray(feeds["ids"], np.int64)
    scaled = table[ids] * np.asarray(feeds["scale"], np.float32)
    return {"scaled": scaled, "chosen": ids * np.asarray(feeds["mask"], np.int64)}


def qdq_net(path: Path, *, scale: float = 0.05) -> Path:
    """Write a net whose input passes one Q/DQ pair of the given scale."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["f"], name="/flatten/Flatten"),
        helper.make_node("QuantizeLinear", ["f", "s", "z"], ["q"], name="/q/QuantizeLinear"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="/d/DequantizeLinear"),
        helper.make_node("MatMul", ["d", "eye"], ["probabilities"], name="/matmul/MatMul"),
    ]
    weights: dict[str, NDArray[Any]] = {
        "s": np.array(scale, np.float32),
        "z": np.array(0, np.int8),
        "eye": np.eye(64, dtype=np.float32),
    }
    return save_net(path, nodes, weights, outputs=(("probabilities", ("N", 64)),))


def artifact_of(path: Path, precision: Precision = Precision.FP32) -> Artifact:
    """Return an artifact of a file as it is."""
    digest = sha256_of_file(path) if path.exists() else "0" * 64
    return Artifact(
        model="tiny", precision=precision, recipe="none", onnx_path=str(path), sha256=digest, source_sha256=digest
    )


def images(n: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Return float32[n, 1, 8, 8] in 0..1, most of it dark."""
    return (np.random.default_rng(seed).random((n, 1, HW, HW), dtype=np.float32) ** 3).astype(np.float32)
