"""Requests bound to memory of ours: of a batch of images, or of the named inputs and outputs of any graph."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.backends._inputs import check_feeds, check_same_outputs, contiguous, kept_outputs
from harness.backends.openvino.compiled import NS_PER_MS, CompiledModels, reason_of
from harness.errors import MeasurementError
from harness.machine.clocks import BoundContext, HostTimer, ReportedTimer, outputs_of
from harness.protocols import Images, Outputs, Tensors, Timer


def image_timer(models: CompiledModels, images: Images, expected: Outputs, *, window: str, label: str) -> Timer:
    """Bind a batch and its output to a static engine, and return a timer. Raises: MeasurementError."""
    size = len(images)
    request, bound_in, bound_out = _bound_image(models, models.of_size(size), images, expected, label)

    def compute(_keep: object = (bound_in, bound_out)) -> float:
        request.infer()
        return float(request.latency * NS_PER_MS)

    def end_to_end() -> object:
        np.copyto(bound_in, images)
        request.infer()
        return bound_out.copy()

    if window == "compute":
        return ReportedTimer(compute, batch_size=size, window=window, outputs=outputs_of(bound_out))
    return HostTimer(end_to_end, batch_size=size, window=window, outputs=outputs_of(bound_out))


def tensor_contexts(
    models: CompiledModels, feeds: Tensors, *, batch_size: int, n_contexts: int, label: str
) -> tuple[BoundContext, ...]:
    """Compile the model with so many streams, and bind named inputs to a request of each.

    Raises: BuildError, MeasurementError.
    """
    expected = run_tensors(models, feeds, label)
    model = models.compile(batch_size, **models.of_streams(n_contexts))
    bound = [_BoundTensors(models, model, feeds, expected, label) for _ in range(n_contexts)]
    return tuple(BoundContext(run=one.run, outputs=one.outputs) for one in bound)


def image_contexts(
    models: CompiledModels, images: Images, expected: Outputs, *, n_contexts: int, label: str
) -> tuple[BoundContext, ...]:
    """Compile the model with so many streams, and bind a batch to a request of each.

    Raises: BuildError, MeasurementError.
    """
    model = models.compile(len(images), **models.of_streams(n_contexts))
    bound = (_bound_image(models, model, images, expected, label) for _ in range(n_contexts))
    return tuple(
        BoundContext(run=partial(_run_bound, request, bound_in), outputs=outputs_of(bound_out))
        for request, bound_in, bound_out in bound
    )


def _bound_image(
    models: CompiledModels, model: Any, images: Images, expected: Outputs, label: str
) -> tuple[Any, Images, Outputs]:
    """Return a request of a model, and the buffers that it is bound to. Raises: MeasurementError."""
    request = model.create_infer_request()
    bound_in, bound_out = np.array(images, order="C"), np.empty_like(expected, order="C")
    request.set_input_tensor(models.ov.Tensor(bound_in, shared_memory=True))
    request.set_output_tensor(models.ov.Tensor(bound_out, shared_memory=True))
    request.infer()
    if not np.allclose(bound_out, expected, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise MeasurementError(f"{label}: output of the bound request differs from infer(); not timed")
    return request, bound_in, bound_out


def _run_bound(request: Any, keep: Images) -> None:
    """Run a request; `keep`: the memory that it reads."""
    request.infer()


def run_tensors(models: CompiledModels, feeds: Tensors, label: str) -> Tensors:
    """Run once and return every output, in fresh memory. Raises: MeasurementError."""
    check_feeds(feeds, models.inputs, label)
    request = models.request_of(feeds)
    _infer(request, set_inputs(models, request, feeds), label)
    return {tensor.name: _output(request, place) for place, tensor in enumerate(models.outputs)}


def bind_tensors(models: CompiledModels, feeds: Tensors, *, batch_size: int, window: str, label: str) -> Timer:
    """Bind inputs and outputs to the static model of a batch size, and return a timer. Raises: MeasurementError."""
    bound = _BoundTensors(models, models.of_size(batch_size), feeds, run_tensors(models, feeds, label), label)

    def compute() -> float:
        bound.run()
        return float(bound.request.latency * NS_PER_MS)

    def end_to_end() -> object:
        for name, array in bound.inputs.items():
            np.copyto(array, feeds[name])
        bound.run()
        return [_output(bound.request, place) for place in range(len(models.outputs))]

    if window == "compute":
        return ReportedTimer(compute, batch_size=batch_size, window=window, outputs=bound.outputs)
    return HostTimer(end_to_end, batch_size=batch_size, window=window, outputs=bound.outputs)


class _BoundTensors:
    """A request of a model, bound to memory of its own.

    An output whose size depends on the values of the inputs, or that is an input passed on, stays in the runtime's
    memory: it is read from there, and cannot be spoiled.
    """

    def __init__(self, models: CompiledModels, model: Any, feeds: Tensors, expected: Tensors, label: str) -> None:
        """Bind it and run it once. Raises: MeasurementError where that gives other outputs than `expected`."""
        self.request = model.create_infer_request()
        self.inputs = {name: np.array(array, order="C") for name, array in feeds.items()}
        self._names = [tensor.name for tensor in models.outputs]
        self._own = {
            name: np.empty_like(expected[name], order="C")
            for name, port in zip(self._names, model.outputs, strict=True)
            if _takes_memory(model, port)
        }
        self._read_own = kept_outputs(self._own)
        self._kept = set_inputs(models, self.request, self.inputs)
        for name, array in self._own.items():
            self.request.set_output_tensor(self._names.index(name), models.ov.Tensor(array, shared_memory=True))
        _infer(self.request, self._kept, label)
        check_same_outputs(self.outputs(), expected, label)

    def run(self) -> None:
        """Run it once more."""
        self.request.infer()

    def outputs(self) -> Tensors:
        """Return all outputs of the last run, by name, and spoil what lies in memory of its own."""
        own = self._read_own()
        places = enumerate(self._names)
        return {name: own[name] if name in own else _output(self.request, place) for place, name in places}


def set_inputs(models: CompiledModels, request: Any, feeds: Tensors) -> list[Any]:
    """Put inputs in place without a copy and return the memory that must stay."""
    kept = [contiguous(feeds[tensor.name]) for tensor in models.inputs]
    for place, array in enumerate(kept):  # by place: OpenVINO may know an input and an output by one name
        request.set_input_tensor(place, models.ov.Tensor(array, shared_memory=True))
    return kept


def _takes_memory(model: Any, port: Any) -> bool:
    """Tell whether an output may lie in memory of ours: its size is known, and it is no input passed on.

    Of such a one OpenVINO takes the memory for the input's, where both go by one name.
    """
    of_inputs: set[str] = set().union(*(one.get_names() for one in model.inputs))
    return bool(port.get_partial_shape().is_static) and not of_inputs & port.get_names()


def _output(request: Any, place: int) -> NDArray[np.generic]:
    """Return a copy of an output."""
    return np.array(request.get_output_tensor(place).data)


def _infer(request: Any, kept: list[Any], label: str) -> None:
    """Run a request whose inputs lie in `kept`. Raises: MeasurementError."""
    try:
        request.infer()
    except RuntimeError as error:
        shapes = [list(array.shape) for array in kept]
        raise MeasurementError(f"{label}: a run of shapes {shapes} failed: {reason_of(error)}") from error
