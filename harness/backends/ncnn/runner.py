"""One model in ncnn: an extractor serves one run of one image."""

from __future__ import annotations

import enum
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from harness.backends._host.engine import BoundCall
from harness.backends._host.request import OpenRequest
from harness.backends.ncnn.files import NcnnFiles, NcnnLayer
from harness.errors import BuildError, MeasurementError, Unsupported
from harness.models.onnx_graph import NodeIndex
from harness.precision.effective import is_multiplying, median_times
from harness.protocols import Images, Outputs
from harness.records import Layer

READ_BACK = ("num_threads", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_vulkan_compute")
MOVING_LAYERS = frozenset(
    {"Concat", "Crop", "ExpandDims", "Flatten", "Input", "Padding", "Permute", "Reshape", "Slice", "Split", "Squeeze"}
)


class Storage(enum.Enum):
    """What weights and blobs are stored in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


def load_net(ncnn: Any, files: NcnnFiles, request: OpenRequest, storage: Storage) -> Any:
    """Load a model. Raises: BuildError."""
    counts = Counter(layer.kind for layer in files.layers if ncnn.layer_to_index(layer.kind) < 0)
    if counts:
        listed = ", ".join(f"{kind} ({count})" for kind, count in sorted(counts.items()))
        raise Unsupported(f"{request.label}: pnnx left what ncnn has no layer for: {listed}")
    net = ncnn.Net()
    # Before the files are read; ncnn's own default is FP16 storage, without a word.
    net.opt.num_threads = request.options.num_threads
    net.opt.use_vulkan_compute = False
    net.opt.openmp_blocktime = 0
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, name, storage is Storage.FP16)
    net.opt.use_bf16_storage = storage is Storage.BF16
    with tempfile.TemporaryDirectory(prefix="harness-ncnn-") as folder:
        param, weights = Path(folder) / "param", Path(folder) / "bin"
        param.write_text(files.param)
        weights.write_bytes(files.weights)
        for load, path in ((net.load_param, param), (net.load_model, weights)):
            if status := load(str(path)):
                raise BuildError(f"{request.label}: ncnn cannot load what pnnx wrote (status {status})")
    if len(net.input_names()) != 1 or len(net.output_names()) != 1:
        raise BuildError(f"{request.label}: pnnx made inputs {net.input_names()}, outputs {net.output_names()}")
    return net


class NcnnRunner:
    """A net. Implements `_host.engine.Runner`."""

    errors: tuple[type[BaseException], ...] = (RuntimeError,)

    def __init__(self, ncnn: Any, net: Any, files: NcnnFiles, request: OpenRequest, storage: Storage) -> None:
        self._ncnn, self._net, self._label = ncnn, net, request.label
        self._layers, self._nodes, self._storage = files.layers, request.nodes, storage
        self._source, self._target = net.input_names()[0], net.output_names()[0]

    def run(self, images: Images) -> Outputs:
        """Run image after image."""
        return np.stack([self._read(self._extracted(self._blob(image))) for image in images])

    def bind(self, images: Images) -> BoundCall:
        """Put every image into a blob of its own."""
        blobs, last = [self._blob(image) for image in images], list[Any]()

        def compute() -> None:
            last[:] = [self._extracted(blob) for blob in blobs]

        return BoundCall(compute=compute, outputs=lambda: np.stack([self._read(blob) for blob in last]))

    def layers(self, images: Images, n_runs: int) -> tuple[Layer, ...]:
        """Return the layers; each is extracted on its own, so small ones look longer than they are."""
        times = median_times([self._times(images) for _ in range(n_runs)])
        nodes = nodes_of_layers(self._layers, self._nodes)
        return tuple(
            Layer(
                name=layer.name,
                kind=layer.kind,
                precision=precision_of(layer, self._storage),
                is_compute=layer.kind not in MOVING_LAYERS,
                onnx_nodes=nodes.get(layer.name, ()),
                time_ns=times.get(layer.name),
            )
            for layer in self._layers
        )

    def close(self) -> None:
        """Free the net."""
        self._net = None

    def _blob(self, image: Images) -> Any:
        return self._ncnn.Mat(image).clone()  # a Mat of an array only borrows its memory

    def _extracted(self, blob: Any) -> Any:
        extractor = self._net.create_extractor()
        extractor.input(self._source, blob)
        status, found = extractor.extract(self._target)
        if status:
            raise MeasurementError(f"{self._label}: ncnn failed with status {status}")
        return found

    def _read(self, blob: Any) -> Outputs:
        return np.array(blob, np.float32).ravel()

    def _times(self, images: Images) -> dict[str, float]:
        times = dict.fromkeys((layer.name for layer in self._layers), 0.0)
        for image in images:
            extractor = self._net.create_extractor()
            extractor.set_light_mode(False)
            extractor.input(self._source, self._blob(image))
            for layer in self._layers:
                started = time.perf_counter_ns()
                extractor.extract(layer.outputs[0])
                times[layer.name] += time.perf_counter_ns() - started
        return times


def precision_of(layer: NcnnLayer, storage: Storage) -> str:
    """Return what a layer multiplies in, "" where ncnn does not say: FP16 and BF16 are what it stores."""
    if layer.is_int8:
        return "int8"
    return "fp32" if storage is Storage.FP32 else ""


def nodes_of_layers(layers: tuple[NcnnLayer, ...], nodes: NodeIndex) -> dict[str, tuple[str, ...]]:
    """Return layer -> ONNX node of the products: pnnx names its layers anew, but keeps their order.

    Nothing where their numbers differ.
    """
    ours = [layer.name for layer in layers if is_multiplying(layer.kind)]
    theirs = [node for node, kind in nodes.kinds.items() if is_multiplying(kind)]
    return {layer: (node,) for layer, node in zip(ours, theirs, strict=True)} if len(ours) == len(theirs) else {}
