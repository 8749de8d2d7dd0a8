"""The execution contexts that serve one slot: one per optimization profile, bound by tensor name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.backends.trt.api import LogLines
from harness.errors import BuildError, MeasurementError
from harness.records import TensorSpec

FLOATS = ("float32", "float16")


class Lane:
    """One execution context on one optimization profile.

    A second context on one profile of an 8.6 engine crashes the process, so the old one is dropped before another is
    made. `generation` grows with each change of shape: graphs captured before are no longer valid.
    """

    def __init__(self, make_context: Callable[[], Any], *, index: int, lines: LogLines) -> None:
        self.index = index
        self.generation = 0
        self.context: Any = None
        self._make_context, self._lines = make_context, lines

    def open(self, stream: Any) -> None:
        """Make the context, dropping the one before, and select the profile."""
        self.close()
        self.context = self._make_context()
        if self.context is None:
            raise BuildError(f"no execution context for profile {self.index}: {self._lines.reason()}")
        if self.context.active_optimization_profile != self.index:
            if not self.context.set_optimization_profile_async(self.index, stream.handle):
                raise BuildError(f"profile {self.index} cannot be selected: {self._lines.reason()}")
            stream.synchronize()

    def enqueue(self, stream: Any) -> None:
        """Put one inference on a stream. Raises: MeasurementError with what TensorRT logged."""
        if not self.context.execute_async_v3(stream.handle):
            raise MeasurementError(f"TensorRT did not run {self.bound}: {self._lines.errors[-1:]}")

    @property
    def bound(self) -> str:
        """Return what the context is bound to, in words."""
        return "the inputs"

    def can_capture(self, stream: Any) -> bool:
        """TensorRT for RTX says whether its work can be captured; elsewhere it is tried."""
        if not hasattr(self.context, "is_stream_capturable"):
            return True
        return bool(self.context.is_stream_capturable(stream.handle))

    def close(self) -> None:
        """Drop the context."""
        self.context = None
        self.generation += 1


class BatchLane(Lane):
    """A context that is bound to batches of images."""

    def __init__(
        self, make_context: Callable[[], Any], *, index: int, limits: tuple[int, int, int], lines: LogLines
    ) -> None:
        super().__init__(make_context, index=index, lines=lines)
        self.low, self.best, self.high = limits
        self.bound_batch = 0

    def bind(self, batch_size: int, tensors: tuple[TensorSpec, TensorSpec], stream: Any) -> int:
        """Set the shape of a batch if it is another than before; return the generation.

        Raises: MeasurementError when TensorRT refuses it.
        """
        if batch_size == self.bound_batch:
            return self.generation
        stream.synchronize()  # work of the former shape may still use what the context holds
        seen = len(self._lines.errors)
        source = tensors[0]
        shape = (batch_size, *(size or 0 for size in source.shape[1:]))
        if not self.context.set_input_shape(source.name, shape) or self.context.infer_shapes():
            raise MeasurementError(f"batch {batch_size} cannot be bound: {self._lines.reason(seen)}")
        self.bound_batch = batch_size
        self.generation += 1
        return self.generation

    def point(self, tensors: tuple[TensorSpec, TensorSpec], source: int, target: int) -> None:
        """Set the device addresses of input and output."""
        set_address = self.context.set_tensor_address
        if not (set_address(tensors[0].name, source) and set_address(tensors[1].name, target)):
            raise MeasurementError(f"TensorRT refused the address of a tensor: {self._lines.reason()}")

    @property
    def bound(self) -> str:
        """Return the batch, in words."""
        return f"batch {self.bound_batch}"

    def close(self) -> None:
        """Drop the context."""
        super().close()
        self.bound_batch = 0


def engine_tensors(trt: Any, engine: Any) -> tuple[TensorSpec, TensorSpec]:
    """Return the engine's only input and output. Raises: BuildError for other numbers or types."""
    names = [engine.get_tensor_name(k) for k in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]
    if len(inputs) != 1 or len(outputs) != 1:
        raise BuildError(f"the engine has inputs {inputs} and outputs {outputs}; a classifier has one of each")
    source, target = _tensor(trt, engine, inputs[0]), _tensor(trt, engine, outputs[0])
    if len(target.shape) != 2 or target.shape[1] is None:
        raise BuildError(f"output {target.name} has shape {target.shape}; expected (batch, classes)")
    return source, target


def _tensor(trt: Any, engine: Any, name: str) -> TensorSpec:
    dtype = dtype_of(trt, engine, name)
    if dtype not in FLOATS:
        raise BuildError(f"tensor {name} is {dtype}; expected float32 or float16")
    shape = tuple(None if size < 0 else int(size) for size in engine.get_tensor_shape(name))
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def dtype_of(trt: Any, engine: Any, name: str) -> str:
    """Return NumPy's name of a tensor's type, or TensorRT's where NumPy has none."""
    try:
        return str(np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name)
    except (TypeError, KeyError):  # bf16, fp8 and smaller have no NumPy type
        return str(engine.get_tensor_dtype(name))


def lane_limits(engine: Any, source: TensorSpec) -> list[tuple[int, int, int]]:
    """Return (min, opt, max) batch of every profile; an engine of fixed shape has one."""
    if source.shape[0] is not None:
        return [(source.shape[0],) * 3]
    limits = []
    for profile in range(engine.num_optimization_profiles):
        low, best, high = (int(shape[0]) for shape in engine.get_tensor_profile_shape(source.name, profile))
        limits.append((low, best, high))
    return limits


def pick_lane(lanes: list[BatchLane], batch_size: int) -> BatchLane:
    """Return the lane whose profile takes a batch; of several the one tuned closest to it.

    Raises: MeasurementError naming the profiles when none does.
    """
    fitting = [lane for lane in lanes if lane.low <= batch_size <= lane.high]
    if not fitting:
        known = ", ".join(f"{lane.low}..{lane.high}" for lane in lanes)
        raise MeasurementError(
            f"batch {batch_size} lies outside the engine's profiles ({known}); build one that takes it"
        )
    return min(fitting, key=lambda lane: abs(lane.best - batch_size))
