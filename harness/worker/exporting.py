"""An open case's engine, written to a file."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.errors import BuildError
from harness.protocols import ExportsEngine
from harness.store.cache import sha256_of_file
from harness.worker.opening import OpenCase
from harness.worker.requests import Exported


def exported(case: OpenCase, path: str) -> Exported:
    """Write an open case's engine to a file, or its prepared model where the runtime keeps no engine in one.

    Raises: BuildError.
    """
    target = Path(path)
    facts, engine, batch_size = case.facts, case.engine, None
    is_engine = True
    try:
        if facts.file is not None:
            shutil.copyfile(facts.file.path, target)
        elif isinstance(engine, ExportsEngine):
            batch_size = engine.export(target)
        else:
            is_engine = False
            shutil.copyfile(case.artifact(case.request.case).onnx_path, target)  # as prepared, from the cache
        digest = sha256_of_file(target)
    except OSError as error:
        raise BuildError(f"{target}: cannot be written ({error.strerror})") from error
    runtime = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    return Exported(sha256=digest, is_engine=is_engine, batch_size=batch_size, runtime=runtime)
