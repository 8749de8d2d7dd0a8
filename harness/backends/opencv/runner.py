"""One file in cv2.dnn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.backends._host.engine import BoundCall
from harness.backends._host.request import OpenRequest
from harness.models.onnx_graph import NodeIndex
from harness.precision.effective import median_times, onnx_nodes_of
from harness.protocols import Images, Outputs
from harness.records import Layer

NODE_PREFIX = "onnx_node!"  # of the classic engine's names
INT8_SUFFIX = "Int8"  # of layer types with 8-bit kernels
PRECISION_OF_DTYPE = {"float32": "fp32", "float16": "fp16", "int8": "int8"}
MOVING_LAYERS = frozenset(
    {
        "Cast",
        "Concat",
        "Dequantize",
        "DequantizeLinear",
        "Flatten",
        "Identity",
        "Permute",
        "Quantize",
        "QuantizeLinear",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "TransformLayout",
        "Transpose",
        "Unsqueeze",
    }
)
NS_PER_S = 1e9


class OpencvRunner:
    """A net. Implements `_host.engine.Runner`."""

    def __init__(self, cv2: Any, read: Callable[[], Any], request: OpenRequest, *, is_classic: bool) -> None:
        self.errors: tuple[type[BaseException], ...] = (cv2.error,)
        self._cv2, self._read, self._is_classic = cv2, read, is_classic
        self._input, self._nodes = request.input.name, request.nodes
        self._net = read()

    def run(self, images: Images) -> Outputs:
        """Run one batch; `forward` returns memory of its own."""
        self._net.setInput(images, self._input)
        outputs: Outputs = self._net.forward()
        return outputs

    def bind(self, images: Images) -> BoundCall:
        """Give a net of its own its batch."""
        net = self._read()
        net.setInput(images, self._input)
        return BoundCall(compute=net.forward, outputs=net.forward)

    def layers(self, images: Images, n_runs: int) -> tuple[Layer, ...]:
        """Return the layers with the net's own times."""
        names, runs = self._net.getLayerNames(), []
        for _ in range(n_runs):
            self.run(images)
            _, ticks = self._net.getPerfProfile()
            ns = np.ravel(ticks) * (NS_PER_S / self._cv2.getTickFrequency())
            if len(ns) == len(names):
                runs.append(dict(zip(names, ns.tolist(), strict=True)))
        times = median_times(runs)
        return tuple(
            layer_of(name, self._net.getLayer(name), self._nodes, times.get(name), is_classic=self._is_classic)
            for name in names
        )

    def close(self) -> None:
        """Free the net."""
        self._net = None


def layer_of(name: str, layer: Any, nodes: NodeIndex, time_ns: float | None, *, is_classic: bool) -> Layer:
    """Return one layer. The classic engine computes in the type of a layer's weights; the new one shows few of them."""
    weights = [PRECISION_OF_DTYPE.get(blob.dtype.name, blob.dtype.name) for blob in layer.blobs]
    precision = weights[0] if weights else "fp32" if is_classic else ""
    return Layer(
        name=name,
        kind=layer.type,
        precision="int8" if layer.type.endswith(INT8_SUFFIX) else precision,
        is_compute=layer.type not in MOVING_LAYERS,
        onnx_nodes=onnx_nodes_of(name.removeprefix(NODE_PREFIX), nodes.names),
        time_ns=time_ns,
    )
