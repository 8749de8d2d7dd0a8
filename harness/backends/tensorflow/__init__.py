"""TensorFlow itself on the CPU, a baseline: `import tensorflow` happens in `build`, in worker processes only."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from harness.backends._cpu import import_runtime
from harness.backends._host.adapter import HostBackend
from harness.backends._host.engine import BoundCall
from harness.backends._host.request import Opened, OpenRequest
from harness.backends._tf.graph import check_operators, function_of, nodes_of_name
from harness.backends._traits import Traits, refused, takes_files
from harness.backends.tensorflow.options import XLA, TensorflowOptions
from harness.protocols import Images, Outputs
from harness.records import Layer
from harness.specs import Precision

PRECISION_OF_DTYPE = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
MOVING = frozenset(
    {"Const", "Identity", "NoOp", "Pack", "Pad", "PadV2", "Placeholder", "Reshape", "Shape", "Transpose"}
)


class TensorflowRunner:
    """A traced function. Implements `_host.engine.Runner`."""

    errors: tuple[type[BaseException], ...]

    def __init__(self, tf: Any, function: Callable[[Any], Any], nodes: list[str]) -> None:
        self.errors = (tf.errors.OpError, ValueError, TypeError)
        self._tf, self._nodes = tf, nodes
        self._function: Any = function

    def run(self, images: Images) -> Outputs:
        """Run one batch."""
        return np.array(self._function(self._tf.constant(images)).numpy())

    def bind(self, images: Images) -> BoundCall:
        """Hold the batch as a tensor; a call is over when its output can be read."""
        function, batch = self._function, self._tf.constant(images)
        return BoundCall(compute=lambda: function(batch).numpy(), outputs=lambda: np.array(function(batch).numpy()))

    def layers(self, images: Images, n_runs: int) -> tuple[Layer, ...]:
        """Return the operations of the graph as it was traced, with their types; no times."""
        del images, n_runs
        operations = self._function.get_concrete_function().graph.get_operations()
        return tuple(
            Layer(
                name=operation.name,
                kind=operation.type,
                precision=PRECISION_OF_DTYPE.get(operation.outputs[0].dtype.name, operation.outputs[0].dtype.name),
                is_compute=operation.type not in MOVING,
                onnx_nodes=nodes_of_name(operation.name, self._nodes),
            )
            for operation in operations
            if operation.outputs
        )

    def close(self) -> None:
        """Free the function."""
        self._function = None


class TensorflowBackend(HostBackend):
    """Runs ONNX files as TensorFlow functions."""

    name = "tensorflow"
    required_modules = ("tensorflow", "onnx", "onnxruntime")
    distributions = ("tensorflow-cpu", "tensorflow")
    is_light = False
    traits = Traits(
        runtime="TensorFlow",
        extra="tensorflow",
        batch="free",
        layers="operations and types of the traced graph; no times",
        abilities={
            **takes_files({Precision.FP32: "FP32"}),
            Precision.FP16: refused("use `litert`"),
            Precision.BF16: refused("use `litert`"),
            Precision.INT8: refused("use `litert`"),
        },
    )

    def open(self, request: OpenRequest) -> Opened:
        """Trace the file as a function. Raises: Unsupported, BackendUnavailable."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("KERAS_HOME", tempfile.gettempdir())  # Keras writes its settings there
        tf = import_runtime("tensorflow", self.install_hint)
        with contextlib.suppress(RuntimeError):  # may be set before the first operation only
            tf.config.set_visible_devices([], "GPU")
            tf.config.threading.set_intra_op_parallelism_threads(request.options.num_threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        check_operators(request.model, request.label)
        mode = TensorflowOptions.of(request.options.settings).mode
        signature = [tf.TensorSpec(request.input.shape, tf.float32, name="image")]
        source = function_of(tf, request.model)
        function = tf.function(source, input_signature=signature, jit_compile=mode == XLA)
        function.get_concrete_function()
        threading = tf.config.threading
        return Opened(
            runner=TensorflowRunner(tf, function, list(request.nodes.kinds)),
            engine_bytes=os.path.getsize(request.artifact.onnx_path),
            options={
                "mode": mode,
                "intra_op_threads": str(threading.get_intra_op_parallelism_threads()),
                "inter_op_threads": str(threading.get_inter_op_parallelism_threads()),
            },
            notes=("engine size is that of the ONNX file", "TensorFlow itself is a baseline; its engine is `litert`"),
        )


BACKEND = TensorflowBackend()
