"""Runs a model on calibration images and hands out chosen activations, a batch at a time.

Only the tensors asked for are kept, and only for one batch: ONNX Runtime's own histogram calibrators keep every
intermediate of every image (0.5 MB per image on a small depthwise-separable net), and fail on a smaller last batch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import BuildError, Unsupported
from harness.models.onnx_graph import one_line
from harness.precision.ranges import LargestValue, MagnitudeHistogram
from harness.protocols import CalibrationSet, Images, TensorCalibrationSet, Tensors
from harness.specs import ModelSpec

if TYPE_CHECKING:
    import onnx

MAX_BATCH = 100
BATCH_BYTES = 64 << 20  # activations handed out at once; a heavy net gets smaller batches

Activations = dict[str, NDArray[Any]]


class ActivationReader:
    """A session of a model that also returns the tensors `names`."""

    def __init__(
        self,
        model: onnx.ModelProto,
        names: Sequence[str],
        spec: ModelSpec,
        work_dir: Path,
        *,
        is_emulated: bool = False,
    ) -> None:
        """Open a session; `is_emulated` keeps Q/DQ nodes from becoming 8-bit kernels."""
        ort = importlib.import_module("onnxruntime")

        self._spec, self._names = spec, tuple(names)
        inputs = {value.name for value in model.graph.input}
        self._from_input = tuple(name for name in self._names if name in inputs)
        self._from_graph = tuple(name for name in self._names if name not in inputs)
        self._input_name = spec.input_name
        options = ort.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        if is_emulated:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        path = work_dir / "activations.onnx"
        _save_with_outputs(model, self._from_graph, path)
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except _vendor_errors() as error:
            raise BuildError(
                f"model {spec.name}: ONNX Runtime cannot run it to calibrate: {one_line(error)}"
            ) from error
        self.batch_size = 1 if spec.tensors is not None else spec.max_batch or self._batch_within_bytes()

    def read(self, calibration: CalibrationSet) -> Iterator[Activations]:
        """Yield the activations of one batch after the other, name -> float32[N, ...].

        Raises: BuildError for a batch that fails; Unsupported for a set of images where the model takes named inputs.
        """
        if self._spec.tensors is not None:
            if not isinstance(calibration, TensorCalibrationSet):
                raise Unsupported(f"model {self._spec.name} takes named inputs; its calibration set holds images")
            yield from map(self._run_feeds, calibration.feeds(self.batch_size))
            return
        for images in calibration.batches(self.batch_size):
            yield self._run(images)

    def largest(self, calibration: CalibrationSet) -> dict[str, float]:
        """Return the largest magnitude of every tensor over all images; NaN or inf where the model overflows."""
        seen = {name: LargestValue() for name in self._names}
        for activations in self.read(calibration):
            for name, values in activations.items():
                seen[name].update(values)
        return {name: value.largest for name, value in seen.items()}

    def histograms(self, calibration: CalibrationSet, largest: dict[str, float]) -> dict[str, MagnitudeHistogram]:
        """Return the histogram of magnitudes of every tensor over all images, in bins up to its largest."""
        histograms = {name: MagnitudeHistogram(largest[name]) for name in self._names}
        for activations in self.read(calibration):
            for name, values in activations.items():
                histograms[name].update(values)
        return histograms

    def _run(self, images: Images) -> Activations:
        n_images, fixed = len(images), self._spec.max_batch
        fed = images
        if fixed and n_images < fixed:  # a model of fixed batch: fill up, and drop the fillers' results below
            fed = np.concatenate([images, np.repeat(images[:1], fixed - n_images, axis=0)])
        try:
            outputs = self._session.run(list(self._from_graph), {self._input_name: fed}) if self._from_graph else []
        except _vendor_errors() as error:
            raise BuildError(f"model {self._spec.name}: a calibration batch failed: {one_line(error)}") from error
        found = dict.fromkeys(self._from_input, fed)
        found.update(zip(self._from_graph, outputs, strict=True))
        return {
            name: values[:n_images] if values.shape[:1] == fed.shape[:1] else values for name, values in found.items()
        }

    def _run_feeds(self, feeds: Tensors) -> Activations:
        try:
            outputs = self._session.run(list(self._from_graph), dict(feeds)) if self._from_graph else []
        except _vendor_errors() as error:
            raise BuildError(f"model {self._spec.name}: a calibration run failed: {one_line(error)}") from error
        found = {name: feeds[name] for name in self._from_input}
        return {**found, **dict(zip(self._from_graph, outputs, strict=True))}

    def _batch_within_bytes(self) -> int:
        one = self._run(np.zeros((1, *self._spec.input_shape), np.float32))
        image_bytes = sum(values.nbytes for values in one.values())
        return int(np.clip(BATCH_BYTES // max(image_bytes, 1), 1, MAX_BATCH))


def _save_with_outputs(model: onnx.ModelProto, names: Sequence[str], path: Path) -> None:
    import onnx

    augmented = onnx.ModelProto()
    augmented.CopyFrom(model)
    existing = {value.name for value in augmented.graph.output}
    for name in names:
        if name not in existing:
            augmented.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    onnx.save(augmented, str(path))


def _vendor_errors() -> tuple[type[Exception], ...]:
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    return (state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented, state.RuntimeException)
