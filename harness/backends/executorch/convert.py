"""ONNX -> ExecuTorch programs, one a batch size, lowered in a child of the worker and kept in the content cache."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.backends._cpu import import_runtime
from harness.backends._host.conversion import Converted, converted, run_converter
from harness.backends._host.request import OpenRequest
from harness.backends.executorch import lower
from harness.backends.torch.graph import check_operators
from harness.specs import Precision

METHOD = "histogram"  # of PT2E's quantizer for XNNPACK: the range of least squared error
LIMIT_S = 1200.0
READ_AT_ONCE = 100  # calibration images
REVISION = 1  # raised when the same tools would be given another graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Programs by the batch that they take [images]."""

    by_size: Mapping[int, bytes]

    @classmethod
    def unpacked(cls, data: bytes) -> Programs:
        """Return the programs of an archive that `packed` made."""
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return cls(
                by_size={int(name.removesuffix(lower.SUFFIX)): archive.read(name) for name in archive.namelist()}
            )

    def packed(self) -> bytes:
        """Return all programs in one archive."""
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w") as archive:
            for size, data in self.by_size.items():
                archive.writestr(f"{size}{lower.SUFFIX}", data)
        return whole.getvalue()


def converted_programs(request: OpenRequest, versions: Mapping[str, str]) -> Converted:
    """Return the packed programs of a case; `told` in their notes is JSON of what the child read from its graphs.

    Raises: BuildError; Unsupported for an operator that has no translation.
    """
    check_operators(request.model, request.label)
    calibration = request.images if request.artifact.precision is Precision.INT8 else None
    fixed = request.input.shape[0]
    sizes = (fixed,) if fixed else tuple(sorted(set(request.batch_sizes)))

    def make(folder: Path) -> tuple[bytes, dict[str, str]]:
        onnx = import_runtime("onnx")
        onnx.save(request.model, str(folder / lower.MODEL))
        if calibration is not None:
            np.save(folder / lower.IMAGES, np.concatenate(list(calibration.batches(READ_AT_ONCE))))
        order = {"sizes": sizes, "shape": list(request.input.shape[1:]), "fixed": fixed or 0}
        (folder / lower.ORDER).write_text(json.dumps(order))
        code = f"from {lower.__name__} import main; main()"
        run_converter("ExecuTorch", code, subject=request.subject, folder=folder, limit_s=LIMIT_S)
        programs = {size: (folder / f"{size}{lower.SUFFIX}").read_bytes() for size in sizes}
        return Programs(by_size=programs).packed(), {"told": (folder / lower.TOLD).read_text()}

    key = {
        "to": "executorch",
        "artifact": request.artifact.sha256,
        "recipe": request.artifact.recipe,
        "sizes": list(sizes),
        "calibration": calibration.fingerprint if calibration is not None else "",
        "revision": REVISION,
        **versions,
    }
    return converted(request.options, key, f"{request.artifact.model}.executorch.zip", make)
