"""One artifact as OpenVINO runs it.

Engines have static shapes, one per batch size asked (up to 23 % faster at batch 1); any other batch runs on one
dynamic engine, built when first needed. ENABLE_CPU_RESERVATION is never set: it cuts every later model to one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np

from harness.backends._cpu import check_timer_request
from harness.backends._inputs import check_images, check_output_shape, timing_images
from harness.backends.openvino.compiled import NS_PER_MS, CompiledModels, reason_of
from harness.backends.openvino.facts import facts_of_models
from harness.backends.openvino.layers import layer_from_rt_info, layer_times_ns, rt_info_texts
from harness.errors import MeasurementError
from harness.machine.clocks import BoundContext, HostTimer, ReportedTimer, outputs_of
from harness.models.onnx_graph import NodeIndex
from harness.protocols import Images, Outputs, Timer
from harness.records import Layer


class OpenvinoEngine:
    """Compiled models of one artifact, by batch size. Implements `protocols.Engine`, `RunsConcurrently`."""

    concurrency = "requests of one model compiled for throughput, a stream each"

    def __init__(
        self, open_models: Callable[[], CompiledModels], *, label: str, batch_sizes: tuple[int, ...], nodes: NodeIndex
    ) -> None:
        self._label, self._nodes = label, nodes
        started = time.perf_counter_ns()
        self._models = open_models()
        self.input, self.output = self._models.input, self._models.output
        self._sizes = (self.input.shape[0],) if self.input.shape[0] else tuple(sorted(set(batch_sizes)))
        for size in self._sizes:
            self._models.of_size(size)
        build_ns = time.perf_counter_ns() - started
        self.facts = facts_of_models(self._models, self._sizes, build_ns)

    def infer(self, images: Images) -> Outputs:
        """Run one batch and return fresh memory. Raises: MeasurementError."""
        self._opened()
        check_images(images, self.input, self._label)
        request = self._models.request(len(images))
        # Never `request.infer(images)`: one thread, a free batch and a wrong shape give the previous result, unsaid.
        batch = np.ascontiguousarray(images)
        try:
            request.set_input_tensor(self._models.ov.Tensor(batch, shared_memory=True))
            request.infer()
        except RuntimeError as error:
            raise MeasurementError(f"{self._label}: a batch of {len(images)} failed: {reason_of(error)}") from error
        outputs: Outputs = np.array(request.get_output_tensor().data)  # the next call overwrites the runtime's memory
        check_output_shape(outputs.shape, len(images), self._label)
        return outputs

    def infer_stream(self, batches: Iterable[Images]) -> Iterator[Outputs]:
        """Yield the outputs of each batch in order."""
        for images in batches:
            yield self.infer(images)

    def timer(self, images: Images, *, window: str, launch: str) -> Timer:
        """Bind a batch and its output to a static engine, and return a timer. Raises: ConfigError, MeasurementError.

        `compute` is the duration that OpenVINO itself reports, as its benchmark_app does; `end_to_end` is wall time
        with the copies in and out.
        """
        check_timer_request(window, launch, self._label)
        expected = self.infer(images)
        size = len(images)
        request, bound_in, bound_out = self._bound(self._models.of_size(size), images, expected)

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

    def contexts(self, images: Images, n_contexts: int) -> tuple[BoundContext, ...]:
        """Compile the model with so many streams, and bind a batch to a request of each.

        Raises: BuildError, MeasurementError.
        """
        expected, size = self.infer(images), len(images)
        model = self._models.compile(size, **self._models.of_streams(n_contexts))
        bound = (self._bound(model, images, expected) for _ in range(n_contexts))
        return tuple(
            BoundContext(run=partial(_run_bound, request, bound_in), outputs=outputs_of(bound_out))
            for request, bound_in, bound_out in bound
        )

    def layers(self) -> tuple[Layer, ...]:
        """Return the layers of the largest engine as they ran, with median times of a profiled engine of its own."""
        self._opened()
        size = max(self._sizes)
        images = timing_images(self.input, size)
        self.infer(images)  # before the first inference some layers name no primitive
        times = layer_times_ns(self._models, size, images)
        ops = self._models.of_size(size).get_runtime_model().get_ordered_ops()
        layers = (
            layer_from_rt_info(op.get_friendly_name(), rt_info_texts(op.get_rt_info()), self._nodes, times)
            for op in ops
        )
        return tuple(layer for layer in layers if layer)

    def close(self) -> None:
        """Free all engines; a second call does nothing."""
        self._models.close()

    def __enter__(self) -> OpenvinoEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _bound(self, model: Any, images: Images, expected: Outputs) -> tuple[Any, Images, Outputs]:
        """Return a request of a model, and the buffers that it is bound to. Raises: MeasurementError."""
        request = model.create_infer_request()
        bound_in, bound_out = np.array(images, order="C"), np.empty_like(expected, order="C")
        request.set_input_tensor(self._models.ov.Tensor(bound_in, shared_memory=True))
        request.set_output_tensor(self._models.ov.Tensor(bound_out, shared_memory=True))
        request.infer()
        if not np.allclose(bound_out, expected, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise MeasurementError(f"{self._label}: output of the bound request differs from infer(); not timed")
        return request, bound_in, bound_out

    def _opened(self) -> None:
        if self._models.core is None:
            raise MeasurementError(f"{self._label}: the engine is closed; build it again")


def _run_bound(request: Any, keep: Images) -> None:
    """Run a request; `keep`: the memory that it reads."""
    request.infer()
