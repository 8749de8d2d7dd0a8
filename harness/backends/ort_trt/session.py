"""A session whose nodes TensorRT takes where it can, in one or several subgraphs."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

from harness.backends.ort_cuda.probe import PROVIDER as CUDA
from harness.backends.ort_cuda.session import CudaSession
from harness.models.onnx_graph import NodeIndex
from harness.protocols import Tensors
from harness.records import Artifact, Layer
from harness.specs import BuildOptions, Precision
from harness.store.cache import key_digest, make_own_folder

PROVIDER = "TensorrtExecutionProvider"
MODULES = ("onnxruntime", "onnx", "tensorrt")
READ_BACK = (
    "device_id",
    "trt_fp16_enable",
    "trt_int8_enable",
    "trt_engine_cache_enable",
    "trt_builder_optimization_level",
)
PLANS = "ort-trt"  # folder of the cache; ONNX Runtime itself keeps and checks the plans that lie in it
N_NAMED = 5


class TrtSession(CudaSession):
    """The session of one artifact on TensorRT, with CUDA behind it."""

    provider = PROVIDER
    on_device = (PROVIDER, CUDA)
    read_back_names = READ_BACK
    captured = "TensorRT's provider allocates within a run"

    def __init__(self, artifact: Artifact, *, label: str, index: int, stream: Any, options: BuildOptions) -> None:
        tensorrt: Any = importlib.import_module("tensorrt")  # brings the libraries that the provider is linked to
        super().__init__(artifact, label=label, index=index, stream=stream, options=options)
        is_int8, is_half = artifact.precision is Precision.INT8, artifact.precision is Precision.FP16
        self._trt = {
            "device_id": str(index),
            "user_compute_stream": self._cuda["user_compute_stream"],
            "trt_fp16_enable": str(int(is_half)),
            "trt_int8_enable": str(int(is_int8)),
        }
        if options.cache_dir:
            key = {"artifact": artifact.sha256, "onnxruntime": self.ort.__version__, "tensorrt": tensorrt.__version__}
            folder = Path(options.cache_dir) / PLANS / key_digest(key)
            if options.rebuild:
                shutil.rmtree(folder, ignore_errors=True)
            for place in (folder.parent, folder):
                make_own_folder(place)
            self._trt |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}

    def providers(self) -> list[tuple[str, dict[str, str]]]:
        """Return TensorRT, and CUDA for what it does not take."""
        return [(self.provider, self._trt), (CUDA, self._cuda)]

    def notes(self, layers: tuple[Layer, ...]) -> tuple[str, ...]:
        """Return how many of the nodes TensorRT took, and what CUDA ran instead."""
        others = [layer for layer in layers if provider_of(layer) != PROVIDER]
        n_taken = sum(provider_of(layer) == PROVIDER for layer in layers)
        share = f"TensorRT took {n_taken} of {n_taken + len(others)} nodes"
        names = ", ".join(f"{layer.name} ({layer.kind})" for layer in others[:N_NAMED])
        more = ", ..." if len(others) > N_NAMED else ""
        return (f"{share}; others run: {names}{more}" if others else share,)

    def layers(self, feeds: Tensors, nodes: NodeIndex) -> tuple[Layer, ...]:
        """Return the kernels that ran; a subgraph of TensorRT's is one, and is told as its nodes."""
        return nodes_of_subgraphs(super().layers(feeds, nodes), nodes)


def provider_of(layer: Layer) -> str:
    """Return the provider that ran a layer."""
    return layer.kernel.partition(":")[0]


def nodes_of_subgraphs(layers: tuple[Layer, ...], nodes: NodeIndex) -> tuple[Layer, ...]:
    """Return a layer for every node that TensorRT took, in place of its subgraphs: all that nobody else ran.

    What precision they ran in TensorRT does not say there.
    """
    others = tuple(layer for layer in layers if provider_of(layer) != PROVIDER)
    if len(others) == len(layers):
        return layers
    elsewhere = {node for layer in others for node in (layer.name, *layer.onnx_nodes)}
    taken = (
        Layer(name=node, kind=kind, kernel=f"{PROVIDER}:", is_compute=node not in nodes.casts, onnx_nodes=(node,))
        for node, kind in nodes.kinds.items()
        if node not in elsewhere
    )
    return (*taken, *others)
