"""Calibration tables: tensor -> largest magnitude, as TensorRT's text or JSON, and the drift between two. Pure.

TensorRT's text begins with a line that names version and calibrator; each further line holds a tensor's name and its
scale, the big-endian bits of a float32 in hexadecimal. A magnitude is 127 scales.
"""

from __future__ import annotations

import json
import math
import re
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DataError

INT8_MAX = 127.0
DEFAULT_HEADER = "TRT-8601-EntropyCalibration2"
HEADER = re.compile(r"TRT-(?P<version>\d+)-(?P<algorithm>\w+)\Z")
# The legacy calibrator writes a flag and the bits of two float64, cutoff and quantile; 8.6 with blanks between.
LEGACY_HEADER = re.compile(r"\d(?P<gap> ?)(?P<cutoff>[0-9a-f]{16})(?P=gap)(?P<quantile>[0-9a-f]{16})\Z")
SCALE = re.compile(r"[0-9a-fA-F]{1,8}\Z")  # leading zeros are left out
EXPECTED = "expected a calibration table of TensorRT's, or JSON that maps tensor names to magnitudes"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationTable:
    """Tensor -> largest magnitude, >= 0, in the order of the file; `header` is TensorRT's first line."""

    ranges: Mapping[str, float]
    header: str = ""

    @property
    def made_by(self) -> str:
        """Return which calibrator made it, for a reader."""
        if match := HEADER.match(self.header):
            return f"{match['algorithm']} of TensorRT {match['version']}"
        if match := LEGACY_HEADER.match(self.header):
            cutoff, quantile = (struct.unpack(">d", bytes.fromhex(match[k]))[0] for k in ("cutoff", "quantile"))
            return f"legacy calibrator, quantile {quantile:.8g}, cutoff {cutoff:.8g}"
        return "JSON"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One tensor in two tables; None where a table does not name it."""

    tensor: str
    before: float | None
    after: float | None

    @property
    def change(self) -> float | None:
        """Return after / before - 1; None where one is missing, infinite where only the first is 0."""
        if self.before is None or self.after is None:
            return None
        if self.before == 0:
            return 0.0 if self.after == 0 else math.inf
        return self.after / self.before - 1


def table_from_text(text: str, where: str) -> CalibrationTable:
    """Read TensorRT's text or JSON. Raises: DataError naming `where`, the line and what is wrong."""
    lines = text.splitlines()
    if text.lstrip().startswith("{"):
        return CalibrationTable(ranges=_ranges_of_json(text, where))
    header = lines[0].strip() if lines else ""
    if not (HEADER.match(header) or LEGACY_HEADER.match(header)):
        raise DataError(f"{where}: its first line is {header[:60]!r}; {EXPECTED}")
    ranges: dict[str, float] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        name, _, scale = line.rpartition(": ")
        if not name or not SCALE.match(scale.strip()):
            raise DataError(f"{where}:{number}: found {line[:60]!r}, expected NAME: SCALE with a scale of 8 hex digits")
        value = struct.unpack(">f", bytes.fromhex(scale.strip().zfill(8)))[0]
        if not math.isfinite(value) or value < 0:
            raise DataError(f"{where}:{number}: tensor {name} has scale {value}; expected 0 or more")
        if name in ranges:
            raise DataError(f"{where}:{number}: tensor {name} stands there twice")
        ranges[name] = value * INT8_MAX
    if not ranges:
        raise DataError(f"{where}: names no tensor; the table is cut short")
    return CalibrationTable(ranges=ranges, header=header)


def read_table(path: Path) -> CalibrationTable:
    """Read a table's file. Raises: DataError when it is missing or no table."""
    try:
        return table_from_text(path.read_text(), str(path))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text; {EXPECTED}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {EXPECTED}") from error


def table_text(table: CalibrationTable, header: str = "") -> str:
    """Return a table as TensorRT's text. Raises: DataError for a header or a name that its reader would not take."""
    first = header or table.header or DEFAULT_HEADER
    check_header(first)
    bad = next((name for name in table.ranges if "\n" in name or not name), None)
    if bad is not None:
        raise DataError(f"tensor {bad!r} cannot be named in a table; rename it in the model")
    scales = ((name, struct.pack(">f", value / INT8_MAX).hex()) for name, value in table.ranges.items())
    return "\n".join([first, *(f"{name}: {scale}" for name, scale in scales)]) + "\n"


def check_header(header: str) -> None:
    """Refuse a first line that TensorRT would not read. Raises: DataError."""
    if not (HEADER.match(header) or LEGACY_HEADER.match(header)):
        raise DataError(f"header {header!r}: expected TRT-VERSION-CALIBRATOR, as {DEFAULT_HEADER}")


def json_text(table: CalibrationTable) -> str:
    """Return a table as JSON, for `--trt-ranges`. A tensor that was always 0 gets magnitude 1: 0 scales nothing."""
    return json.dumps({name: value or 1.0 for name, value in table.ranges.items()}, indent=1) + "\n"


def drift(before: CalibrationTable, after: CalibrationTable) -> tuple[Drift, ...]:
    """Return every tensor of two tables, those that changed most first, those of one table alone last."""
    names = list(dict.fromkeys((*before.ranges, *after.ranges)))
    found = [Drift(tensor=n, before=before.ranges.get(n), after=after.ranges.get(n)) for n in names]
    return tuple(sorted(found, key=lambda row: (row.change is None, -_size(row.change))))


def _size(change: float | None) -> float:
    """Return how large a change is, the same for a half and a double."""
    if change is None or change == 0:
        return 0.0
    return math.inf if change in (-1, math.inf) else abs(math.log1p(change))


def _ranges_of_json(text: str, where: str) -> dict[str, float]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: {error}; {EXPECTED}") from error
    if not isinstance(found, dict) or not found:
        raise DataError(f"{where}: names no tensor; {EXPECTED}")
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
            raise DataError(f"{where}: tensor {name!r} has magnitude {value!r}; expected a number of 0 or more")
    return {str(name): float(value) for name, value in found.items()}
