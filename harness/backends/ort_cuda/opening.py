"""An engine of a session on a GPU, or a GPU that is let go of again."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from harness.backends._cuda.device import CudaError, Gpu
from harness.backends.ort_cuda.engine import OrtCudaEngine
from harness.backends.ort_cuda.session import CudaSession
from harness.backends.ort_cuda.tensor_engine import OrtCudaTensorEngine
from harness.models.onnx_graph import check_scales, index_nodes, load_model
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
    model = load_model(artifact.onnx_path)
    check_scales(model, artifact.onnx_path)
    gpu = Gpu(index)
    make = OrtCudaEngine if tensors is None else partial(OrtCudaTensorEngine, tensors=tensors)
    try:
        return make(
            make_session,
            gpu,
            label=label,
            index=index,
            batch_sizes=batch_sizes,
            nodes=index_nodes(model),
            engine_bytes=os.path.getsize(artifact.onnx_path),
        )
    except BaseException as error:
        _let_go(error)
        with contextlib.suppress(CudaError):  # that the context is broken too must not hide what broke it
            gpu.close()
        raise


def _let_go(error: BaseException | None) -> None:
    """Free what the frames of a failed build hold: a session must not outlive its context."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__


__all__ = ["OrtCudaEngine", "OrtCudaTensorEngine", "open_engine"]
