"""The compiled models of one artifact, by batch size: how OpenVINO reads, reshapes and compiles it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.backends._cpu import import_runtime
from harness.backends.openvino.options import OpenvinoOptions
from harness.errors import BuildError, Unsupported
from harness.protocols import Tensors
from harness.records import Artifact, TensorSpec
from harness.specs import BuildOptions, Precision

DEVICE = "CPU"
VIRTUAL_DEVICES = ("AUTO", "BATCH", "HETERO", "MULTI")  # made of others
NO_OPERATORS = frozenset({"Constant", "Parameter", "Result"})
NS_PER_MS = 1e6
DTYPES = {"f32": "float32", "f16": "float16", "f64": "float64", "boolean": "bool"}
DTYPES |= {f"i{bits}": f"int{bits}" for bits in (8, 16, 32, 64)}
DTYPES |= {f"u{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)}
HINTS = {
    Precision.FP32: "f32",
    Precision.FP16: "f16",
    Precision.BF16: "bf16",
    Precision.INT8: "f32",  # what is not quantized
}


class CompiledModels:
    """Static models of the batch sizes asked, and a dynamic one for any other, compiled when first needed."""

    def __init__(self, artifact: Artifact, *, label: str, device: str, options: BuildOptions) -> None:
        """Read the model. `device` as OpenVINO writes it. Raises: BuildError, BackendUnavailable."""
        self.ov = import_runtime("openvino")
        self._artifact, self._label, self.device = artifact, label, device
        own = OpenvinoOptions.of(options.settings)
        self.config: dict[str, object] = {
            "PERFORMANCE_HINT": own.hint.upper(),
            "INFERENCE_PRECISION_HINT": HINTS[artifact.precision],
        }
        if is_cpu_alone(device):  # others know no threads
            self.config |= {"INFERENCE_NUM_THREADS": options.num_threads, **own.of_cpu()}
        self.extensions = own.extensions
        self.core: Any = core_with(self.ov, own.extensions)
        self.tensors = options.tensors
        self._compiled: dict[int | None, Any] = {}  # batch size -> model; None is the dynamic one
        self._requests: dict[int | None, Any] = {}
        self.inputs, self.outputs = self._read_tensors()

    @property
    def input(self) -> TensorSpec:
        """Return a classifier's input, or the first one."""
        return self.inputs[0]

    @property
    def output(self) -> TensorSpec:
        """Return a classifier's output, or the first one."""
        return self.outputs[0]

    def of_size(self, size: int) -> Any:
        """Return the static model of a batch size. Raises: BuildError."""
        if size not in self._compiled:
            self._compiled[size] = self.compile(size)
        return self._compiled[size]

    def request(self, size: int) -> Any:
        """Return the request that runs a batch: a static model's where there is one, else the dynamic one's."""
        key = size if size in self._compiled else None
        if key not in self._requests:
            if key not in self._compiled:
                self._compiled[key] = self.compile(key)
            self._requests[key] = self._compiled[key].create_infer_request()
        return self._requests[key]

    def request_of(self, feeds: Tensors) -> Any:
        """Return the request that runs the inputs of any graph: of the static model with these shapes, or dynamic."""
        shapes = {name: array.shape for name, array in feeds.items()}
        tensors = self.tensors
        size = next((n for n in self._compiled if n is not None and tensors and tensors.shapes(n) == shapes), None)
        return self.request(-1 if size is None else size)

    def of_streams(self, n_streams: int) -> dict[str, object]:
        """Return what a model is compiled with that runs several requests at once, each on as many threads as one."""
        threads = self.config.get("INFERENCE_NUM_THREADS")
        streams: dict[str, object] = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": n_streams}
        return streams if threads is None else {**streams, "INFERENCE_NUM_THREADS": int(str(threads)) * n_streams}

    def compile(self, size: int | None, **extra: object) -> Any:
        """Compile for one batch size; None keeps the batch free. Raises: BuildError."""
        model = self._read()
        try:
            if self.tensors is not None:
                self._give_shapes(model, size)
            elif size is not None and self.input.shape[0] is None:
                free = [-1 if n is None else n for n in self.input.shape[1:]]
                model.reshape(self.ov.PartialShape([size, *free]))
            return self.core.compile_model(model, self.device, {**self.config, **extra})
        except RuntimeError as error:
            raise BuildError(
                f"{self._label}: OpenVINO cannot build it for batch {size or 'N'}: {reason_of(error)}"
            ) from error

    def exported(self, size: int) -> bytes:
        """Return the static model of a batch size as a file holds it. Raises: BuildError where the device has none."""
        try:
            written = self.of_size(size).export_model()
        except RuntimeError as error:
            raise BuildError(f"{self._label}: OpenVINO's {self.device} exports no model: {reason_of(error)}") from error
        return written.getvalue() if isinstance(written, io.BytesIO) else bytes(written)

    def close(self) -> None:
        """Free all models; a second call does nothing."""
        self._requests.clear()
        self._compiled.clear()
        self.core = None

    def _read(self) -> Any:
        try:
            return self.core.read_model(self._artifact.onnx_path)
        except RuntimeError as error:
            raise BuildError(
                f"{self._label}: OpenVINO cannot read {Path(self._artifact.onnx_path).name}: {reason_of(error)}"
            ) from error

    def _give_shapes(self, model: Any, size: int | None) -> None:
        """Fix the inputs of any graph at a batch size; None leaves free what its file does."""
        if self.tensors is None or size is None:
            return
        shapes = self.tensors.shapes(size)
        names = self._names(model.inputs, tuple(shapes))
        model.reshape(
            {place: self.ov.PartialShape(list(shapes[name])) for place, name in enumerate(names) if name in shapes}
        )

    def _read_tensors(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        model = self._read()
        if self.tensors is None:
            self._check_classifier(model)
        taken, given = ((), ()) if self.tensors is None else (tuple(self.tensors.shapes(1)), self.tensors.output_names)
        names = self._names(model.inputs, taken), self._names(model.outputs, given)
        inputs, outputs = (
            tuple(map(self._tensor, ports, own))
            for ports, own in zip((model.inputs, model.outputs), names, strict=True)
        )
        return inputs, outputs

    def _check_classifier(self, model: Any) -> None:
        if len(model.inputs) != 1:
            names = ", ".join(port.get_any_name() for port in model.inputs)
            raise BuildError(f"{self._label}: the model has {len(model.inputs)} inputs ({names}); expected one")
        for port in (model.inputs[0], model.outputs[0]):
            kind = port.get_element_type().get_type_name()
            if kind != "f32":
                raise BuildError(f"{self._label}: {port.get_any_name()} is {kind}; expected f32")

    def _names(self, ports: Sequence[Any], own: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names that a model's file has for its ports, of those that OpenVINO knows them by.

        An input that is passed on as an output may be known by the output's name alone: then its place tells.
        """
        found = [next((name for name in own if name in port.get_names()), "") for port in ports]
        if len(own) == len(found):
            found = [name or own[place] for place, name in enumerate(found)]
        return tuple(name or str(port.get_any_name()) for name, port in zip(found, ports, strict=True))

    def _tensor(self, port: Any, name: str) -> TensorSpec:
        kind = port.get_element_type().get_type_name()
        if kind not in DTYPES:
            raise BuildError(f"{self._label}: {name} is {kind}; expected a tensor of numbers that NumPy has")
        partial = port.get_partial_shape()
        shape = (
            tuple(size.get_length() if size.is_static else None for size in partial) if partial.rank.is_static else ()
        )
        return TensorSpec(name=name, dtype=DTYPES[kind], shape=shape)


class ImportedModels(CompiledModels):
    """A model that was compiled and exported elsewhere: its batch size is the one that it was compiled for."""

    def compile(self, size: int | None, **extra: object) -> Any:
        """Import it once more, whatever the size: it has its own. Raises: BuildError where OpenVINO refuses it."""
        del size
        return self._imported({**self.config, **extra})

    def _read(self) -> Any:
        return self._imported(self.config)

    def _imported(self, config: dict[str, object]) -> Any:
        try:
            return self.core.import_model(Path(self._artifact.onnx_path).read_bytes(), self.device, config)
        except (OSError, RuntimeError) as error:
            reason = reason_of(error) if isinstance(error, RuntimeError) else str(error.strerror)
            raise BuildError(
                f"{self._label}: OpenVINO {self.ov.__version__.partition('-')[0]} refuses {self._artifact.onnx_path}: "
                f"{reason}; a blob serves the version and CPU that it was exported by"
            ) from error


def core_with(ov: Any, extensions: Sequence[str]) -> Any:
    """Return a core that knows the operators of some libraries. Raises: BuildError for one that it cannot load."""
    core = ov.Core()
    for library in extensions:
        try:
            core.add_extension(library)
        except RuntimeError as error:
            raise BuildError(f"--openvino-extension={library}: {reason_of(error)}") from error
    return core


def is_cpu_alone(device: str) -> bool:
    """Tell whether a device is the CPU, alone or behind HETERO, AUTO, ..."""
    return set(re.split("[:,]", device)) <= {DEVICE, *VIRTUAL_DEVICES}


def check_operators(core: Any, artifact: Artifact, device: str) -> None:
    """Refuse a model with operators that a device lacks. Raises: Unsupported, which lists them."""
    if lacking := lacking_operators(core, artifact.onnx_path, device):
        raise Unsupported(f"{artifact.model}: OpenVINO's {device} lacks {', '.join(lacking)}")


def lacking_operators(core: Any, path: str, device: str) -> tuple[str, ...]:
    """Return the nodes that no part of a device can run, as `name (type)`; () where the device does not say.

    An operator that OpenVINO cannot even read is named by the error of reading it.
    """
    try:
        model = core.read_model(path)
        runs = core.query_model(model, device)
    except RuntimeError:  # met again, and told, when the model is compiled
        return ()
    return tuple(
        f"{op.get_friendly_name()} ({op.get_type_name()})"
        for op in model.get_ordered_ops()
        if op.get_type_name() not in NO_OPERATORS and op.get_friendly_name() not in runs
    )


def reason_of(error: RuntimeError) -> str:
    """Return the line of OpenVINO's error that says why: the last; the first ones say where it was thrown."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("-- ") if lines else type(error).__name__
