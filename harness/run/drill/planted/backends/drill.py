"""ONNX Runtime with a fault in it: what a fire drill measures beside the sound one. A real run never sees it."""

from __future__ import annotations

import os
import signal

import numpy as np

from harness.backends._cpu import checked_model
from harness.backends.ort.adapter import OrtBackend
from harness.backends.ort.engine import OrtEngine
from harness.models.onnx_graph import index_nodes
from harness.protocols import CalibrationSet, Images, Outputs
from harness.records import Artifact
from harness.specs import BuildOptions

NAME = "drill"
IN_FLOAT = {"session.disable_quant_qdq": "1"}  # Q/DQ files run in FP32: what an engine does that lacks the kernels


class _Nan(OrtEngine):
    """Gives NaN as one output of every batch."""

    def infer(self, images: Images) -> Outputs:
        outputs = super().infer(images)
        outputs[-1, -1] = np.nan
        return outputs


class _Stale(OrtEngine):
    """Gives the outputs of the batch before."""

    _last: Outputs | None = None

    def infer(self, images: Images) -> Outputs:
        outputs = super().infer(images)
        last, self._last = self._last, outputs
        return outputs.copy() if last is None or last.shape != outputs.shape else last


class _Killed(OrtEngine):
    """Ends its process, as the kernel does when memory is short."""

    def infer(self, images: Images) -> Outputs:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().infer(images)


class _InFloat(OrtEngine):
    """Runs Q/DQ files in FP32."""


FAULTS: dict[str, type[OrtEngine]] = {"nan": _Nan, "stale": _Stale, "killed": _Killed, "in_float": _InFloat}


class DrillBackend(OrtBackend):
    """Builds sound engines, or ones with the fault that the option `fault` names."""

    option_names = ("fault",)

    def build(
        self,
        artifact: Artifact,
        *,
        device: str,
        batch_sizes: tuple[int, ...],
        options: BuildOptions,
        calibration: CalibrationSet | None = None,
    ) -> OrtEngine:
        """Build one session. Raises: KeyError for an unknown fault; else as `OrtBackend`."""
        del calibration
        fault = str(options.settings.get(NAME, {}).get("fault", ""))
        kind = FAULTS[fault] if fault else OrtEngine
        return kind(
            artifact,
            label=f"{artifact.model}-{self.name}-{artifact.precision}",
            batch_sizes=batch_sizes,
            options=options,
            session_config=IN_FLOAT if kind is _InFloat else {},
            nodes=index_nodes(checked_model(artifact, self.name, device)),
        )


BACKEND = DrillBackend(NAME)
