"""The last fire drill of a report folder: `<report dir>/fire_drill.json`, sealed."""

from __future__ import annotations

from pathlib import Path

import msgspec

from harness.errors import ConfigError
from harness.records import FireDrill
from harness.store.runs import write_atomically
from harness.store.sealed import Damaged, check_digest, decoded, sealed, values_of

FILE = "fire_drill.json"


def save_fire_drill(report_dir: Path, drill: FireDrill) -> Path:
    """Write a drill beside the runs and return its file. Raises: ConfigError when it cannot be written."""
    path = report_dir / FILE
    try:
        report_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(path, msgspec.json.format(sealed(msgspec.json.encode(drill)), indent=1) + b"\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}); see --report-dir") from error
    return path


def load_fire_drill(report_dir: Path, *, version: str) -> FireDrill | None:
    """Return the last drill of this version of the harness, None where there is none that can be believed."""
    try:
        data = (report_dir / FILE).read_bytes()
        check_digest(values_of(data))
        drill = decoded(data, FireDrill)
    except (OSError, Damaged):
        return None
    return drill if drill.version == version else None
