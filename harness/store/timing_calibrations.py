"""Calibrations of times, one file a type of device, beside the baselines and kept in version control like them.

    <root>/calibrations/<device type>.json

A file holds what every night measured, so that nights accrue; what follows from them is derived on reading. A damaged
file is an error with the command that replaces it, never a missing calibration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import BaselineError
from harness.records import CalibrationNight, TimingCalibration
from harness.store.baselines import slug, write_file
from harness.store.sealed import Damaged, check_digest, decoded, sealed, values_of

CALIBRATIONS = "calibrations"
CALIBRATION_SCHEMA = 1
DATE_LENGTH = len(date.min.isoformat())


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    schema: int
    calibration: TimingCalibration


def calibration_path(root: Path, device_type: str) -> Path:
    """Return where the calibration of a type of device lies, whether or not it exists."""
    return root / CALIBRATIONS / f"{slug(device_type)}.json"


def load_calibration(root: Path, device_type: str) -> TimingCalibration | None:
    """Return the calibration of a type of device, None where there is none.

    Raises: BaselineError for a file that cannot be read, is damaged, of another schema or of another type of device.
    """
    path = calibration_path(root, device_type)
    remedy = f"restore it from version control, or delete it and run: harness calibrate --baseline-dir={root}"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BaselineError(f"{path} cannot be read ({error.strerror}); fix its permissions") from error
    try:
        values = values_of(data)
        _check_schema(values)
        check_digest(values)
        calibration = decoded(data, _File).calibration
    except Damaged as error:
        raise BaselineError(f"{path} is damaged ({error}); {remedy}") from error
    if calibration.device_type != device_type:
        raise BaselineError(f"{path} is of {calibration.device_type}, not of {device_type}; {remedy}")
    return calibration


def _check_schema(values: dict[str, Any]) -> None:
    schema = values.get("schema")
    if schema != CALIBRATION_SCHEMA:
        raise Damaged(f"schema {schema!r}; this harness reads {CALIBRATION_SCHEMA}")


def save_calibration(root: Path, calibration: TimingCalibration) -> Path:
    """Write a calibration in a fixed order of keys, numbers on one line, and return its path.

    Raises: ConfigError when it cannot be written.
    """
    path = calibration_path(root, calibration.device_type)
    file = _File(schema=CALIBRATION_SCHEMA, calibration=calibration)
    text = msgspec.json.format(sealed(msgspec.json.encode(file)), indent=1).decode()
    text = re.sub(r"\[\n([-0-9.,eE+\s]+)\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    write_file(path, text.encode() + b"\n")
    return path


def with_night(calibration: TimingCalibration, earlier: TimingCalibration | None) -> TimingCalibration:
    """Return a calibration of tonight with the earlier nights before it.

    Cases that tonight measured again on the same day take the place of that day's.
    """
    if earlier is None:
        return calibration
    tonight = calibration.nights[-1]
    again = {(case.case_id, case.batch_size) for case in tonight.cases}
    nights = []
    for night in earlier.nights:
        if night.measured_at[:DATE_LENGTH] == tonight.measured_at[:DATE_LENGTH]:
            kept = tuple(case for case in night.cases if (case.case_id, case.batch_size) not in again)
            tonight = replace(tonight, cases=(*kept, *tonight.cases))
        else:
            nights.append(night)
    return replace(calibration, nights=(*nights, _in_order(tonight)))


def _in_order(night: CalibrationNight) -> CalibrationNight:
    return replace(night, cases=tuple(sorted(night.cases, key=lambda case: (case.case_id, case.batch_size))))
