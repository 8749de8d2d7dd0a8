"""Requests bound to memory of ours: of a batch of images, or of the named inputs and outputs of any graph."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from harness.backends._inputs import check_feeds, check_same_outputs, kept_outputs
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
    _infer(request, _set_inputs(models, request, feeds), label)
    return {tensor.name: np.array(request.get_tensor(tensor.name).data) for tensor in models.outputs}


def bind_tensors(models: CompiledModels, feeds: Tensors, *, batch_size: int, window: str, label: str) -> Timer:
    """Bind inputs and outputs to the static model of a batch size, and return a timer. Raises: MeasurementError.

    An output whose size depends on the values of the inputs stays in the runtime's memory, and is not looked at.
    """
    expected = run_tensors(models, feeds, label)
    model = models.of_size(batch_size)
    request = model.create_infer_request()
    bound_in = {name: np.array(array, order="C") for name, array in feeds.items()}
    bound_out = {name: np.empty_like(array, order="C") for name, array in expected.items()}
    kept = _set_inputs(models, request, bound_in)
    own = [models.name_of(port) for port in model.outputs if port.get_partial_shape().is_static]
    for name in own:
        request.set_tensor(name, models.ov.Tensor(bound_out[name], shared_memory=True))
    _infer(request, kept, label)
    found = {n: bound_out[n] if n in own else np.array(request.get_tensor(n).data) for n in expected}
    check_same_outputs(found, expected, label)

    def compute(_keep: object = (bound_in, bound_out, kept)) -> float:
        request.infer()
        return float(request.latency * NS_PER_MS)

    def end_to_end() -> object:
        for name, array in bound_in.items():
            np.copyto(array, feeds[name])
        request.infer()
        return [np.array(request.get_tensor(name).data) for name in expected]

    outputs = kept_outputs({name: bound_out[name] for name in own})
    if window == "compute":
        return ReportedTimer(compute, batch_size=batch_size, window=window, outputs=outputs)
    return HostTimer(end_to_end, batch_size=batch_size, window=window, outputs=outputs)


def _set_inputs(models: CompiledModels, request: Any, feeds: Tensors) -> list[Any]:
    """Put inputs in place without a copy and return the memory that must stay."""
    kept = [np.ascontiguousarray(feeds[tensor.name]) for tensor in models.inputs]
    for tensor, array in zip(models.inputs, kept, strict=True):
        # `ascontiguousarray` gives a scalar an axis.
        in_place = array.reshape(np.shape(feeds[tensor.name]))
        request.set_tensor(tensor.name, models.ov.Tensor(in_place, shared_memory=True))
    return kept


def _infer(request: Any, kept: list[Any], label: str) -> None:
    """Run a request whose inputs lie in `kept`. Raises: MeasurementError."""
    try:
        request.infer()
    except RuntimeError as error:
        shapes = [list(array.shape) for array in kept]
        raise MeasurementError(f"{label}: a run of shapes {shapes} failed: {reason_of(error)}") from error
