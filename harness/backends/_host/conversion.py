"""Converters of vendors: in a child with a time limit, their result in the content cache."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.backends._child import run_child
from harness.errors import BuildError
from harness.records import Calibration, EngineFacts
from harness.specs import BuildOptions
from harness.store.cache import ContentCache

KIND = "converted"  # folder of the content cache
CONVERTER_LIMIT_S = 300.0  # below the worker's own default limit, so that the converter is named
QUIET = {"PIP_REQUIRE_VIRTUALENV": "1", "PIP_NO_INDEX": "1"}  # a converter installs nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A model in a runtime's own format."""

    data: bytes
    cache: str  # none, miss, hit, rebuilt: as `EngineFacts.cache`
    ns: int  # that making it took, when it was made
    meta: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def converted(
    options: BuildOptions, key: dict[str, object], name: str, make: Callable[[Path], tuple[bytes, dict[str, str]]]
) -> Converted:
    """Return what the content cache holds of a key, or make it and store it.

    `make` is given a folder of its own and returns the bytes and what to note beside them.
    """
    cache = ContentCache(options.cache_dir, kind=KIND) if options.cache_dir else None
    found = cache.lookup(key) if cache is not None and not options.rebuild else None
    if found is not None and found.entry is not None:
        meta = found.entry.meta
        return Converted(data=Path(found.entry.path).read_bytes(), cache="hit", ns=int(meta["ns"]), meta=meta)
    started = time.perf_counter_ns()
    with tempfile.TemporaryDirectory(prefix="harness-converter-") as folder:
        data, meta = make(Path(folder))
    meta = {**meta, "ns": str(time.perf_counter_ns() - started)}
    if cache is None:
        return Converted(data=data, cache="none", ns=int(meta["ns"]), meta=meta)
    cache.put(key, data, name=name, meta=meta)
    is_damaged = found is not None and found.state == "damaged"
    warnings = (f"the stored {name} was damaged and is made anew: {found.reason}",) if found and is_damaged else ()
    state = "rebuilt" if options.rebuild or is_damaged else "miss"
    return Converted(data=data, cache=state, ns=int(meta["ns"]), meta=meta, warnings=warnings)


def facts_of(
    elapsed_ns: int,
    made: Converted | None,
    *,
    engine_bytes: int,
    options: Mapping[str, str],
    versions: Mapping[str, str],
    notes: tuple[str, ...],
    calibration: Calibration | None = None,
) -> EngineFacts:
    """Return the facts of an engine that opened in `elapsed_ns`, from what a converter made for it or was kept."""
    is_kept = made is not None and made.cache == "hit"
    return EngineFacts(
        build_ns=elapsed_ns + (made.ns if made is not None and is_kept else 0),  # with the conversion, when made
        load_ns=elapsed_ns if is_kept else None,
        engine_bytes=engine_bytes,
        cache=made.cache if made is not None else "none",
        options=dict(options),
        versions=dict(versions),
        notes=notes,
        calibration=calibration,
        warnings=made.warnings if made is not None else (),
    )


def run_converter(
    tool: str,
    code: str,
    *arguments: str,
    subject: str,
    folder: Path,
    limit_s: float = CONVERTER_LIMIT_S,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a converter's Python code in a child, in a folder. Raises: BuildError with `subject` and its last words."""
    paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)
    variables = {**QUIET, "PYTHONPATH": paths, **(environment or {})}
    end = run_child(code, *arguments, limit_s=limit_s, folder=str(folder), environment=variables)
    if end.returncode is None:
        raise BuildError(f"{subject}: {tool} did not end within {limit_s:.0f} s")
    if end.returncode:
        raise BuildError(f"{subject}: {end.reason(tool, 'when converting')}")


def run_program(tool: str, program: Path, *arguments: str, subject: str, folder: Path) -> None:
    """Run a converter that is a program, as `run_converter` does. Raises: BuildError."""
    code = "os.execv(sys.argv[1], sys.argv[1:])"
    run_converter(tool, code, str(program), *arguments, subject=subject, folder=folder)
