"""An engine around a runtime on the CPU: what goes in is checked, timers are bound, and closing is final."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np

from harness.backends._cpu import check_timer_request, n_profile_runs
from harness.backends._inputs import check_images, check_output_shape, timing_images
from harness.errors import MeasurementError
from harness.machine.clocks import HostTimer
from harness.models.onnx_graph import one_line
from harness.protocols import Images, Outputs, Timer
from harness.records import EngineFacts, Layer, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundCall:
    """A batch in place: `compute` runs it and does no more, `outputs` reads what the last run gave."""

    compute: Callable[[], object]
    outputs: Callable[[], Outputs]


class Runner(Protocol):
    """One artifact in one runtime. It is given contiguous float32 of a shape that fits, and finite."""

    errors: tuple[type[BaseException], ...]  # that the runtime raises when a batch fails

    def run(self, images: Images) -> Outputs:
        """Run one batch, with the copies in and out; return float32[N, K], in memory that no other call writes to."""
        ...

    def bind(self, images: Images) -> BoundCall:
        """Put a batch in place for a timer; nothing that runs later may move it."""
        ...

    def layers(self, images: Images, n_runs: int) -> tuple[Layer, ...]:
        """Return the layers as they ran on a batch; times are medians over `n_runs` where the runtime has any."""
        ...

    def close(self) -> None:
        """Free everything; called once."""
        ...


class _KeptRun:
    """A run with its copies, whose last outputs are kept."""

    def __init__(self, runner: Runner, images: Images) -> None:
        self._runner, self._images = runner, images
        self._last: Outputs | None = None

    def run(self) -> None:
        """Run the batch."""
        self._last = self._runner.run(self._images)

    def outputs(self) -> Outputs | None:
        """Return what the last run gave, and forget it."""
        found, self._last = self._last, None
        return found


class HostEngine:
    """A runner behind checks. Implements `protocols.Engine`."""

    def __init__(
        self,
        runner: Runner,
        *,
        label: str,
        tensors: tuple[TensorSpec, TensorSpec],
        facts: EngineFacts,
        profile_batch: int,
    ) -> None:
        """`tensors`: the input and the output; `profile_batch`: images a batch when layers are read."""
        self.input, self.output = tensors
        self.facts = facts
        self._runner: Runner | None = runner
        self._label, self._profile_batch = label, self.input.shape[0] or profile_batch

    def infer(self, images: Images) -> Outputs:
        """Run one batch and return fresh memory. Raises: MeasurementError."""
        runner = self._opened()
        check_images(images, self.input, self._label)
        try:
            outputs = runner.run(np.ascontiguousarray(images))
        except runner.errors as error:
            raise MeasurementError(f"{self._label}: a batch of {len(images)} failed: {one_line(error)}") from error
        check_output_shape(outputs.shape, len(images), self._label)
        return outputs

    def infer_stream(self, batches: Iterable[Images]) -> Iterator[Outputs]:
        """Yield the outputs of each batch in order."""
        for images in batches:
            yield self.infer(images)

    def timer(self, images: Images, *, window: str, launch: str) -> Timer:
        """Put a batch in place and return its timer. Raises: ConfigError, MeasurementError.

        `compute` is the wall time of the bound call alone, `end_to_end` that of a run with its copies in and out.
        """
        check_timer_request(window, launch, self._label)
        runner, expected = self._opened(), self.infer(images)
        batch = np.array(images, order="C")
        if window == "end_to_end":
            whole = _KeptRun(runner, batch)
            return HostTimer(whole.run, batch_size=len(batch), window=window, outputs=whole.outputs)
        bound = runner.bind(batch)
        bound.compute()
        if not np.allclose(bound.outputs(), expected, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise MeasurementError(f"{self._label}: output of the bound call differs from infer(); not timed")
        return HostTimer(bound.compute, batch_size=len(batch), window=window, outputs=bound.outputs)

    def layers(self) -> tuple[Layer, ...]:
        """Return the layers as they ran at the largest batch asked for, with median times where the runtime has any."""
        runner, images = self._opened(), timing_images(self.input, self._profile_batch)
        timer = HostTimer(lambda: self.infer(images), batch_size=len(images), window="end_to_end")
        return runner.layers(images, n_profile_runs(float(timer.sample(2)[1])))

    def close(self) -> None:
        """Free the runtime; a second call does nothing."""
        if self._runner is not None:
            self._runner.close()
        self._runner = None

    def __enter__(self) -> HostEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> Runner:
        if self._runner is None:
            raise MeasurementError(f"{self._label}: the engine is closed; build it again")
        return self._runner
