"""What backends and model files say of themselves, asked so that a faulty one costs nobody else an answer."""

from __future__ import annotations

import importlib
import os
import site
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from harness.backends import load_backend
from harness.errors import ConfigError, HarnessError
from harness.machine.memory import peak_host_bytes
from harness.models import inspect_onnx
from harness.protocols import TakesOptions
from harness.records import Availability, EngineFacts
from harness.specs import ModelSpec
from harness.worker.opening import OpenCase
from harness.worker.requests import BackendNeeds, ModuleOrigin, OnnxQuestion
from harness.worker.swallowed import SWALLOWED

LIBRARIES = ("purelib", "platlib")  # of sysconfig: where packages are installed


def probed(name: str, stage: Callable[[str], None]) -> Availability:
    """Return what a probe found; one that raises, or returns anything else, costs its backend alone."""
    step = "import"
    try:
        stage(step)
        backend = load_backend(name)
        step = "probe"
        stage(step)
        # There and back: what is no Availability, or holds values of other types, is refused here.
        found = msgspec.convert(msgspec.to_builtins(backend.probe()), Availability)
        SWALLOWED.refuse()
    except BaseException as error:  # SystemExit too: a file that leaves costs its backend only
        SWALLOWED.forget()
        print(traceback.format_exc(), flush=True)
        reason = " ".join(str(error).split())
        if not isinstance(error, HarnessError):
            reason = f"{type(error).__name__}: {reason}"
        return Availability(backend=name, usable=False, reason=f"error during {step}: {reason}")
    if found.backend != name:
        reason = f"its probe answers for {found.backend or 'no name'}; a backend names itself"
        return Availability(backend=name, usable=False, reason=reason)
    return found


def needs_of(name: str) -> BackendNeeds:
    """Import a backend's file and return what it says of itself; an error of the import among it."""
    try:
        backend = load_backend(name)
        return BackendNeeds(
            name=name,
            required_modules=tuple(backend.required_modules),
            install_hint=backend.install_hint,
            option_names=tuple(backend.option_names) if isinstance(backend, TakesOptions) else None,
        )
    except BaseException as error:
        return BackendNeeds(name=name, error=f"{type(error).__name__}: {' '.join(str(error).split())}")


def inspected(question: OnnxQuestion) -> ModelSpec:
    """Return what an ONNX file says of itself. Raises: DataError, ConfigError."""
    return inspect_onnx(Path(question.path), inputs=question.inputs, is_scored=question.is_scored, **question.overrides)


def facts_of(case: OpenCase) -> EngineFacts:
    """Return what a case's engine has noted by now, and the memory that this process has held at most."""
    return replace(case.facts, host_peak_bytes=peak_host_bytes())


def origin_of(module: str) -> ModuleOrigin:
    """Import a module and return where it came from. Raises: ConfigError when it cannot be imported."""
    try:
        loaded = importlib.import_module(module)
    except Exception as error:
        raise ConfigError(f"{module} cannot be imported: {type(error).__name__}: {error}") from error
    places = [loaded.__file__] if getattr(loaded, "__file__", None) else list(getattr(loaded, "__path__", ()))
    path = os.path.realpath(places[0]) if places and places[0] else ""
    own = {os.path.realpath(place) for place in (*site.getsitepackages(), *map(sysconfig.get_path, LIBRARIES))}
    is_own = any(path.startswith(place + os.sep) for place in own)
    return ModuleOrigin(module=module, path=path, is_own=is_own)
