"""The execution contexts of an engine of any graph: bound by the shapes of named inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.backends._cuda.tensors import Place
from harness.backends.trt.api import LogLines
from harness.backends.trt.context import Lane, dtype_of
from harness.backends.trt.profiles import ShapeProfile, Shapes, shape_text
from harness.errors import BuildError, MeasurementError, Unsupported
from harness.protocols import Tensors
from harness.records import TensorSpec
from harness.specs import ModelTensors

NUMBERS = ("float16", "float32", "int8", "int32", "int64", "uint8", "bool")


class TensorLane(Lane):
    """A context that is bound to named shapes."""

    def __init__(self, make_context: Callable[[], Any], *, index: int, limits: ShapeProfile, lines: LogLines) -> None:
        super().__init__(make_context, index=index, lines=lines)
        self.limits = limits
        self._shapes: dict[str, tuple[int, ...]] | None = None

    def bind(self, shapes: Shapes, stream: Any) -> int:
        """Set the shapes of all inputs if they are others than before; return the generation.

        Raises: MeasurementError when TensorRT refuses them.
        """
        wanted = dict(shapes)
        if wanted == self._shapes:
            return self.generation
        stream.synchronize()  # work of the former shapes may still use what the context holds
        seen, self._shapes = len(self._lines.errors), None
        free = [name for name in wanted if name in self.limits.best]
        is_set = all(self.context.set_input_shape(name, wanted[name]) for name in free)
        if not is_set or self.context.infer_shapes():
            raise MeasurementError(f"inputs {_in_words(wanted)} cannot be bound: {self._lines.reason(seen)}")
        self._shapes = wanted
        self.generation += 1
        return self.generation

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Return the shape of an output for the inputs that are bound."""
        return tuple(int(size) for size in self.context.get_tensor_shape(name))

    def point(self, places: Mapping[str, Place]) -> None:
        """Set the device addresses of all inputs and outputs. Raises: MeasurementError."""
        for name, place in places.items():
            if not self.context.set_tensor_address(name, int(place.device)):
                raise MeasurementError(f"TensorRT refused the address of {name}: {self._lines.reason()}")

    def check_outputs(self, shapes: Shapes, outputs: Sequence[TensorSpec], stream: Any) -> None:
        """Refuse outputs whose size only a run tells. Raises: Unsupported, MeasurementError."""
        self.bind(shapes, stream)
        for output in outputs:
            if any(size < 0 for size in self.shape_of(output.name)):
                raise Unsupported(f"the size of output {output.name} depends on values, which TensorRT tells in a run")

    @property
    def bound(self) -> str:
        """Return the inputs, in words."""
        return f"inputs {_in_words(self._shapes or {})}"

    def close(self) -> None:
        """Drop the context."""
        super().close()
        self._shapes = None


def graph_tensors(
    trt: Any, engine: Any, tensors: ModelTensors
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], dict[str, str]]:
    """Return an engine's inputs and outputs as the model has them, and the engine's own types where they differ.

    TensorRT 8.6 has no 64-bit whole numbers: it takes 32 bits for them. An output that is fed back is given in its
    input's type. Raises: BuildError for other inputs than the model's; Unsupported for a type that NumPy lacks, or for
    tensors that lie on the host because their values decide shapes.
    """
    asked = {one.name: one.dtype for one in tensors.inputs}
    asked |= {one.state: one.dtype for one in tensors.inputs if one.state}
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    dtypes: dict[str, str] = {}
    for name in (engine.get_tensor_name(k) for k in range(engine.num_io_tensors)):
        own = dtype_of(trt, engine, name)
        if own not in NUMBERS:
            raise Unsupported(f"tensor {name} is {own} in TensorRT, which NumPy does not have")
        if engine.is_shape_inference_io(name):
            raise Unsupported(f"tensor {name} decides shapes by its values, or is one; TensorRT keeps it on the host")
        if own != asked.get(name, own):
            dtypes[name] = own
        shape = tuple(None if size < 0 else int(size) for size in engine.get_tensor_shape(name))
        spec = TensorSpec(name=name, dtype=asked.get(name, own), shape=shape)
        (inputs if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else outputs).append(spec)
    found, wanted = {spec.name for spec in inputs}, {one.name for one in tensors.inputs}
    if found != wanted or not outputs:
        raise BuildError(f"the engine has inputs {sorted(found)}; the model has {sorted(wanted)}")
    return tuple(inputs), tuple(outputs), dtypes


def profiles_of(engine: Any, inputs: Sequence[TensorSpec]) -> list[ShapeProfile]:
    """Return the shapes that every profile takes, of the inputs with free axes; an engine of fixed shapes has one."""
    free = [spec.name for spec in inputs if None in spec.shape]
    profiles = []
    for index in range(engine.num_optimization_profiles if free else 1):
        limits = {name: engine.get_tensor_profile_shape(name, index) for name in free}
        low, best, high = (
            {name: tuple(int(size) for size in shapes[k]) for name, shapes in limits.items()} for k in range(3)
        )
        profiles.append(ShapeProfile(low=low, best=best, high=high))
    return profiles


def pick_lane(lanes: Sequence[TensorLane], feeds: Tensors, label: str) -> TensorLane:
    """Return the lane whose profile takes some inputs; of several the one tuned closest to them.

    Raises: MeasurementError naming the profiles when none does.
    """
    shapes = {name: array.shape for name, array in feeds.items()}
    fitting = [lane for lane in lanes if lane.limits.takes(shapes)]
    if not fitting:
        known = ", ".join(lane.limits.text for lane in lanes)
        raise MeasurementError(
            f"{label}: inputs {_in_words(shapes)} lie outside the engine's profiles ({known}); "
            "give --min-shapes and --max-shapes that take them"
        )
    return min(fitting, key=lambda lane: lane.limits.distance(shapes))


def _in_words(shapes: Shapes) -> str:
    return " ".join(f"{name} {shape_text(shape)}" for name, shape in shapes.items())
