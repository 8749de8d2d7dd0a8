"""What format a model's file is of, and the digest that stands for it. Pure."""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.errors import DataError
from harness.specs import IR_SUFFIX
from harness.store.cache import sha256_of_file

ONNX = "onnx"
OPENVINO_IR = "openvino-ir"
IR_WEIGHTS_SUFFIX = ".bin"


def model_format(path: str | Path) -> str:
    """Return ONNX or OPENVINO_IR, by the file's ending."""
    return OPENVINO_IR if Path(path).suffix == IR_SUFFIX else ONNX


def file_digest(path: Path) -> str:
    """Return the hex sha256 of a model's file; for OpenVINO IR that of the graph (.xml) and of its weights (.bin).

    Raises: OSError when the file cannot be read; DataError when an IR file has no weights beside it.
    """
    if model_format(path) == ONNX:
        return sha256_of_file(path)
    weights = path.with_suffix(IR_WEIGHTS_SUFFIX)
    if not weights.is_file():
        raise DataError(f"{path}: its weights, {weights.name}, do not lie beside it; copy both files")
    return hashlib.sha256(f"{sha256_of_file(path)}{sha256_of_file(weights)}".encode()).hexdigest()
