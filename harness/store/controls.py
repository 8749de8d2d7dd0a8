"""Engines of accepted runs, kept by their digest outside version control: what tonight's engine is timed against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from harness.errors import ConfigError
from harness.records import Artifact, EngineFile, Record
from harness.store.cache import ContentCache, sha256_of_file
from harness.store.sealed import Damaged, decoded

KIND = "accepted"
ARTIFACT = "artifact"  # name of a note


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """An accepted engine: the file that a runtime loads, or the model file that it compiles."""

    artifact: Artifact
    engine_file: EngineFile | None


class ControlStore:
    """The kept engines below the cache folder `root`."""

    def __init__(self, root: str | Path) -> None:
        self._cache = ContentCache(root, KIND)

    def keep(self, record: Record) -> str:
        """Keep the engine of an accepted record, and return why it could not be, "" when it is there."""
        artifact = record.artifact
        if artifact is None or not record.valid_latencies:
            return "it was not timed"
        file = record.engine.file if record.engine is not None else None
        path, sha256 = (artifact.onnx_path, artifact.sha256) if file is None else (file.path, file.sha256)
        try:
            if sha256_of_file(Path(path)) != sha256:
                return f"{path} is not the file it was timed with, or holds its weights elsewhere"
            note = msgspec.json.encode(artifact).decode()
            self._cache.put(_key(sha256), Path(path).read_bytes(), name=_name(path), meta={ARTIFACT: note})
        except (OSError, ConfigError) as error:
            return str(error)
        return ""

    def find(self, engine_sha256: str) -> Control | str:
        """Return a kept engine by the digest of its bytes, or why there is none."""
        if not engine_sha256:
            return "the baseline names no engine file"
        looked = self._cache.lookup(_key(engine_sha256), needs=(ARTIFACT,))
        if looked.state == "damaged":
            return f"the accepted engine's file was damaged ({looked.reason})"
        if looked.entry is None:
            return "the accepted engine's file is gone"
        entry = looked.entry
        try:
            artifact = decoded(entry.meta[ARTIFACT].encode(), Artifact)
        except Damaged as error:
            return f"the accepted engine's note was damaged ({error})"
        if entry.sha256 != artifact.sha256:
            return Control(artifact=artifact, engine_file=EngineFile(path=entry.path, sha256=entry.sha256))
        return Control(artifact=replace(artifact, onnx_path=entry.path), engine_file=None)


def _key(engine_sha256: str) -> dict[str, object]:
    return {"engine_sha256": engine_sha256}


def _name(path: str) -> str:
    return Path(path).name
