"""One artifact as OpenVINO runs it.

Engines have static shapes, one per batch size asked (up to 23 % faster at batch 1); any other batch runs on one
dynamic engine, built when first needed. ENABLE_CPU_RESERVATION is never set: it cuts every later model to one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from harness.backends._cpu import check_timer_request
from harness.backends._inputs import check_images, check_output_shape, profile_feeds
from harness.backends.openvino.binding import bind_tensors, image_contexts, image_timer, run_tensors, tensor_contexts
from harness.backends.openvino.compiled import CompiledModels, reason_of
from harness.backends.openvino.facts import facts_of_models
from harness.backends.openvino.layers import layer_from_rt_info, layer_times_ns, rt_info_texts
from harness.errors import MeasurementError
from harness.models.onnx_graph import NodeIndex
from harness.protocols import Context, Images, Outputs, Tensors, Timer
from harness.records import Layer


class OpenvinoEngine:
    """Compiled models of one artifact, by batch size.

    Implements `protocols.Engine`, `RunsTensors`, both kinds of contexts and `ExportsEngine`.
    """

    concurrency = "requests of one model compiled for throughput, a stream each"
    most_contexts = None  # as many as there are CPUs

    def __init__(
        self, open_models: Callable[[], CompiledModels], *, label: str, batch_sizes: tuple[int, ...], nodes: NodeIndex
    ) -> None:
        self._label, self._nodes = label, nodes
        started = time.perf_counter_ns()
        self._models = open_models()
        self.inputs, self.outputs = self._models.inputs, self._models.outputs
        self.input, self.output = self._models.input, self._models.output
        fixed = self.input.shape[0] if self._models.tensors is None else None
        self._sizes = (fixed,) if fixed else tuple(sorted(set(batch_sizes)))
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

    def run(self, feeds: Tensors) -> Tensors:
        """Run once and return every output, in fresh memory. Raises: MeasurementError."""
        self._opened()
        return run_tensors(self._models, feeds, self._label)

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
        return image_timer(self._models, images, self.infer(images), window=window, label=self._label)

    def bind(self, feeds: Tensors, *, batch_size: int, window: str, launch: str) -> Timer:
        """Bind inputs and outputs to a static engine, and return a timer; the windows are those of `timer`.

        Raises: ConfigError, MeasurementError.
        """
        check_timer_request(window, launch, self._label)
        self._opened()
        return bind_tensors(self._models, feeds, batch_size=batch_size, window=window, label=self._label)

    def contexts(self, images: Images, n_contexts: int) -> tuple[Context, ...]:
        """Compile the model with so many streams, and bind a batch to a request of each.

        Raises: BuildError, MeasurementError.
        """
        return image_contexts(self._models, images, self.infer(images), n_contexts=n_contexts, label=self._label)

    def bind_contexts(self, feeds: Tensors, n_contexts: int, *, batch_size: int) -> tuple[Context, ...]:
        """Compile the model with so many streams, and bind named inputs to a request of each.

        Raises: BuildError, MeasurementError.
        """
        self._opened()
        return tensor_contexts(self._models, feeds, batch_size=batch_size, n_contexts=n_contexts, label=self._label)

    def layers(self) -> tuple[Layer, ...]:
        """Return the layers of the largest engine as they ran, with median times of a profiled engine of its own."""
        self._opened()
        size = max(self._sizes)
        feeds = profile_feeds(self.inputs, self._models.tensors, size)
        run_tensors(self._models, feeds, self._label)  # before the first inference some layers name no primitive
        times = layer_times_ns(self._models, size, feeds)
        ops = self._models.of_size(size).get_runtime_model().get_ordered_ops()
        layers = (
            layer_from_rt_info(op.get_friendly_name(), rt_info_texts(op.get_rt_info()), self._nodes, times)
            for op in ops
        )
        return tuple(layer for layer in layers if layer)

    def export(self, path: Path) -> int | None:
        """Write the model of the smallest batch size; see `protocols.ExportsEngine`. Raises: BuildError."""
        path.write_bytes(self._models.exported(self._sizes[0]))
        return self._sizes[0]

    def close(self) -> None:
        """Free all engines; a second call does nothing."""
        self._models.close()

    def __enter__(self) -> OpenvinoEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> None:
        if self._models.core is None:
            raise MeasurementError(f"{self._label}: the engine is closed; build it again")
