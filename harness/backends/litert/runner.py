"""One .tflite model in LiteRT's interpreters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness.backends._host.engine import BoundCall
from harness.backends._tf.graph import nodes_of_name
from harness.protocols import Images, Outputs
from harness.records import Layer

PRECISION_OF_DTYPE = {"float32": "fp32", "float16": "fp16", "int8": "int8", "int16": "int16"}
MOVING_OPERATORS = frozenset(
    {"CAST", "CONCATENATION", "DEQUANTIZE", "DELEGATE", "PACK", "PAD", "QUANTIZE", "RESHAPE", "SHAPE", "TRANSPOSE"}
)


class LitertRunner:
    """An interpreter for each batch size asked for, and one for all others. Implements `_host.engine.Runner`."""

    errors: tuple[type[BaseException], ...] = (RuntimeError, ValueError)

    def __init__(self, make: Callable[[], Any], batch_sizes: tuple[int, ...], nodes: list[str]) -> None:
        """`make` opens an interpreter; `nodes`: the ONNX nodes in the order that the converter numbered them."""
        self._make, self._nodes = make, nodes
        self._free = make()
        self._sized = {size: make() for size in batch_sizes}

    def run(self, images: Images) -> Outputs:
        """Copy a batch in, run it and copy the output out."""
        interpreter = self._sized.get(len(images), self._free)
        place, target = _resized(interpreter, images.shape)
        interpreter.set_tensor(place, images)
        interpreter.invoke()
        outputs: Outputs = interpreter.get_tensor(target)
        return outputs

    def bind(self, images: Images) -> BoundCall:
        """Give an interpreter of its own its batch."""
        interpreter = self._make()
        place, target = _resized(interpreter, images.shape)
        interpreter.set_tensor(place, images)
        return BoundCall(compute=interpreter.invoke, outputs=lambda: interpreter.get_tensor(target))

    def layers(self, images: Images, n_runs: int) -> tuple[Layer, ...]:
        """Return the file's operators with the types of their tensors; the interpreter tells no times.

        It has no public list of them; XNNPACK runs most in its own kernels of the same types.
        """
        del n_runs
        self.run(images)
        operators = self._free._get_ops_details()
        tensors = {
            place: self._free._get_tensor_details(place, 0)
            for operator in operators
            for place in (*operator["inputs"], *operator["outputs"])
            if place >= 0
        }
        return tuple(layer_of(operator, tensors, self._nodes) for operator in operators)

    def close(self) -> None:
        """Free the interpreters."""
        self._free = None
        self._sized.clear()


def layer_of(operator: Mapping[str, Any], tensors: Mapping[int, Mapping[str, Any]], nodes: list[str]) -> Layer:
    """Return an operator as a layer: 8-bit weights make its arithmetic 8-bit, whatever its input is stored in."""
    kinds = [np.dtype(tensors[place]["dtype"]).name for place in operator["inputs"] if place >= 0]
    name = tensors[operator["outputs"][0]]["name"] if len(operator["outputs"]) else operator["op_name"]
    is_hybrid = kinds[:2] == ["float32", "int8"]
    first = "int8" if is_hybrid else kinds[0] if kinds else ""
    return Layer(
        name=name,
        kind=operator["op_name"],
        kernel="activations quantized at every call" if is_hybrid else "",
        precision=PRECISION_OF_DTYPE.get(first, first),
        is_compute=operator["op_name"] not in MOVING_OPERATORS,
        onnx_nodes=nodes_of_name(name, nodes),
    )


def _resized(interpreter: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the places of input and output of an interpreter that has room for a batch."""
    source = interpreter.get_input_details()[0]
    if tuple(source["shape"]) != shape:
        interpreter.resize_tensor_input(source["index"], list(shape), strict=True)
        interpreter.allocate_tensors()
    return source["index"], interpreter.get_output_details()[0]["index"]
