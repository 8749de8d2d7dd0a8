"""One ONNX Runtime session on the CPU as an engine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

from harness.backends._cpu import check_timer_request
from harness.backends._inputs import check_images, check_output_shape, kept_outputs, profile_feeds
from harness.backends.ort.opened import OpenSession
from harness.backends.ort.options import OrtOptions
from harness.backends.ort.runtime import check_classifier, libraries_in_words
from harness.machine.clocks import BoundContext, HostTimer, outputs_of
from harness.models.onnx_graph import NodeIndex
from harness.protocols import Images, Outputs, Tensors, Timer
from harness.records import Artifact, EngineFacts, Layer
from harness.specs import BuildOptions


class OrtEngine:
    """One session. Implements `protocols.Engine`, `RunsTensors`, both kinds of contexts and `ExportsEngine`."""

    concurrency = "threads over one session"
    most_contexts = None  # as many as there are CPUs

    def __init__(
        self,
        artifact: Artifact,
        *,
        label: str,
        batch_sizes: tuple[int, ...],
        options: BuildOptions,
        session_config: Mapping[str, str],
        nodes: NodeIndex,
    ) -> None:
        self._label, self._nodes, self._tensors = label, nodes, options.tensors
        self._profile_batch = max(batch_sizes)
        libraries = OrtOptions.of(options.settings).custom_ops
        started = time.perf_counter_ns()
        self._opened = OpenSession(
            artifact,
            label=label,
            num_threads=options.num_threads,
            config=session_config,
            libraries=libraries,
        )
        build_ns = time.perf_counter_ns() - started
        self.inputs, self.outputs = self._opened.inputs, self._opened.outputs
        if options.tensors is None:
            check_classifier(self.inputs, self.outputs, label)
        self.input, self.output = self.inputs[0], self.outputs[0]
        self.facts = EngineFacts(
            build_ns=build_ns,
            engine_bytes=os.path.getsize(artifact.onnx_path),
            options={**self._opened.read_back(), **libraries_in_words(libraries)},
            versions={"onnxruntime": self._opened.version},
            notes=("engine size is that of the ONNX file: ONNX Runtime keeps no other form on disk",),
        )

    def infer(self, images: Images) -> Outputs:
        """Run one batch and return fresh memory. Raises: MeasurementError."""
        check_images(images, self.input, self._label)
        outputs: Outputs = self._opened.outputs_of([self.output.name], {self.input.name: images})[0]
        check_output_shape(outputs.shape, len(images), self._label)
        return outputs

    def infer_stream(self, batches: Iterable[Images]) -> Iterator[Outputs]:
        """Yield the outputs of each batch in order."""
        for images in batches:
            yield self.infer(images)

    def run(self, feeds: Tensors) -> Tensors:
        """Run once and return every output, in fresh memory. Raises: MeasurementError."""
        return self._opened.run(feeds)

    def timer(self, images: Images, *, window: str, launch: str) -> Timer:
        """Bind a batch and its output, and return a timer. Raises: ConfigError, MeasurementError."""
        check_timer_request(window, launch, self._label)
        feeds, expected = {self.input.name: images}, {self.output.name: self.infer(images)}
        call, bound_out = self._opened.bound(feeds, expected, copies=window == "end_to_end")
        outputs = outputs_of(bound_out[self.output.name])
        return HostTimer(call, batch_size=len(images), window=window, outputs=outputs)

    def bind(self, feeds: Tensors, *, batch_size: int, window: str, launch: str) -> Timer:
        """Bind inputs and outputs, and return a timer. Raises: ConfigError, MeasurementError."""
        check_timer_request(window, launch, self._label)
        call, bound_out = self._opened.bound(feeds, self.run(feeds), copies=window == "end_to_end")
        return HostTimer(call, batch_size=batch_size, window=window, outputs=kept_outputs(bound_out))

    def contexts(self, images: Images, n_contexts: int) -> tuple[BoundContext, ...]:
        """Bind a batch to buffers of their own for every thread; the session is one. Raises: MeasurementError."""
        feeds, expected = {self.input.name: images}, {self.output.name: self.infer(images)}
        bound = [self._opened.bound(feeds, expected, copies=False) for _ in range(n_contexts)]
        return tuple(BoundContext(run=call, outputs=outputs_of(buffers[self.output.name])) for call, buffers in bound)

    def bind_contexts(self, feeds: Tensors, n_contexts: int, *, batch_size: int) -> tuple[BoundContext, ...]:
        """Bind inputs and outputs to buffers of their own for every thread. Raises: MeasurementError."""
        del batch_size  # a session takes inputs of any shape that its file does
        expected = self.run(feeds)
        bound = [self._opened.bound(feeds, expected, copies=False) for _ in range(n_contexts)]
        return tuple(BoundContext(run=call, outputs=kept_outputs(buffers)) for call, buffers in bound)

    def layers(self) -> tuple[Layer, ...]:
        """Return the kernels that ran and their median times, from a profiled session of its own."""
        return self._opened.layers(profile_feeds(self.inputs, self._tensors, self._profile_batch), self._nodes)

    def export(self, path: Path) -> int | None:
        """Write the optimized model, .ort or .onnx; see `protocols.ExportsEngine`. Raises: BuildError."""
        self._opened.export(path)
        return self.input.shape[0] if self._tensors is None else None

    def close(self) -> None:
        """Free the session; a second call does nothing."""
        self._opened.close()

    def __enter__(self) -> OrtEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
