"""Model files and engines as they came: which backend takes them, and engines that were built elsewhere."""

from __future__ import annotations

from pathlib import Path

from harness.errors import BuildError, ConfigError, DataError, Unsupported
from harness.models.formats import ONNX, OPENVINO_IR, file_digest, model_format
from harness.models.tensors import foreign_operators_of
from harness.protocols import Backend, Engine, LoadsEngines, TakesOperators
from harness.records import Artifact, EngineFile, Support
from harness.specs import BuildOptions
from harness.worker.requests import CaseRequest

UNKNOWN_BITS = 32  # of weights, which no engine tells


def support_of(backend: Backend, request: CaseRequest) -> Support:
    """Say whether a backend can do a case: of an engine that is built, whether it loads any."""
    if request.model.engine is None:
        return backend.supports(request.case)
    if isinstance(backend, LoadsEngines):
        return Support(supported=True)
    return Support(supported=False, reason=f"{backend.name} loads no engine from a file")


def check_format(request: CaseRequest, backend: Backend) -> None:
    """Refuse a model whose file the backend does not read; an engine is met when it is loaded. Raises: Unsupported."""
    if request.model.engine is not None:
        return
    check_operators(request, backend)
    found, reads = model_format(request.model.onnx_path), getattr(backend, "reads", (ONNX,))
    if found not in reads:
        raise Unsupported(f"{backend.name} reads {' and '.join(reads)}; model {request.model.name} is {found}")


def check_operators(request: CaseRequest, backend: Backend) -> None:
    """Refuse operators of domains that no runtime has where no library has them either.

    Raises: Unsupported for a backend that takes none; BuildError, with its flag, where none was given to one that does.
    """
    model = request.model
    if not model.is_onnx or not Path(model.onnx_path).is_file():  # one that is gone is met when it is prepared
        return
    takes = backend if isinstance(backend, TakesOperators) else None
    if takes is not None and takes.has_operators(request.build):
        return
    for domain, operator in foreign_operators_of(model.onnx_path).items():
        named = f"{request.case.id}: {backend.name} has no operators of domain {domain}, as {operator}"
        if takes is None:
            raise Unsupported(f"{named}, and takes no library of them")
        raise BuildError(f"{named}; give the library that has them: {takes.library_flag}=LIB")


def artifact_of_engine(request: CaseRequest) -> Artifact:
    """Return the file of a built engine as what is measured: nothing is converted. Raises: BuildError, ConfigError."""
    model, case = request.model, request.case
    if model.engine is None:
        raise ConfigError(f"model {model.name} is no built engine")
    try:
        sha256 = file_digest(Path(model.onnx_path))
    except OSError as error:
        raise BuildError(f"{case.id}: {model.onnx_path} cannot be read ({error.strerror})") from error
    if model.sha256 and sha256 != model.sha256:
        raise BuildError(f"{case.id}: {model.onnx_path} has changed since the run began: sha256 {sha256[:12]}...")
    return Artifact(
        model=model.name,
        precision=case.precision,
        recipe=case.recipe,
        onnx_path=model.onnx_path,
        sha256=sha256,
        source_sha256=sha256,
        output_kind=model.output_kind,
        exported={"built by": model.engine.runtime} if model.engine.runtime else {},
        weight_bits=UNKNOWN_BITS,
    )


def is_compiled_anew(artifact: Artifact) -> bool:
    """Tell whether an engine's file is a graph that its runtime compiles each time: OpenVINO IR."""
    return model_format(artifact.onnx_path) == OPENVINO_IR


def open_engine(backend: Backend, request: CaseRequest, file: EngineFile, options: BuildOptions) -> Engine:
    """Load the engine of a request from its file. Raises: BuildError, Unsupported."""
    if not isinstance(backend, LoadsEngines) or request.artifact is None:
        raise Unsupported(f"{backend.name} loads no engine from a file")
    try:
        return backend.load(file, request.artifact, device=request.case.device, options=options)
    except (BuildError, DataError) as error:
        engine = request.model.engine
        needs = f"; its card says that {engine.runtime} built it" if engine is not None and engine.runtime else ""
        raise BuildError(f"{error}{needs}") from error
