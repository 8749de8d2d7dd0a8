"""A backend in NumPy: ONNX's reference evaluator, its outputs rounded as the options say."""

import time
from pathlib import Path

import numpy as np

from harness.backends import check_images
from harness.errors import BuildError, ConfigError, DataError, MeasurementError
from harness.machine.clocks import HostTimer
from harness.models import check_onnx_file
from harness.models.onnx_graph import check_scales
from harness.records import Availability, EngineFacts, Layer, Support, TensorSpec
from harness.specs import Precision
from my_backend.options import NAME, MyOptions

MANTISSA_BITS = 23
WINDOWS = ("compute", "end_to_end")  # the same here: nothing is copied


class MyEngine:
    """Implements `harness.protocols.Engine`."""

    def __init__(self, model, path, options):
        import onnx
        from onnx.reference import ReferenceEvaluator

        started = time.perf_counter_ns()
        self._bits, self._closed = options.bits, False
        self._evaluator = ReferenceEvaluator(model)
        self.input, self.output = _tensor(model.graph.input[0]), _tensor(model.graph.output[0])
        self._nodes = model.graph.node
        self.facts = EngineFacts(
            build_ns=time.perf_counter_ns() - started,
            engine_bytes=Path(path).stat().st_size,
            versions={"onnx": onnx.__version__},
            options={"bits": str(options.bits)},
        )

    def infer(self, images):
        if self._closed:
            raise MeasurementError("the engine is closed")
        check_images(images, self.input, NAME)
        outputs = np.array(self._evaluator.run(None, {self.input.name: images})[0], np.float32)
        dropped = MANTISSA_BITS - self._bits
        return (outputs.view(np.uint32) >> dropped << dropped).view(np.float32)

    def infer_stream(self, batches):
        return map(self.infer, batches)

    def timer(self, images, *, window, launch):
        if window not in WINDOWS:
            raise ConfigError(f"unknown window {window!r}; {NAME} times {' and '.join(WINDOWS)}")
        return HostTimer(lambda: self.infer(images), batch_size=len(images), window=window)

    def layers(self):
        return tuple(
            Layer(name=node.name or node.output[0], kind=node.op_type, precision="fp32", onnx_nodes=(node.name,))
            for node in self._nodes
        )

    def close(self):
        self._closed = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class MyBackend:
    """Implements `harness.protocols.Backend`."""

    name = NAME
    required_modules = ("onnx",)
    install_hint = "pip install onnx"

    def probe(self):
        import onnx

        return Availability(backend=self.name, usable=True, versions={"onnx": onnx.__version__}, devices=("cpu",))

    def supports(self, case):
        if case.device != "cpu":
            return Support(supported=False, reason="it runs on the CPU only")
        is_fp32 = case.precision is Precision.FP32
        return Support(supported=is_fp32, reason="" if is_fp32 else "it computes in FP32 only")

    def build(self, artifact, *, device, batch_sizes, options, calibration=None):
        try:
            model = check_onnx_file(artifact.onnx_path)
        except DataError as error:
            raise BuildError(str(error)) from error
        check_scales(model, artifact.onnx_path)
        if len(model.graph.input) != 1:
            raise BuildError(f"{artifact.onnx_path}: {len(model.graph.input)} inputs; expected one")
        return MyEngine(model, artifact.onnx_path, MyOptions.of(options.settings))


def _tensor(value):
    sizes = [size.dim_value if size.HasField("dim_value") else None for size in value.type.tensor_type.shape.dim]
    return TensorSpec(name=value.name, dtype="float32", shape=(None, *sizes[1:]))


BACKEND = MyBackend()
