"""Small ONNX nets and calibration sets for tests, seeded; operator set 17, IR 8."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from harness.models.onnx_graph import model_digest
from harness.records import Artifact
from harness.specs import ModelSpec, Precision
from harness.store.cache import sha256_of_file

OPSET, IR = 17, 8
HW = 8


def save_net(path, nodes, weights, *, inputs=None, outputs=(("probabilities", ("N", 10)),), opset=OPSET, ir=IR):
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


def tiny_net(path, *, batch="N", fc_scale=1.0, batch_norm=False, softmax=True):
    """Write conv 4@3x3, (batch norm), relu, max pool, fc 10, softmax on float32[N, 1, 8, 8]."""
    generator = np.random.default_rng(7)

    def random(*shape, scale):
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


def identity_net(path, *, size=64):
    """Write a net that returns its flattened input: a product with the identity matrix."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["f"], name="/flatten/Flatten"),
        helper.make_node("MatMul", ["f", "eye"], ["probabilities"], name="/matmul/MatMul"),
    ]
    return save_net(path, nodes, {"eye": np.eye(size, dtype=np.float32)}, outputs=(("probabilities", ("N", size)),))


def two_headed_net(path):
    """Write a net whose first output is an auxiliary head, and whose second one is what the card names."""
    generator = np.random.default_rng(7)
    weights = {name: generator.standard_normal((10, HW * HW)).astype(np.float32) for name in ("aux.w", "fc.w")}
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], name="/flatten/Flatten"),
        helper.make_node("Gemm", ["flat", "aux.w"], ["aux"], name="/aux/Gemm", transB=1),
        helper.make_node("Gemm", ["flat", "fc.w"], ["probabilities"], name="/fc/Gemm", transB=1),
    ]
    return save_net(path, nodes, weights, outputs=(("aux", ("N", 10)), ("probabilities", ("N", 10))))


def two_input_net(path):
    """Write a net with two inputs."""
    nodes = [
        helper.make_node("Add", ["image", "other"], ["sum"], name="/add/Add"),
        helper.make_node("Flatten", ["sum"], ["probabilities"], name="/flatten/Flatten"),
    ]
    shape = ("N", 1, HW, HW)
    return save_net(
        path, nodes, {}, inputs=(("image", shape), ("other", shape)), outputs=(("probabilities", ("N", 64)),)
    )


def qdq_net(path, *, scale=0.05):
    """Write a net whose input passes one Q/DQ pair of the given scale."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["f"], name="/flatten/Flatten"),
        helper.make_node("QuantizeLinear", ["f", "s", "z"], ["q"], name="/q/QuantizeLinear"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="/d/DequantizeLinear"),
        helper.make_node("MatMul", ["d", "eye"], ["probabilities"], name="/matmul/MatMul"),
    ]
    weights = {"s": np.array(scale, np.float32), "z": np.array(0, np.int8), "eye": np.eye(64, dtype=np.float32)}
    return save_net(path, nodes, weights, outputs=(("probabilities", ("N", 64)),))


def spec_of(path, **changes):
    """Return a card of a net of this file."""
    known = {
        "name": "tiny",
        "onnx_path": str(path),
        "sha256": model_digest(path),
        "input_name": "image",
        "input_shape": (1, HW, HW),
        "output_name": "probabilities",
        "num_classes": 10,
    }
    return ModelSpec(**{**known, **changes})


def artifact_of(path, precision=Precision.FP32):
    """Return an artifact of a file as it is."""
    digest = sha256_of_file(path) if path.exists() else "0" * 64
    return Artifact(
        model="tiny", precision=precision, recipe="none", onnx_path=str(path), sha256=digest, source_sha256=digest
    )


def images(n, *, seed=0):
    """Return float32[n, 1, 8, 8] in 0..1, most of it dark."""
    return (np.random.default_rng(seed).random((n, 1, HW, HW), dtype=np.float32) ** 3).astype(np.float32)


class ArraySet:
    """A calibration set of an array."""

    def __init__(self, array, fingerprint="array"):
        self.array, self.fingerprint, self.n_images = array, fingerprint, len(array)
        self.largest_batch = 0

    def batches(self, batch_size):
        self.largest_batch = max(self.largest_batch, batch_size)
        for first in range(0, len(self.array), batch_size):
            yield self.array[first : first + batch_size]
