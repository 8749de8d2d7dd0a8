"""An engine of a session on a GPU, or a GPU that is let go of again."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from harness.backends._cpu import prepared_model
from harness.backends._cuda.opening import gpu_for_engine
from harness.backends.ort_cuda.engine import OrtCudaEngine
from harness.backends.ort_cuda.session import CudaSession
from harness.backends.ort_cuda.tensor_engine import OrtCudaTensorEngine
from harness.models.onnx_graph import index_nodes
from harness.records import Artifact
from harness.specs import ModelTensors


def open_engine(
    make_session: Callable[[Any], CudaSession],
    artifact: Artifact,
    *,
    label: str,
    index: int,
    batch_sizes: tuple[int, ...],
    tensors: ModelTensors | None,
) -> OrtCudaEngine | OrtCudaTensorEngine:
    """Open a session on a GPU as an engine, of images or of any graph.

    Raises: BuildError, BackendUnavailable, Unsupported.
    """
    model = prepared_model(artifact)
    make = OrtCudaEngine if tensors is None else partial(OrtCudaTensorEngine, tensors=tensors)
    with gpu_for_engine(index) as gpu:
        return make(
            make_session,
            gpu,
            label=label,
            index=index,
            batch_sizes=batch_sizes,
            nodes=index_nodes(model),
            engine_bytes=os.path.getsize(artifact.onnx_path),
        )


__all__ = ["OrtCudaEngine", "OrtCudaTensorEngine", "open_engine"]
