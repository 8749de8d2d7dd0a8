"""Whether a runtime read a file right: a few images, compared with ONNX Runtime in FP32.

Some runtimes take a file that they cannot read and answer with what lay in memory, or with zeros.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from harness.backends._cpu import import_runtime
from harness.backends._host.graph import widened
from harness.backends._inputs import first_inference_ns, timing_images
from harness.backends.ort.runtime import vendor_errors
from harness.errors import BuildError, MeasurementError
from harness.models.onnx_graph import one_line
from harness.protocols import Engine
from harness.records import EngineFacts

if TYPE_CHECKING:
    from onnx import ModelProto

N_IMAGES = 8
MAX_OTHERS = N_IMAGES // 2  # images of another class


def compared(engine: Engine, model: ModelProto, *, batch_size: int, label: str) -> EngineFacts:
    """Time the first inference, then compare the engine with ONNX Runtime; return its facts with what was found.

    Raises: BuildError, as `check_agreement`.
    """
    try:
        first_ns = first_inference_ns(engine, batch_size)
    except MeasurementError as error:
        raise BuildError(f"{label}: its first batch fails: {error}") from error
    note = check_agreement(engine, model, label)
    facts = engine.facts
    return replace(facts, first_inference_ns=first_ns, notes=(*facts.notes, *((note,) if note else ())))


def check_agreement(engine: Engine, model: ModelProto, label: str) -> str:
    """Compare an engine of an FP32, FP16 or BF16 file with ONNX Runtime; return a note where that cannot run it.

    Raises: BuildError for NaN, for one output whatever the image, or for another class of more than half the images.
    """
    ort = import_runtime("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    failures: tuple[type[Exception], ...] = (*vendor_errors(), ValueError)  # ValueError: a model of more than 2 GiB
    images = timing_images(engine.input, engine.input.shape[0] or N_IMAGES)
    try:
        session = ort.InferenceSession(widened(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
        expected = session.run(None, {engine.input.name: images})[0]
    except failures as error:
        return f"not compared with ONNX Runtime, which cannot run the file: {one_line(error)}"
    try:
        outputs = engine.infer(images)
    except MeasurementError as error:
        raise BuildError(f"{label}: its first batch fails: {error}") from error
    if outputs.shape != expected.shape:
        raise BuildError(f"{label}: its output is {list(outputs.shape)}, ONNX Runtime's {list(expected.shape)}")
    if not np.isfinite(outputs).all():
        raise BuildError(
            f"{label}: it gives NaN or Inf where ONNX Runtime gives numbers; the runtime misreads the file"
        )
    n_others = int((outputs.argmax(axis=1) != expected.argmax(axis=1)).sum())
    if n_others > min(MAX_OTHERS, len(images) // 2):
        distance = float(np.abs(outputs - expected).max())
        raise BuildError(
            f"{label}: {n_others} of {len(images)} random images get another class than from ONNX Runtime "
            f"(largest difference {distance:.2g}); the runtime misreads the file"
        )
    return ""
