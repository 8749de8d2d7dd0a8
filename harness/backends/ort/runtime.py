"""ONNX Runtime itself: its errors, its tensors, and what its providers can do in BF16."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from typing import Any

from harness.backends._cpu import import_runtime
from harness.backends._inputs import files_in_words
from harness.errors import BuildError, HarnessError, Unsupported
from harness.models.onnx_graph import one_line
from harness.records import Artifact, TensorSpec
from harness.specs import BF16_RUNTIME_RECIPE, Precision

PROVIDER = "CPUExecutionProvider"
ORT_SUFFIX = ".ort"  # of its own format, which is optimized already
ERROR_CLASSES = (
    "EPFail",
    "EngineError",
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "NoModel",
    "NoSuchFile",
    "NotImplemented",
    "RuntimeException",
)
TENSOR_TYPE = re.compile(r"tensor\((?P<kind>\w+)\)")
WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
DTYPES = {"float": "float32", "double": "float64", "float16": "float16", **{name: name for name in WHOLE}}
# Graphs of one product: what is asked is whether a kernel is there.
BF16_PROBES = {
    "Conv": "g (bfloat16[1,1,4,4] x, bfloat16[1,1,3,3] w) => (bfloat16[1,1,2,2] y) { y = Conv(x, w) }",
    "Gemm": "g (bfloat16[1,4] x, bfloat16[4,2] w) => (bfloat16[1,2] y) { y = Gemm(x, w) }",
    "MatMul": "g (bfloat16[1,4] x, bfloat16[4,2] w) => (bfloat16[1,2] y) { y = MatMul(x, w) }",
}
# What ONNX Runtime answers when no provider has a kernel: on the CPU alone, and with CUDA before it.
NO_KERNEL = (
    re.compile(r"Could not find an implementation for (?P<kind>\w+)\(\d+\) node with name '(?P<name>[^']*)'"),
    re.compile(r"Provider type for (?P<kind>\w+) node with name '(?P<name>[^']*)' is not set"),
)


def bf16_refusal(recipe: str, provider: str) -> str:
    """Return why a provider of ONNX Runtime cannot run a BF16 recipe, "" when it can.

    ONNX Runtime adds no casts around a BF16 node without a kernel, as it does for FP16: it refuses the session. So one
    is tried for every kind of product; of other operators the build tells: see `session_error`.
    """
    if recipe == BF16_RUNTIME_RECIPE:
        return f"ONNX Runtime computes in the file's own types, and recipe {recipe} leaves them FP32"
    ort = import_runtime("onnxruntime")
    options, lacking = ort.SessionOptions(), []
    options.log_severity_level = 4  # the refusals are the answer
    for kind, graph in BF16_PROBES.items():
        try:
            ort.InferenceSession(_bf16_probe(graph), options, providers=[provider])
        except vendor_errors():
            lacking.append(kind)
    return f"ONNX Runtime {ort.__version__} has no BF16 {', '.join(lacking)} on its {provider}" if lacking else ""


def session_error(artifact: Artifact, label: str, provider: str, error: BaseException) -> HarnessError:
    """Return what a refused session is: Unsupported for a BF16 file with a node without a kernel, else BuildError."""
    lacking = next((match for match in (pattern.search(str(error)) for pattern in NO_KERNEL) if match), None)
    if artifact.precision is not Precision.BF16 or lacking is None:
        return BuildError(f"{label}: ONNX Runtime cannot build {artifact.onnx_path}: {one_line(error)}")
    version = import_runtime("onnxruntime").__version__
    node = f" ({lacking['name']})" if lacking["name"] else ""
    return Unsupported(f"ONNX Runtime {version} has no BF16 {lacking['kind']} on its {provider}{node}")


def _bf16_probe(text: str) -> bytes:
    """Return a model of one node from ONNX's text form."""
    parser = importlib.import_module("onnx.parser")
    model: bytes = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 22]> {text}').SerializeToString()
    return model


def vendor_errors() -> tuple[type[Exception], ...]:
    """Return ONNX Runtime's exception classes; each is a plain subclass of Exception."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    return tuple(getattr(state, name) for name in ERROR_CLASSES if hasattr(state, name))


def check_classifier(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], label: str) -> None:
    """Refuse several inputs, or a type other than float32. Raises: BuildError."""
    if len(inputs) != 1:
        names = ", ".join(tensor.name for tensor in inputs)
        raise BuildError(f"{label}: the model has {len(inputs)} inputs ({names}); a classifier with one is expected")
    for tensor in (inputs[0], outputs[0]):
        if tensor.dtype != "float32":
            raise BuildError(f"{label}: {tensor.name} is {tensor.dtype}; expected float32")


def libraries_in_words(libraries: Sequence[str]) -> dict[str, str]:
    """Return what an engine's options say of its libraries of operators: by name and content."""
    return {"custom_ops": files_in_words(libraries)}


def register_libraries(options: Any, libraries: Sequence[str]) -> None:
    """Let a session's options know the operators of some libraries. Raises: BuildError."""
    for library in libraries:
        try:
            options.register_custom_ops_library(library)
        except vendor_errors() as error:
            raise BuildError(f"--ort-custom-ops={library}: {one_line(error)}") from error


def all_tensors(session: Any, label: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return all inputs and all outputs of a session. Raises: BuildError for one that is no array of numbers."""
    inputs, outputs = (
        tuple(_tensor_spec(value, label) for value in values)
        for values in (session.get_inputs(), session.get_outputs())
    )
    return inputs, outputs


def _tensor_spec(value: Any, label: str) -> TensorSpec:
    kind = TENSOR_TYPE.fullmatch(value.type)
    dtype = DTYPES.get(kind["kind"]) if kind else None
    if dtype is None:
        raise BuildError(f"{label}: {value.name} is {value.type}; expected a tensor of numbers that NumPy has")
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return TensorSpec(name=value.name, dtype=dtype, shape=shape)
